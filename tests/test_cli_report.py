"""A page about networks: its numbers are those of the other commands, and whatever a file holds, there is a page."""

import json

import numpy as np
import pytest
import torch
from idx import toy_folder
from test_cli_streams import HOSTILE, saved

import daukit
from daukit.datasets import load_folder
from daukit.models import record_of
from daukit.models.structure import dau_layers
from daukit.workflows.report_words import of_sweep
from daukit.workflows.sweep import Sweep, SweepPoint

COMMAND = "report"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture
def model(tmp_path, folder):
    return written(tmp_path / "model.safetensors", folder)


def written(path, folder, name="shallow_dau", **more):
    """A small network with displacements here and there."""
    torch.manual_seed(len(path.name))
    units = {} if name == "shallow" else {"units": 2}
    network = daukit.create_model(name, channels=[4, 6, 8], num_classes=4, input_size=[16, 16], **units, **more)
    with torch.no_grad():
        for layer in dau_layers(network).values():
            layer.mu.normal_(0, 1.5)
    record_of(network).preprocessing = load_folder(folder, "train").preprocessing()
    daukit.save(network, path)
    return path


def made(run, *arguments):
    code, out, err = run(*arguments)
    assert code == 0, err
    return out


def numbers(run, *arguments):
    return json.loads(made(run, *arguments, "--json"))


def page(run, path, *arguments):
    made(run, *arguments, "-o", path)
    return path.read_text(encoding="utf-8")


def test_the_numbers_are_those_of_the_other_commands(run, daukit_command, model, folder):
    report = numbers(run, model, "--data", folder, "--thresholds", "0,0.3", "--images", "2")

    def of(*arguments):
        return json.loads(daukit_command(*arguments, "--json").stdout)

    assert report["info"] == of("info", model)
    assert report["displacements"] == of("plot-offsets", model, "--kind", "both")["layers"]
    assert report["sigmas"] == of("plot-offsets", model, "--kind", "sigma")["layers"]
    assert report["evaluation"] == of("evaluate", model, "--data", folder)
    assert report["pruning"] == of("prune", model, "--thresholds", "0,0.3", "--data", folder)
    assert report["fields"]["layers"] == of("erf", model, "--data", folder, "--images", "2")["layers"]
    assert report["missing"] == [] and report["time"] is None and report["output"] is None


def test_weights_are_counted_as_pruning_counts_them(run, model):
    report = numbers(run, model, "--images", "0")
    for layer in report["weights"]:
        sizes = np.abs(daukit.read(model).layer(layer["name"]).weight.double().numpy()).ravel()
        assert layer["units"] == sizes.size and layer["largest"] == sizes.max()
        assert layer["mean"] == pytest.approx(sizes.mean(), rel=1e-12)
        for share, below in layer["below"].items():
            assert below == (sizes < float(share) * sizes.max()).mean()
        for share, value in layer["quantiles"].items():
            assert (sizes <= value).mean() >= float(share) > (sizes < value).mean()
    swept = numbers(run, model, "--images", "0", "--thresholds", "0.01,0.02,0.05,0.1")["pruning"]
    for layer, weights in zip(swept["layers"], report["weights"], strict=True):
        gone = [layer["units_before"] - left for left in layer["units"]]
        assert gone == [round(below * weights["units"]) for below in weights["below"].values()]


@pytest.mark.slow
def test_what_moved_is_what_plot_offsets_says(run, daukit_command, model, folder, tmp_path):
    before = written(tmp_path / "before.safetensors", folder)
    report = numbers(run, model, "--compare", before, "--images", "0")
    changes = json.loads(daukit_command("plot-offsets", model, "--before", before, "--json").stdout)
    assert report["compare"][0]["changes"] == changes["layers"] and report["changes"] is None
    text = page(run, tmp_path / "moved.html", model, "--compare", before, "--images", "0")
    assert "conv2, from before.safetensors to model.safetensors" in text


def test_units_of_another_network_did_not_move_and_the_page_says_why(run, daukit_command, model, tmp_path):
    pruned = tmp_path / "pruned.safetensors"
    daukit_command("prune", model, "--threshold", "0.3", "-o", pruned)
    report = numbers(run, pruned, "--compare", model, "--images", "0")
    (missing,) = report["compare"][0]["missing"]
    assert report["compare"][0]["changes"] is None and missing["part"] == "moves of units"
    assert "only the same units can be followed" in missing["reason"]
    text = page(run, tmp_path / "page.html", pruned, "--compare", model, "--images", "0")
    assert "only the same units can be followed" in text


def test_times_are_of_the_network_as_it_is_and_prepared(run, model):
    report = numbers(run, model, "--images", "0", "--time")
    assert report["time"]["input"] == [8, 1, 16, 16]
    for kind in ("plain", "prepared"):
        assert 0 < report["time"][kind]["lower"] <= report["time"][kind]["median"] <= report["time"][kind]["upper"]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind != "pruned" else ())
        for kind in ("convolutions", "pruned", "whole", "learned", "rescaled", "zero", "empty")
    ],
)
def test_there_is_a_page_of_every_kind_of_file(kind, run, daukit_command, model, folder, tmp_path):
    other = tmp_path / "other.safetensors"
    if kind == "convolutions":
        written(other, folder, "shallow")
    elif kind == "learned":
        written(other, folder, learn_sigma="unit")
    elif kind == "whole":
        assert daukit_command("snap", model, "-o", other).returncode == 0
    elif kind == "pruned":
        assert daukit_command("prune", model, "--threshold", "0.5", "-o", other).returncode == 0
    elif kind == "rescaled":
        assert daukit_command("rescale", model, "--factor", "conv2=2", "-o", other).returncode == 0
    else:
        network = daukit.load(model)
        with torch.no_grad():
            network.conv2.weight.zero_()
        daukit.save(network, other)
        if kind == "empty":
            empty = tmp_path / "empty.safetensors"
            assert daukit_command("prune", other, "--keep-units", "0", "-o", empty).returncode == 0
            other = empty
    text = page(run, tmp_path / "page.html", other, "--data", folder, "--images", "1")
    assert "Summary" in text and text.endswith("</html>\n") and "None" not in text


