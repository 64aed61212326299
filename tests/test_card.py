"""Model cards: what a header says, as text that nothing in a file can turn into markup."""

import json
import re

import pytest
import torch
from test_cli_streams import HOSTILE, saved

import daukit
from daukit.models import record_of
from daukit.preprocessing import Preprocessing
from daukit.workflows.card import card_of

COMMAND = "convert"


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    network = daukit.create_model("shallow_dau", channels=[2, 2, 3], units=[8, 2, 3], num_classes=2, in_channels=3)
    seen = Preprocessing((0.5,) * 3, (0.25,) * 3, "rgb", (28, 28), class_names=("cat", "dog"))
    record_of(network).preprocessing = seen
    daukit.save(network, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def cells(card, heading):
    """The rows of the table below a heading."""
    table = re.search(rf"## {heading}\n\n(.*?)\n\n", card, re.DOTALL)[1]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()[2:]]


def test_a_folder_has_a_card_and_is_read_back(run, model, tmp_path):
    code, _, err = run(model, "--folder", "--card-figure", "-o", tmp_path / "cats")
    assert code == 0, err
    files = sorted(path.name for path in (tmp_path / "cats").iterdir())
    assert files == ["README.md", "config.json", "displacements.png", "model.safetensors"]
    card = (tmp_path / "cats" / "README.md").read_text(encoding="utf-8")
    assert "# cats" in card and "(displacements.png)" in card and 'daukit.load("cats")' in card
    network, again = daukit.load(model), daukit.load(tmp_path / "cats")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_it_says_what_the_file_says(model):
    card = card_of(daukit.read(model), "cats")
    head = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1].splitlines()
    entries = dict(line.split(": ", 1) for line in head)
    assert entries["library_name"] == "daukit" and entries["pipeline_tag"] == "image-classification"
    assert "pytorch" in json.loads(entries["tags"])
    assert [row[:3] for row in cells(card, "Layers")] == [
        ["conv1", "3 to 2", "48"], ["conv2", "2 to 2", "8"], ["conv3", "2 to 3", "18"]
    ]  # fmt: skip
    assert ["classes", "cat, dog"] in cells(card, "Input")
    assert f"{model.stat().st_size:,} bytes" in card
    assert "(displacements.png)" not in card and "The file's history mentions nothing." in card


def test_the_history_is_told_with_its_numbers(daukit_command, model, tmp_path):
    pruned = tmp_path / "pruned.safetensors"
    assert daukit_command("prune", model, "--threshold", "0.25", "-o", pruned).returncode == 0
    ((_, operation, arguments, version),) = cells(card_of(daukit.read(pruned), "pruned"), "How it was made")
    assert operation == "prune" and "threshold = 0.25" in arguments and version == daukit.__version__


@pytest.mark.filterwarnings("always:.*was there and stays")
def test_a_card_that_is_there_stays(run, model, tmp_path):
    folder = tmp_path / "cats"
    assert run(model, "--folder", "-o", folder)[0] == 0
    (folder / "README.md").write_text("My own words.")
    (folder / "displacements.png").write_text("an old figure")
    code, _, err = run(model, "--folder", "--card-figure", "-o", folder, "--overwrite")
    assert code == 0 and "README.md was there and stays" in err
    assert (folder / "displacements.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "README.md").read_text() == "My own words."


def test_nothing_in_a_file_becomes_markup(tmp_path):
    words = f"https://a.b www.c.d `x` | <b>b</b> [a](b) **c** $d$ # e {HOSTILE}"
    entry = {"operation": words, "arguments": {words: words}, "date": words, "version": words}
    path = saved(tmp_path / "m.safetensors", layer=words.replace(".", ""), history=[entry])
    card = card_of(daukit.read(path), words)
    outside = re.sub(r"```.*?```|(?<!\\)`[^`\n]*`", "", card, flags=re.DOTALL)  # code is shown as it is
    unescaped = re.sub(r"\\[\\`*_{}\[\]<>#|~$!:.]", "", outside.partition("\n---\n")[2])
    for mark in ("<b>", "://", "www.", "](", "**c**", "$d$", "`"):
        assert mark not in unescaped, mark
    assert not {"\x1b", "\u202e", "\x9b"} & set(card)


def test_a_figure_needs_a_folder(run, model, tmp_path):
    code, _, err = run(model, "--model", "shallow_dau", "--card-figure", "-o", tmp_path / "x.safetensors")
    assert code == 2 and "only --folder writes a model card" in err
