"""A page becomes one HTML file: every text is text, every drawing has its own names, nothing is asked for."""

import base64
import gzip
import hashlib
import re
from html.parser import HTMLParser

import pytest

from daukit.page import (
    Download,
    Drawing,
    Facts,
    Figure,
    Figures,
    Page,
    Section,
    Slider,
    Table,
    Text,
    Timed,
    TimeLine,
    render,
)
from daukit.page.svg import inline

HOSTILE = "<script>alert(1)</script>\"'&\u202e\x1b[31m"

SVG = """<?xml version="1.0" encoding="utf-8"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "about:legacy">
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="144pt" height="72pt"
 viewBox="0 0 144 72"><metadata>made here</metadata>
<defs><style type="text/css">*{stroke-linejoin: round}</style></defs>
<g id="choice-0"><path id="p" clip-path="url(#c)" d="M 0 0"/><use xlink:href="#p"/></g><text>id="p" url(#c)</text>
<clipPath id="c"><rect/></clipPath></svg>"""


class Elements(HTMLParser):
    """The elements of a page, and the text outside of its script and style."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self._inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if self._inside and tag == self._inside[-1]:
            self._inside.pop()

    def handle_data(self, data):
        if not self._inside:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def figure(words="a finding", variant=None):
    return Figure(HOSTILE, HOSTILE, [Drawing(SVG, words, variant)], "name")


def page(*blocks):
    return Page("title", "subtitle", [Section("part", "Part", blocks)], "footer")


def everything():
    """A page with every kind of block, each full of hostile text."""
    csv = Download(HOSTILE, "a,b\n")
    return Page(HOSTILE, HOSTILE, [Section("part", HOSTILE, [
        Text(HOSTILE), Facts([(HOSTILE, HOSTILE)]), Table(HOSTILE, [HOSTILE], [[HOSTILE]], csv, HOSTILE),
        Figures([figure(HOSTILE, HOSTILE)], HOSTILE, [HOSTILE], csv),
        Slider(HOSTILE, [HOSTILE], 0, [figure(HOSTILE)], [[HOSTILE]], csv),
        TimeLine([Timed(HOSTILE, HOSTILE, [(HOSTILE, HOSTILE)])]),
    ])], HOSTILE)  # fmt: skip


def test_no_text_becomes_an_element_and_none_is_obeyed():
    text = render(everything())
    elements = Elements(text)
    assert len(elements.all("script")) == 1
    assert "alert(1)" not in [attribute for _, attributes in elements.found for attribute in attributes]
    assert "\u202e" not in text and "\x1b" not in text
    shown = "".join(elements.texts)
    assert shown.count("<script>alert(1)</script>") >= 15  # as text, in every block


def test_the_only_script_that_may_run_is_the_pages_own():
    text = render(page(Text("words")))
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(meta["content"] for meta in Elements(text).all("meta") if "content" in meta and "http-equiv" in meta)
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_nothing_on_a_page_is_elsewhere():
    for _, attributes in Elements(render(everything())).found:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:")), attributes


def test_drawings_have_names_of_their_own():
    drawn = inline(SVG, "d7", "what it shows")
    assert 'id="d7-choice-0"' in drawn and 'id="d7-p"' in drawn and 'clip-path="url(#d7-c)"' in drawn
    assert 'href="#d7-p"' in drawn and 'id="p" url(#c)</text>' in drawn  # a text stays as it is
    names = [
        attributes["id"]
        for _, attributes in Elements(render(page(Figures([figure(), figure()])))).found
        if "id" in attributes
    ]
    assert len(names) == len(set(names))


def test_a_drawing_says_what_it_shows_and_brings_nothing_that_would_hold_for_the_page():
    drawn = inline(SVG, "d1", 'conv "1" < 2')
    assert 'role="img" aria-labelledby="d1-words"' in drawn
    assert '<title id="d1-words">conv "1" &lt; 2</title>' in drawn
    assert "metadata" not in drawn and "<style" not in drawn and "DOCTYPE" not in drawn
    assert "max-width:2.000in" in drawn and 'width="' not in drawn  # 144 points at most


def test_numbers_are_taken_away_whole():
    numbers = "layer,units\nconv1,12\n"
    text = render(page(Table("caption", ["layer"], [["conv1"]], Download("x.csv", numbers))))
    link = next(a for a in Elements(text).all("a") if "download" in a)
    packed = base64.b64decode(link["href"].partition("base64,")[2])
    assert link["download"] == "x.csv.gz" and gzip.decompress(packed).decode() == numbers
    assert text == render(page(Table("caption", ["layer"], [["conv1"]], Download("x.csv", numbers))))  # to the byte


def test_numbers_that_name_rows_are_sorted_as_numbers_too():
    cells = Elements(render(page(Table("caption", ["threshold"], [[0.25]])))).all("th")
    assert cells[1]["data-value"] == "0.25" and cells[0]["class"] == cells[1]["class"] == "number"


@pytest.mark.parametrize(
    ("cell", "words", "value"),
    [
        (1234, "1,234", "1234"),
        (0.123456, "0.1235", "0.123456"),
        (None, "\N{EN DASH}", None),
        ("learned", "learned", None),
    ],
)
def test_cells_are_shown_short_and_sorted_by_all_their_digits(cell, words, value):
    text = render(page(Table("caption", ["layer", "x"], [["conv1", cell]])))
    cells = Elements(text).all("td")
    assert cells[0].get("data-value") == value
    assert f">{words}</td>" in text