def test_a_network_whose_code_is_not_there_has_all_that_its_file_tells(run, tmp_path):
    path = saved(tmp_path / "model.safetensors", layer="other")  # layers of a file of Caffe
    report = numbers(run, path)
    assert report["fields"] is None and len(report["displacements"]) == 3
    assert [missing["part"] for missing in report["missing"]] == ["receptive fields"]
    assert "What is not here" in page(run, tmp_path / "page.html", path)


def test_names_in_files_are_text(run, tmp_path):
    entry = {"operation": "<b>x</b>", "arguments": {"<i>": HOSTILE}, "date": "<u>", "version": "<s>"}
    path = saved(tmp_path / "<b>.safetensors", layer=f"<script>{HOSTILE}", history=[entry])
    text = page(run, tmp_path / "page.html", path)
    for tag in ("<b>", "<i>", "<u>", "<s>"):
        assert tag not in text
    assert text.count("<script>") == 1 and "&lt;script&gt;\\x1b[31mX" in text
    assert not {"\x1b", "\u202e", "\x9b"} & set(text)


@pytest.mark.slow
def test_the_same_call_writes_the_same_bytes(run, model, tmp_path):
    first, second = tmp_path / "1.html", tmp_path / "2.html"
    assert page(run, first, model, "--images", "2") == page(run, second, model, "--images", "2")


def test_python_callers_get_the_same(model, folder):
    from daukit.workflows.report import make_report

    report = make_report(daukit.read(model), data=folder, images=1)
    assert report.evaluation.accuracy == report.pruning.sweep[0].accuracy and report.output is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name the page to write; or pass --json"),
        (("-o", "page.pdf"), "a page is .html"),
        (("-o", "MODEL"), "a page is .html"),
        (("-o", "page.html", "--layout", "idx"), "no folder is read without --data"),
        (("-o", "page.html", "--thresholds", "0,2"), "[0, 1]"),
        (("-o", "page.html", "--data", "nowhere"), "nowhere"),
        (("-o", "page.html", "--compare", "nowhere.safetensors"), "nowhere.safetensors"),
        (("-o", "there.html"), "exists already"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_and_writes_nothing(arguments, words, run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.html").write_text("mine")
    code, _, err = run(model, *(str(model) if word == "MODEL" else word for word in arguments))
    assert code in (1, 2) and words in err
    assert not (tmp_path / "page.html").exists() and (tmp_path / "there.html").read_text() == "mine"


def test_a_dry_run_measures_and_writes_nothing(run, model, tmp_path):
    assert "152" in made(run, model, "-o", tmp_path / "page.html", "--dry-run", "--images", "0")
    assert not (tmp_path / "page.html").exists()


def swept(*scores):
    """A sweep of thresholds 0.1, 0.2, ... at which a network of 100 units has these accuracies."""
    points = [SweepPoint(threshold=(i + 1) / 10, units=90 - 10 * i, accuracy=score) for i, score in enumerate(scores)]
    return Sweep(relative_to="layer", units_before=100, sweep=tuple(points), layers=(), csv=None, figure=None)


def test_the_sentence_on_pruning_compares_with_the_network_as_it_is():
    assert "Up to a threshold of 0.2" in of_sweep(swept(0.899, 0.896, 0.7), 0.9)
    assert "80 units, 80 % of them, have 89.60%, and all 90.00%" in of_sweep(swept(0.899, 0.896, 0.7), 0.9)
    assert of_sweep(swept(0.3, 0.3), 0.9).startswith("Every threshold tried costs more than half a point of accuracy")
    assert "leaves 30.00% of 90.00%" in of_sweep(swept(0.3, 0.3), 0.9)


def test_a_dead_layer_takes_no_other_field_along(run, model, folder, tmp_path):
    network = daukit.load(model)
    with torch.no_grad():
        network.conv2.weight.zero_()
    daukit.save(network, tmp_path / "dead.safetensors")
    report = numbers(run, tmp_path / "dead.safetensors", "--data", folder, "--images", "1")
    assert [layer["name"] for layer in report["fields"]["layers"]] == ["conv1"]
    dead = [missing["part"] for missing in report["missing"]]
    assert dead == ["receptive field of conv2", "receptive field of conv3"]


def test_a_network_of_ones_own_stands_beside_one_of_daukits(run, model, folder, tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU())\n"
    )
    torch.manual_seed(0)
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1)).state_dict(), tmp_path / "own.pth")
    own = f"{tmp_path / 'own.py'}:make"
    for first, second in ((model, tmp_path / "own.pth"), (tmp_path / "own.pth", model)):
        report = numbers(run, first, "--compare", second, "--model", own, "--images", "1")
        assert all(one["fields"]["layers"] for one in (report, *report["compare"]))
    report = numbers(run, model, "--compare", tmp_path / "own.pth", "--model", own, "--data", folder, "--images", "0")
    assert report["evaluation"] is not None and report["pruning"]["sweep"][0]["accuracy"] is not None
    assert [missing["part"] for missing in report["compare"][0]["missing"]] == ["scores"]  # it has no preprocessing
    code, _, err = run(model, "--model", own, "--json")
    assert code != 0 and "drop" in err
