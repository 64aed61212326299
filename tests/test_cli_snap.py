"""``daukit snap`` from outside: what is printed and written, measurements, dry runs, wrong calls, broken files."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from idx import toy_folder
from safetensors import safe_open
from safetensors.torch import save_file

import daukit
from daukit.checkpoint import build_model
from daukit.datasets import load_folder
from daukit.evaluation import evaluate_folder
from daukit.models import record_of
from daukit.models.structure import dau_layers

LAYERS = ("conv1", "conv2", "conv3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy")


def saved(path, folder, **options):
    torch.manual_seed(0)
    config = {"channels": [4, 6, 8], "units": 2, "num_classes": 4, "input_size": [16, 16], **options}
    network = daukit.create_model("shallow_dau", **config)
    for layer in dau_layers(network).values():
        layer.mu.data.normal_(0, 1.5)
    record_of(network).preprocessing = load_folder(folder, "train").preprocessing()
    daukit.save(network, path)
    return path


@pytest.fixture
def model(tmp_path, folder):
    return saved(tmp_path / "model.safetensors", folder)


def data(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_file_is_the_one_that_python_makes_and_the_report_tells_of_it(tmp_path, model, daukit_command):
    output = tmp_path / "out.safetensors"
    result = data(daukit_command("snap", model, "-o", output, "--json"))
    expected, report = daukit.snap(model)
    found = daukit.read(output)
    assert all(torch.equal(tensor, expected.tensors[name]) for name, tensor in found.tensors.items())
    assert [layer["whole_pixels"] for layer in found.header.layers] == [True, True, True]
    assert [layer["name"] for layer in result["layers"]] == list(LAYERS) and result["kept"] == []
    assert [layer["error"] for layer in result["layers"]] == [layer.error for layer in report.layers]
    assert result["bytes_before"] == model.stat().st_size > result["bytes_after"] == output.stat().st_size
    assert result["output"] == str(output) and result["images"] is result["split"] is None
    entry = found.header.history[-1]
    assert entry["operation"] == "snap"
    assert entry["arguments"] == {"to": "best", "layers": list(LAYERS), "refit": True, "images": 0}


def test_a_dry_run_reports_the_same_and_writes_nothing(tmp_path, model, folder, daukit_command):
    words = ("--data", folder, "--images", "20", "--json")
    dry = data(daukit_command("snap", model, "--dry-run", *words))
    assert list(tmp_path.iterdir()) == [model]
    real = data(daukit_command("snap", model, "-o", tmp_path / "out", *words))
    assert dry | {"output": real["output"]} == real


def test_accuracies_are_those_of_the_networks_before_rounded_and_after(tmp_path, model, folder, daukit_command):
    output = tmp_path / "out.safetensors"
    result = data(daukit_command("snap", model, "-o", output, "--data", folder, "--json"))
    rounded = daukit.load(model)
    for layer in dau_layers(rounded).values():
        layer.mu.data.clamp_(-4, 4).round_()
    for when, network in (("before", daukit.load(model)), ("rounded", rounded), ("after", daukit.load(output))):
        assert result[f"accuracy_{when}"] == evaluate_folder(network, folder).accuracy
    assert (result["images"], result["split"]) == (96, "train")
    assert all(layer["output_error"] < layer["output_error_before"] for layer in result["layers"])
    shown = daukit_command("snap", model, "--dry-run", "--data", folder).stdout
    assert f"accuracy {result['accuracy_before']:.2%} -> {result['accuracy_after']:.2%}" in shown
    assert f"only rounded: {result['accuracy_rounded']:.2%}" in shown and "96 train images" in shown


def test_images_are_matched_only_where_that_is_asked_for(tmp_path, model, folder, daukit_command):
    filters = data(daukit_command("snap", model, "--dry-run", "--data", folder, "--match", "filters", "--json"))
    assert {layer["matched"] for layer in filters["layers"]} == {"filters"} and filters["images"] is None
    assert filters["accuracy_after"] == evaluate_folder(build_model(daukit.snap(model)[0]), folder).accuracy


def test_a_folder_without_training_images_gives_test_images(tmp_path, model, folder, daukit_command):
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / "own").mkdir(exist_ok=True)
        shutil.copy(folder / name, tmp_path / "own" / name)
    words = ("--dry-run", "--data", tmp_path / "own", "--images", "12", "--json")
    found = [data(daukit_command("snap", model, *words, "--seed", seed)) for seed in "001"]
    assert (found[0]["images"], found[0]["split"]) == (12, "test")
    assert found[0] == found[1] and found[0]["layers"] != found[2]["layers"]
    assert "a little too good" in daukit_command("snap", model, *words[:-1]).stderr


def test_images_without_labels_are_matched_and_no_accuracy_is_measured(tmp_path, model, folder, daukit_command):
    (tmp_path / "own").mkdir()
    shutil.copy(folder / "t10k-images-idx3-ubyte", tmp_path / "own")
    words = ("snap", model, "--dry-run", "--data", tmp_path / "own", "--images", "12")
    found = data(daukit_command(*words, "--json"))
    both = data(daukit_command("snap", model, "--dry-run", "--data", folder, "--images", "12", "--json"))
    assert both.keys() - found.keys() == {"accuracy_before", "accuracy_rounded", "accuracy_after"}
    assert (found["images"], found["split"]) == (12, "test")
    assert "no labels of test images" in daukit_command(*words).stderr
    done = daukit_command(*words[:-2], "--match", "filters")
    assert done.returncode == 1 and "t10k-labels" in done.stderr


def test_one_layer_is_snapped_and_the_others_are_said_to_stay(tmp_path, model, daukit_command):
    output = tmp_path / "out.safetensors"
    result = data(daukit_command("snap", model, "--layer", "conv2", "--to", "nearest", "-o", output, "--json"))
    assert [layer["name"] for layer in result["layers"]] == ["conv2"] and result["to"] == "nearest"
    assert result["kept"] == [{"name": name, "reason": "not chosen"} for name in ("conv1", "conv3")]
    with safe_open(model, "pt") as before, safe_open(output, "pt") as after:
        assert torch.equal(before.get_tensor("conv3.mu"), after.get_tensor("conv3.mu"))
        assert after.get_tensor("conv2.mu").dtype == torch.int8
    assert "conv1: left as it is (not chosen)" in daukit_command("snap", model, "--layer", "conv2", "--dry-run").stdout


def test_snapping_a_file_again_says_that_nothing_is_to_be_done_and_copies_it(tmp_path, model, daukit_command):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert daukit_command("snap", model, "-o", first).returncode == 0
    done = daukit_command("snap", first, "-o", second)
    assert done.returncode == 0 and "nothing is to be done" in done.stderr and first.read_bytes() == second.read_bytes()
    assert "conv1: left as it is (its units are at whole pixels already)" in done.stdout


def test_the_general_form_is_left_alone(tmp_path, folder, daukit_command):
    path = saved(tmp_path / "general.safetensors", folder, learn_sigma="unit")
    result = data(daukit_command("snap", path, "--dry-run", "--json"))
    assert result["layers"] == [] and {"general form" in kept["reason"] for kept in result["kept"]} == {True}


def test_a_pruned_file_is_snapped_and_trains_on(tmp_path, model, folder, daukit_command):
    pruned, snapped, tuned = (tmp_path / name for name in ("p.safetensors", "s.safetensors", "t.safetensors"))
    assert daukit_command("prune", model, "--threshold", "0.3", "-o", pruned).returncode == 0
    assert daukit_command("snap", pruned, "--data", folder, "-o", snapped).returncode == 0
    words = ("--data", folder, "--initial-checkpoint", snapped, "--epochs", "1", "--batch-size", "16", "-o", tuned)
    assert daukit_command("train", *words).returncode == 0
    history = [entry["operation"] for entry in daukit.read(tuned).header.history]
    assert history == ["prune", "snap", "train"] and daukit.load(tuned).conv1.whole_pixels


def test_times_stand_in_the_report(model, daukit_command):
    result = data(daukit_command("snap", model, "--dry-run", "--time", "--json"))
    assert result["time"]["input"] == [8, 1, 16, 16] and result["time"]["after"]["median"] > 0
    assert "forward pass of 8 x 1 x 16 x 16: " in daukit_command("snap", model, "--dry-run", "--time").stdout


def test_quiet_prints_the_file_or_the_number_of_units(tmp_path, model, daukit_command):
    output = tmp_path / "out.safetensors"
    assert daukit_command("snap", model, "-o", output, "-q").stdout == f"{output}\n"
    done = daukit_command("snap", model, "--dry-run", "--quiet")
    assert (done.stdout, done.stderr) == (f"{2 * (4 + 24 + 48)}\n", "")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "name the file to write"),
        (("-o", "OUT", "--to", "far"), 2, "'far' is not one of"),
        (("--dry-run", "--match", "outputs"), 2, "matched without --data"),
        (("--dry-run", "--match", "filters"), 2, "matched without --data"),
        (("--dry-run", "--images", "3"), 2, "no weights are refitted on images"),
        (("--dry-run", "--seed", "3"), 2, "no weights are refitted on images"),
        (("--dry-run", "--data", "DATA", "--match", "filters", "--seed", "3"), 2, "no weights are refitted on images"),
        (("--dry-run", "--data", "DATA", "--images", "0"), 2, "--images"),
        (("--dry-run", "--size", "8"), 2, "only --time needs it"),
        (("--dry-run", "--device", "cpu"), 2, "no network is run"),
        (("--dry-run", "--layer", "convv2"), 1, "did you mean 'conv2'?"),
        (("--dry-run", "--data", "nowhere"), 1, "no such folder"),
        (("-o", "MODEL", "--overwrite"), 1, "is read here"),
        (("-o", "THERE"), 1, "--overwrite"),
    ],
)
def test_wrong_calls_get_one_line(tmp_path, model, folder, daukit_command, words, code, message):
    there = tmp_path / "there.safetensors"
    there.write_bytes(b"precious")
    places = {"OUT": tmp_path / "out", "MODEL": model, "THERE": there, "DATA": folder}
    done = daukit_command("snap", model, *(places.get(word, word) for word in words))
    said = " ".join(done.stderr.split())
    assert done.returncode == code and message in said and done.stdout == "", done.stderr
    assert there.read_bytes() == b"precious" and not (tmp_path / "out").exists()


def test_an_output_that_exists_is_replaced_where_that_is_asked_for(tmp_path, model, daukit_command):
    there = tmp_path / "there.safetensors"
    there.write_bytes(b"old")
    assert daukit_command("snap", model, "-o", there, "--overwrite").returncode == 0
    assert daukit.load(there).conv1.whole_pixels


def test_broken_files_and_damaged_layers_get_one_line(tmp_path, model, daukit_command):
    for name, content in (("cut", model.read_bytes()[:-100]), ("text", b"no model"), ("empty", b"")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        done = daukit_command("snap", path, "--dry-run")
        assert done.returncode == 1 and str(path) in done.stderr and done.stderr.count("\n") == 1
    with safe_open(model, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    tensors["conv2.mu"][0, 0, 0, 0] = torch.nan
    save_file(tensors, tmp_path / "nan.safetensors", metadata)
    done = daukit_command("snap", tmp_path / "nan.safetensors", "--dry-run")
    assert done.returncode == 1 and "'conv2': 1 of" in done.stderr and "NaN" in done.stderr


def test_images_that_do_not_fit_are_refused_before_anything_is_refitted(tmp_path, folder, daukit_command):
    path = saved(tmp_path / "other.safetensors", folder, num_classes=2)
    done = daukit_command("snap", path, "-o", tmp_path / "out", "--data", folder)
    assert done.returncode == 1 and "classes" in done.stderr and not (tmp_path / "out").exists()
    (tmp_path / "own").mkdir()
    shutil.copy(folder / "t10k-images-idx3-ubyte", tmp_path / "own")  # without labels no accuracy is measured before
    coloured = daukit.read(saved(tmp_path / "coloured.safetensors", folder, in_channels=3))
    mean, std = 2 * [(0.5, 0.5, 0.5)]
    preprocessing = replace(coloured.header.preprocessing, mean=mean, std=std, channel_order="rgb")
    for name, given, message in (
        ("rgb", preprocessing, "takes 3 channels"),
        ("none", None, "carries no preprocessing"),
    ):
        path = tmp_path / f"{name}.safetensors"
        daukit.write(replace(coloured, header=replace(coloured.header, preprocessing=given)), path)
        done = daukit_command("snap", path, "--dry-run", "--data", tmp_path / "own")
        assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1
