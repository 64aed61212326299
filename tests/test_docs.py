"""Every command and every piece of Python in the documents runs; every figure in them is made by a command."""

import pkgutil
import re
import shlex
from pathlib import Path

import pytest
import torch
from example_files import write_example_files
from torch import nn

import daukit

ROOT = Path(__file__).parent.parent
PAGES = sorted(ROOT.glob("docs/*.md"))
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / "README.md"]}


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text):
    """The ``daukit`` commands of a page in order, without prompt and comment; continued lines are one."""
    lines = "".join(blocks(text, "(?:console)?")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if re.match(r"(\$ )?daukit ", line)]
    return [line[1:] for line in words]


LESS = {"--epochs": "1", "--images": "2", "--probes": "2"}


def shortened(arguments):
    """The same command, with less to do."""
    words = list(arguments)
    if words[0] == "erf" and "--images" not in words:
        words += ["--images", "2"]
    return [LESS.get(before, word) for before, word in zip(["", *words[:-1]], words, strict=True)]


SLOW = ("prune.md", "erf.md")


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
    for command, *arguments in commands(TEXTS["README.md"]):
        known = daukit_command(command, "--help").stdout
        assert all(word in known for word in arguments if word.startswith("--")), arguments


@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if blocks(text, "python")])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch, daukit_command):
    torch.manual_seed(0)
    code = "\n".join(blocks(TEXTS[page], "python"))
    write_example_files(tmp_path, code)
    monkeypatch.chdir(tmp_path)
    if "model.pt2" in code:
        write_example_files(tmp_path, "model.safetensors")
        assert daukit_command("bake", "model.safetensors", "-o", "model.pt2").returncode == 0
    layer3 = nn.Sequential(daukit.DAUConv2d(1, 4, units=2))
    layer4 = nn.Sequential(nn.Sequential())
    layer4[0].conv1, layer4[0].conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    model = nn.Sequential()
    model.layer3, model.layer4 = layer3, layer4
    exec(code, {"model": model, "images": torch.randn(2, 1, 28, 28)})


def test_every_name_of_the_library_in_the_documents_is_there():
    for name in re.findall(r"\bdaukit\.([a-zA-Z_]\w*(?:\.[a-zA-Z_]\w*)*)", "".join(TEXTS.values())):
        pkgutil.resolve_name(f"daukit.{name}")
        first = name.partition(".")[0]
        # A room that a test has imported is there anyway; a user's first access goes this way.
        assert first in daukit.__all__ or daukit.__getattr__(first)


def test_every_figure_of_the_documents_is_made_by_a_command():
    told = "".join(TEXTS.values()) + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for figure in (ROOT / "docs" / "images").iterdir():
        assert re.search(rf"(-o|runs|\.py) \S*{figure.name}", told), figure.name


def test_every_command_has_a_page_that_the_overview_names():
    overview = TEXTS["cli.md"]
    from daukit.cli.main import app

    for command in app.registered_commands:
        assert f"`{command.name}`" in overview or f"daukit {command.name}" in overview
    for page in re.findall(r"\]\(([\w-]+\.md)\)", overview):
        assert (ROOT / "docs" / page).exists()
