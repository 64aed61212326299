"""What the README shows is what happens."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import daukit
from daukit.datasets import load_folder
from daukit.models.factory import resolve_factory
from daukit.training.log import read_log

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "examples" / "fashion-mnist"
MODEL = SAMPLE / "shallow_dau.safetensors"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_trains_a_step():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)
    model = names["model"]
    assert isinstance(model, nn.Sequential) and all(torch.isfinite(p).all() for p in model.parameters())


def test_the_bundled_network_is_the_one_that_the_readme_describes():
    checkpoint = daukit.read(MODEL)
    assert checkpoint.header.architecture["name"] == "shallow_dau"
    channels = [layer["out_channels"] for layer in checkpoint.header.layers]
    assert channels == [32, 32, 64] and [layer["units"] for layer in checkpoint.header.layers] == [8, 2, 3]
    accuracy = checkpoint.header.history[-1]["arguments"]["test_accuracy"]
    assert f"to {accuracy:.2%} test accuracy" in README and accuracy >= 0.91
    log = read_log(SAMPLE / "training.jsonl")
    assert log[-1].test_score == accuracy and len(log) == 5


def test_the_start_is_the_one_that_the_seed_of_the_training_makes():
    architecture = daukit.read(MODEL).header.architecture
    torch.manual_seed(0)
    made = daukit.create_model(architecture["name"], **architecture["config"]).state_dict()
    start = daukit.load(SAMPLE / "start.safetensors").state_dict()
    assert made.keys() == start.keys() and all(torch.equal(made[name], start[name]) for name in made)


@pytest.mark.slow
def test_the_readmes_table_is_what_the_command_prints(daukit_command):
    rows = re.findall(r"^│ ([\d.]+) +│ +([\d.]+)% │ +([\d,]+) │ +([\d.]+) │$", README, re.MULTILINE)
    thresholds = ",".join(row[0] for row in rows)
    done = daukit_command("prune", MODEL, "--thresholds", thresholds, "--data", SAMPLE, "--json")
    result = json.loads(done.stdout)
    assert len(rows) == len(result["sweep"]) == 6
    for (_, accuracy, units, removed), measured in zip(rows, result["sweep"], strict=True):
        assert f"{measured['units']:,}" == units
        assert f"{100 * (1 - measured['units'] / result['units_before']):.1f}" == removed
        # Another processor rounds differently, which can turn an image whose two best classes are level: two of 2,000.
        assert abs(100 * measured["accuracy"] - float(accuracy)) <= 0.1 + 1e-9


@pytest.mark.slow
def test_the_bundled_networks_that_segment_do_what_their_page_says(daukit_command):
    folder = ROOT / "examples" / "segmentation"
    page = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    for name, said in (("shallow_dau", "a mean IoU of {:.1f} %"), ("shallow_dilated", "second file {:.1f} %")):
        done = daukit_command("evaluate", folder / f"{name}.safetensors", "--data", folder / "canvases-sample", "-q")
        assert said.format(100 * float(done.stdout)) in page


def test_the_sample_is_the_head_of_what_it_was_cut_from(tmp_path):
    resolve_factory(f"{SAMPLE / 'make_sample.py'}:main")(SAMPLE, tmp_path)
    cut, bundled = load_folder(tmp_path, "test"), load_folder(SAMPLE, "test")
    assert torch.equal(cut.images, bundled.images) and torch.equal(cut.labels, bundled.labels)
    assert len(cut.images) == 2000 and len(bundled.class_names) == 10


def test_the_picture_of_a_dau_can_be_drawn(tmp_path):
    resolve_factory(f"{ROOT / 'examples' / 'dau_picture.py'}:main")(str(tmp_path / "dau.png"))
    assert (tmp_path / "dau.png").read_bytes().startswith(b"\x89PNG")
