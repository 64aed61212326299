"""A report in a browser: it can be read, sorted, switched, printed and heard, and asks nobody for anything."""

import csv
import io
import re
import shutil
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest

import daukit
from daukit.workflows.report import make_report

pytestmark = pytest.mark.browser

EXAMPLES = Path(__file__).parent.parent / "examples"
SAMPLE = EXAMPLES / "fashion-mnist"
WIDTHS = (360, 800, 1400)


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = shutil.which("chromium")
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])  # root has no sandbox
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """Of the bundled network beside what it began as, with scores, and its own page alone."""
    folder = tmp_path_factory.mktemp("pages")
    network, start = (daukit.read(SAMPLE / f"{name}.safetensors") for name in ("shallow_dau", "start"))
    make_report(network, images=2, output=folder / "one.html")
    make_report(network, compare=[start], data=SAMPLE, images=2, time=True, output=folder / "two.html")
    return folder


class Opened:
    """A page in a browser, with what it said and asked for."""

    def __init__(self, context, path):
        self.page, self.said, self.asked = context.new_page(), [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def rows(self, caption):
        table = self.page.locator("table", has=self.page.locator("caption", has_text=caption))
        return [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]


@pytest.fixture
def opened(browser, report):
    contexts = []

    def call(name="two.html", width=1400, **how):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True, **how))
        return Opened(contexts[-1], report / name)

    yield call
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", ["one.html", "two.html"])
def test_it_says_nothing_to_the_console_and_asks_for_nothing(name, opened):
    view = opened(name)
    assert view.said == []
    assert [url for url in view.asked if not url.startswith("data:")] == [view.page.url]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen(width, scheme, opened):
    page = opened(width=width, color_scheme=scheme).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(re.match(r"rgb\((\d+)", ground)[1])
    assert red > 240 if scheme == "light" else red < 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["one.html", "two.html"])
def test_axe_finds_nothing(name, scheme, opened):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(opened(name, color_scheme=scheme).page).response["violations"]
    assert [(one["id"], one["impact"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


def test_tables_are_sorted_by_numbers_and_back(opened):
    view = opened("one.html")
    heading = view.page.get_by_role("button", name="units left, %")
    before = view.rows("Thresholds")
    heading.click()
    assert view.rows("Thresholds") == before[::-1]  # less is left the higher the threshold
    assert view.page.locator("th[aria-sort=ascending]").inner_text().startswith("units left")
    heading.click()
    assert view.rows("Thresholds") == before
    assert view.page.locator("th[aria-sort=descending]").count() == 1
    view.page.locator("thead").get_by_role("button", name="threshold").click()
    thresholds = [float(row[0]) for row in view.rows("Thresholds")]
    assert thresholds == sorted(thresholds) and len(thresholds) == 9


def test_layers_are_sorted_by_keyboard(opened):
    view = opened("one.html")
    button = view.page.get_by_role("columnheader", name="largest distance").get_by_role("button")
    button.focus()
    view.page.keyboard.press("Enter")
    largest = [float(row[9]) for row in view.rows("DAU layers")]
    assert largest == sorted(largest) and len(largest) == 3


def test_the_switch_shows_the_units_of_one_filter(opened):
    page = opened("one.html").page
    shown = page.locator("#displacements [data-variant]:visible")
    assert {one.get_attribute("data-variant") for one in shown.all()} == {"all units"}
    page.get_by_role("radio", name="top 75% by |w|").check()
    assert {one.get_attribute("data-variant") for one in shown.all()} == {"top 75% by |w|"} and shown.count() == 3


def test_the_slider_shows_one_contour_and_says_how_large_it_is(opened):
    page = opened("one.html").page
    slider, figure = page.get_by_role("slider"), page.locator("#fields figure").first
    contours = figure.locator("g.chosen")
    slider.focus()
    page.keyboard.press("Home")
    first = figure.locator(".reading").inner_text()
    assert contours.count() == 1 and first.startswith("5 % of the influence")
    page.keyboard.press("End")
    last = figure.locator(".reading").inner_text()
    assert contours.count() == 1 and last.startswith("99.9 % of the influence")
    assert slider.get_attribute("aria-valuetext") == "99.9 % of the influence"
    areas = [int(re.search(r"([\d,]+) pixels", words)[1].replace(",", "")) for words in (first, last)]
    assert areas[0] < areas[1]


def test_numbers_are_taken_away_as_csv(opened):
    page = opened("one.html").page
    with page.expect_download() as waiting:
        page.locator("#layers a.packed").click()
    assert waiting.value.suggested_filename == "shallow_dau-layers.csv"
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text())))
    assert [row["layer"] for row in rows] == ["conv1", "conv2", "conv3"]
    assert [int(row["units"]) for row in rows] == [256, 2048, 6144]


def test_figures_are_taken_away_as_svg_with_what_is_seen_of_them(opened):
    page = opened("one.html").page
    with page.expect_download() as waiting:
        page.locator("#fields button.save").first.click()
    assert waiting.value.suggested_filename == "conv1-field.svg"
    names = [element.get("id", "") for element in ElementTree.parse(waiting.value.path()).iter()]
    assert sum("choice-" in name for name in names) == 1 and not any("choices-" in name for name in names)


def test_without_scripts_everything_is_there(opened):
    page = opened("one.html", java_script_enabled=False).page
    assert page.locator("#displacements [data-variant]:visible").count() == 9
    assert page.locator("fieldset:visible, .slider:visible, button:visible").count() == 0
    assert page.locator("#fields figure").first.locator("g[id*='choices-']").count() == 8  # four contours, and words
    link = page.locator("#layers a.packed")
    assert link.get_attribute("href").startswith("data:application/gzip") and link.is_visible()


def test_it_is_printed_on_a_few_sheets_of_a4(opened, tmp_path):
    page = opened("one.html").page
    page.emulate_media(media="print")
    printed = page.pdf(prefer_css_page_size=True)
    sheets = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", printed)
    assert 2 <= len(sheets) <= 10
    assert {(round(float(width)), round(float(height))) for width, height in sheets} == {(595, 842)}
    assert page.locator("nav:visible, .slider:visible, fieldset:visible, button.save:visible").count() == 0


def test_it_is_heard_by_landmarks_headings_and_findings(opened):
    page = opened().page
    for role in ("banner", "main", "contentinfo", "navigation"):
        assert page.get_by_role(role).count() == 1
    levels = [int(one.evaluate("e => e.tagName")[1]) for one in page.locator("h1, h2, h3").all()]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))
    for drawing in page.get_by_role("img").all():
        assert len(drawing.locator("title").first.inner_html()) > 20
    for target in page.locator("nav a").all():
        assert page.locator(target.get_attribute("href")).count() == 1


def test_it_is_small_and_soon_there(report, opened):
    assert (report / "one.html").stat().st_size < 1.5e6
    page = opened("one.html").page
    assert page.evaluate("performance.getEntriesByType('navigation')[0].domComplete") < 1000  # milliseconds
