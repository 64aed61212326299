"""Documents tell the truth: commands and Python run, tables of options are the commands'; and they keep to one form."""

import pkgutil
import re

import pytest
import torch
from example_files import write_example_files
from pages import ROOT, TEXTS, code, commands, fences, parameters, table
from torch import nn

import daukit

LESS = {"--epochs": "1", "--images": "2", "--probes": "2", "--keep-units": "800", "--time-budget": "1"}
SMALLER = {"224": "32"}
"""Sizes of images."""


def shortened(arguments):
    """The same command, with less to do."""
    words = list(arguments)
    for command, option in (("erf", "--images"), ("report", "--images"), ("train", "--epochs")):
        if words[0] == command and option not in words:
            words += [option, LESS[option]]
    return [LESS.get(before, SMALLER.get(word, word)) for before, word in zip(["", *words[:-1]], words, strict=True)]


SLOW = (
    "bake.md",
    "bench.md",
    "convert.md",
    "erf.md",
    "export.md",
    "plot-offsets.md",
    "prune.md",
    "report.md",
    "results.md",
    "tutorial.md",
)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name, text in TEXTS.items()
        if name != "README.md" and commands(text)
    ],
)
def test_every_command_of_a_page_runs(page, tmp_path, monkeypatch, daukit_command):
    write_example_files(tmp_path, TEXTS[page])
    monkeypatch.chdir(tmp_path)
    for folder in ("runs", "docs/images"):
        (tmp_path / folder).mkdir(parents=True)
    for arguments in commands(TEXTS[page]):
        done = daukit_command(*shortened(arguments), *(["--overwrite"] if "-o" in arguments else []))
        assert done.returncode == 0, (arguments, done.stderr)


def test_the_commands_of_the_readme_have_their_options(tmp_path, daukit_command):
    """`make demo` and the slow tests run them; here they only must not be refused."""
    assert len(commands(TEXTS["README.md"])) >= 5
    for command, *arguments in commands(TEXTS["README.md"]):
        known = daukit_command(command, "--help").stdout
        assert all(word in known for word in arguments if word.startswith("--")), arguments


@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if code(text, "python")])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, daukit_command):
    torch.manual_seed(0)
    source = "\n".join(code(TEXTS[page], "python"))
    write_example_files(tmp_path, source)
    monkeypatch.chdir(tmp_path)
    if "model.pt2" in source:
        write_example_files(tmp_path, "model.safetensors")
        assert daukit_command("bake", "model.safetensors", "-o", "model.pt2").returncode == 0
    if "model.onnx" in source:
        write_example_files(tmp_path, "model.safetensors")
        assert daukit_command("export", "model.safetensors", "-o", "model.onnx").returncode == 0
    layer3 = nn.Sequential(daukit.DAUConv2d(1, 4, units=2))
    layer4 = nn.Sequential(nn.Sequential())
    layer4[0].conv1, layer4[0].conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    model = nn.Sequential()
    model.layer3, model.layer4 = layer3, layer4
    exec(source, {"model": model, "images": torch.randn(2, 1, 28, 28)})


def test_every_name_of_the_library_in_the_documents_is_there():
    for name in re.findall(r"(?<![\w/])daukit\.([a-zA-Z_]\w*(?:\.[a-zA-Z_]\w*)*)", "".join(TEXTS.values())):
        pkgutil.resolve_name(f"daukit.{name}")
        first = name.partition(".")[0]
        # A room that a test has imported is there anyway; a user's first access goes this way.
        assert first in daukit.__all__ or daukit.__getattr__(first)


def test_every_figure_of_the_documents_is_made_by_a_command():
    for figure in (ROOT / "docs" / "images").iterdir():
        assert re.search(rf"(-o|--pictures|--figure|runs|\.py) \S*{figure.name}", "".join(TEXTS.values())), figure.name


def test_every_command_has_a_page_that_the_overview_names():
    overview = TEXTS["cli.md"]
    for command in parameters():
        assert f"`{command}`" in overview or f"daukit {command}" in overview
    for page in re.findall(r"\]\(([\w-]+\.md)\)", overview):
        assert page in TEXTS


@pytest.mark.parametrize("page", TEXTS)
def test_links_of_a_page_lead_somewhere(page):
    folder = next(path.parent for path in (ROOT / page, ROOT / "docs" / page) if path.exists())
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", TEXTS[page], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#:]+)\)", prose):
        assert (folder / target).exists(), target


def stated(cell):
    """What a cell says of a default: what stands in backticks is the parser's word for word, "on" and "off" are flags'.

    Other words are about a value that the command finds itself, where the parser has none.
    """
    literal = re.fullmatch(r"`([^`]*)`", cell)
    return literal[1] if literal else cell if cell in ("required", "on", "off") else None


def comparable(default):
    """Numbers as numbers, None as None, everything else as text."""
    try:
        return None if default is None else float(default)
    except ValueError:
        return str(default)


@pytest.mark.parametrize("command", [name for name, own in parameters().items() if len(own) > 1])
def test_the_table_of_options_of_a_page_is_that_of_the_command(command):
    told = {}
    for words, default, effect in table(TEXTS[f"{command}.md"], "Options"):
        names = re.findall(r"(?<![\w-])--?[a-z][\w-]*", words) or re.findall(r"\w+", words)[:1]
        names = frozenset(names)
        assert names not in told and effect, words
        told[names] = comparable(stated(default))
    assert told == {one.names: comparable(one.default) for one in parameters()[command]}


WIDTH = 120


@pytest.mark.parametrize("page", TEXTS)
def test_lines_of_a_page_are_wrapped(page):
    """All but code, and rows of tables and pictures, which Markdown has in one line."""
    prose = re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.DOTALL | re.MULTILINE)
    assert not [line for line in prose.splitlines() if len(line) > WIDTH and not line.startswith(("|", "!["))]


@pytest.mark.parametrize("page", TEXTS)
def test_fences_of_a_page_are_of_one_kind(page):
    """Commands, their output and formulas without a language, commands without a prompt; Python as such."""
    assert not re.search(r"^(~~~|````| +```)", TEXTS[page], re.MULTILINE)
    assert {fence.language for fence in fences(TEXTS[page])} <= {"", "python"}
    assert not [fence for fence in fences(TEXTS[page]) if re.search(r"^(\$|>|>>>) ", fence.body, re.MULTILINE)]


def test_every_page_is_on_the_site():
    listed = re.findall(
        r"- (?:.*: )?((?:docs|examples)/\S+\.md|\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE
    )
    pages = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")}
    pages |= {path.relative_to(ROOT).as_posix() for path in ROOT.glob("examples/*/*.md")}
    assert sorted(listed) == sorted(pages | {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"})


def test_the_citation_has_the_version():
    assert f"\nversion: {daukit.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
