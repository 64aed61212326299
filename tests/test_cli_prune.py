"""``daukit prune`` from outside: budgets, sweeps with files and figures, dry runs, measurements, wrong calls."""

import csv
import json
import struct

import numpy as np
import pytest
import torch
from idx import toy_folder
from safetensors import safe_open
from torch.nn.utils import prune as torch_prune

import daukit
from daukit.datasets import load_folder
from daukit.evaluation import evaluate_folder
from daukit.models import record_of
from daukit.models.structure import dau_layers

COMMAND = "prune"
LAYERS = ("conv1", "conv2", "conv3")
ROUNDS = ("--remove", "0.5", "--iterate", "2", "--epochs-between", "1", "--data", "DATA")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture
def model(tmp_path, folder):
    """A network whose first layer is nearly all zeros, so that a channel of it is free."""
    torch.manual_seed(0)
    network = daukit.create_model("shallow_dau", channels=[4, 6, 8], units=2, num_classes=4, input_size=[16, 16])
    with torch.no_grad():
        for layer in dau_layers(network).values():
            layer.mu.normal_(0, 1.5)
        network.conv1.weight[2] *= 1e-6
        network.bn1.bias[2] = -1.0
    record_of(network).preprocessing = load_folder(folder, "train").preprocessing()
    path = tmp_path / "model.safetensors"
    daukit.save(network, path)
    return path


def ok(done):
    assert done[0] == 0, done[2]
    return json.loads(done[1])


def counts(path):
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(f"{name}.weight").size for name in LAYERS}


@pytest.mark.parametrize(
    "options",
    [
        ("--threshold", "0.3"),
        ("--threshold", "0.3", "--relative-to", "network"),
        ("--threshold", "conv2=0.5"),
        ("--threshold", "0.1", "--threshold", "conv1=0", "--threshold", "conv3=0.6"),
        ("--keep-units", "77"),
        ("--remove", "0.13", "--random", "--seed", "5"),
        ("--merge-within", "1.5"),
        ("--merge-within", "1.5", "--keep-units", "50", "--relative-to", "channel"),
        ("--threshold", "0.01", "--drop-channels"),
        ("--threshold", "0.3", "--data", "DATA"),
        ("--threshold", "0.3", "--time"),
        ("--macs", "0.8", "--relative-to", "network"),
        ("--keep-units", "77", "--score", "taylor", "--data", "DATA"),
        ("--remove", "0.13", "--score", "random", "--seed", "5"),
        ("--threshold", "0.3", "--recalibrate", "DATA", "--split", "test", "--drop-channels"),
    ],
    ids=" ".join,
)
def test_a_dry_run_says_what_the_real_run_says_but_for_times_and_paths(run, tmp_path, folder, model, options):
    options = [folder if option == "DATA" else option for option in options]
    before = sorted(tmp_path.iterdir())
    dry = ok(run(model, *options, "--dry-run", "--json"))
    assert sorted(tmp_path.iterdir()) == before
    output = tmp_path / "p.safetensors"
    real = ok(run(model, *options, "-o", output, "--json"))
    assert (dry.pop("output"), real.pop("output")) == (None, str(output))
    times = [report.pop("time", {}).get("input") for report in (dry, real)]
    assert times == ([[8, 1, 16, 16]] * 2 if "--time" in options else [None] * 2)
    assert dry == real
    assert real["bytes_after"] == output.stat().st_size and real["bytes_before"] == model.stat().st_size
    assert {layer["name"]: layer["units_after"] for layer in real["layers"]} == counts(output)
    assert real["units_after"] == sum(counts(output).values())
    text = run(model, *options, "--dry-run")[1]
    assert "% removed" in text and f"{real['bytes_before']:,} -> {real['bytes_after']:,} bytes" in text


@pytest.mark.parametrize(("budget", "expected"), [(("--keep-units", "77"), 77), (("--remove", "0.13"), 152 - 20)])
def test_a_budget_is_met_to_the_unit(run, tmp_path, model, budget, expected):
    assert sum(counts(model).values()) == 4 * 2 + 24 * 2 + 48 * 2
    result = ok(run(model, *budget, "-o", tmp_path / "p.safetensors", "--json"))
    assert result["units_after"] == expected and result["ties"] == 0
    assert sum(counts(tmp_path / "p.safetensors").values()) == expected
    text = run(model, *budget, "--dry-run")[1]
    assert "the smallest unit that stays has" in text and "of exactly that size went" not in text


def test_units_that_tie_with_the_smallest_one_kept_are_counted(run, tmp_path):
    network = daukit.create_model("shallow_dau", channels=[2, 2, 2], units=2, num_classes=3, input_size=[16, 16])
    with torch.no_grad():
        for layer in dau_layers(network).values():
            layer.weight.fill_(1.0)
    daukit.save(network, tmp_path / "even.safetensors")
    assert (
        "; 3 units of exactly that size went, the first ones"
        in run(tmp_path / "even.safetensors", "--keep-units", "17", "--dry-run")[1]
    )


def test_a_threshold_per_layer_is_shown_beside_it(run, model):
    result = ok(run(model, "--threshold", "0.1", "--threshold", "conv3=0.6", "--dry-run", "--json"))
    assert [layer["threshold"] for layer in result["layers"]] == [0.1, 0.1, 0.6]
    assert result["threshold"] == 0.1 and result["layer_thresholds"] == {"conv3": 0.6}
    rows = run(model, "--threshold", "0.1", "--threshold", "conv3=0.6", "--dry-run")[1].splitlines()
    assert next(row for row in rows if "conv3" in row).rstrip(" │").endswith("0.6")


def test_a_sweep_writes_its_counts_as_json_csv_and_figure(run, tmp_path, model):
    table, figure = tmp_path / "s.csv", tmp_path / "s.pdf"
    result = ok(run(model, "--thresholds", "0,0.2,0.6", "--csv", table, "--figure", figure, "--json"))
    with safe_open(model, framework="np") as file:
        weights = {name: np.abs(file.get_tensor(f"{name}.weight").astype(float)) for name in LAYERS}
    expected = {(t, name): int((~(w < t * w.max())).sum()) for t in (0, 0.2, 0.6) for name, w in weights.items()}
    lines = list(csv.DictReader(table.read_text().splitlines()))
    read = {(float(r["threshold"]), r["layer"]): int(r["units_after"]) for r in lines if r["layer"] != "total"}
    assert read == expected
    assert {layer["name"]: layer["units"] for layer in result["layers"]} == {
        name: [expected[t, name] for t in (0, 0.2, 0.6)] for name in LAYERS
    }
    totals = [int(r["units_after"]) for r in lines if r["layer"] == "total"]
    assert totals == [entry["units"] for entry in result["sweep"]]
    assert totals == [sum(expected[t, name] for name in LAYERS) for t in (0, 0.2, 0.6)]
    assert figure.read_bytes().startswith(b"%PDF") and result["figure"] == str(figure)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_figure_of_accuracies_is_the_same_bytes_for_the_same_network(run, tmp_path, folder, model, suffix):
    figures = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for figure in figures:
        done = run(model, "--thresholds", "0,0.5", "--random", "--data", folder, "--figure", figure)
        assert done[0] == 0, done[2]
    first, second = (figure.read_bytes() for figure in figures)
    assert first == second
    if suffix == ".png":
        width, height = struct.unpack(">II", first[16:24])
        assert min(width, height) > 400


def test_the_random_control_of_a_sweep_is_pruning_at_random(run, tmp_path, folder, model):
    table = tmp_path / "s.csv"
    swept = ok(
        run(model, "--thresholds", "0.3,0.6", "--random", "--seed", "7", "--data", folder, "--csv", table, "--json")
    )
    for entry, threshold in zip(swept["sweep"], ("0.3", "0.6"), strict=True):
        for options, key in (((), "accuracy"), (("--random", "--seed", "7"), "random")):
            output = tmp_path / f"{threshold}{key}.safetensors"
            real = ok(run(model, "--threshold", threshold, *options, "-o", output, "--json"))
            assert real["units_after"] == entry["units"]
            assert evaluate_folder(daukit.load(output), folder).accuracy == entry[key]
    totals = [row for row in csv.DictReader(table.read_text().splitlines()) if row["layer"] == "total"]
    assert [(float(r["accuracy"]), float(r["random"])) for r in totals] == [
        (e["accuracy"], e["random"]) for e in swept["sweep"]
    ]


@pytest.mark.parametrize("score", ["taylor", "random"])
def test_a_sweep_by_another_score_is_pruning_by_it_with_the_control_beside_it(run, tmp_path, folder, model, score):
    table, figure = tmp_path / "s.csv", tmp_path / "s.svg"
    by = ("--score", score, "--data", folder, "--recalibrate", folder)
    control = ("--random",) if score == "taylor" else ("--seed", "3")
    options = ("--thresholds", "0.2,0.6", *by, *control, "--csv", table, "--figure", figure, "--json")
    swept = ok(run(model, *options))
    assert (swept["score"], swept["recalibrated"]) == (score, 96)
    for entry, threshold in zip(swept["sweep"], ("0.2", "0.6"), strict=True):
        seed = ("--seed", "3") if score == "random" else ()
        real = ok(run(model, "--threshold", threshold, *by, *seed, "--dry-run", "--json"))
        assert (real["units_after"], real["accuracy_after"]) == (entry["units"], entry["accuracy"])
        assert ("random" in entry) == (score == "taylor")
    assert [row["layer"] for row in csv.DictReader(table.read_text().splitlines())] == [*LAYERS, "total"] * 2
    plain = ok(run(model, "--thresholds", "0.2,0.6", "--json"))
    assert [entry["units"] for entry in plain["sweep"]] != [entry["units"] for entry in swept["sweep"]]
    words = {"taylor": "|w dL/dw|", "random": "random number"}[score]
    assert f"largest {words} of the layer" in run(model, *options[:-1], "--overwrite")[1]
    assert (words in figure.read_text()) == (score == "taylor")  # a single curve has no legend


def test_sensitivity_by_another_score_is_pruning_one_layer_by_it(run, folder, model):
    by = ("--score", "taylor", "--data", folder)
    for entry in ok(run(model, "--thresholds", "0.5", "--sensitivity", *by, "--json"))["sensitivity"]:
        real = ok(run(model, "--threshold", f"{entry['layer']}=0.5", *by, "--dry-run", "--json"))
        assert (real["accuracy_after"], real["units_after"]) == (
            entry["accuracy"], 152 - entry["units_before"] + entry["units_after"],
        )  # fmt: skip


def test_time_is_told_as_it_was_predicted_and_as_it_came_out(run, model):
    result = ok(run(model, "--time-budget", "1", "--dry-run", "--json"))
    assert result["plan"]["predicted"] == result["plan"]["now"] and result["time"]["input"] == [8, 1, 16, 16]
    text = run(model, "--time-budget", "1", "--dry-run")[1]
    assert "predicted time of 8 x 1 x 16 x 16: " in text and "forward pass of 8 x 1 x 16 x 16: " in text


def test_rounds_are_told_one_by_one(run, tmp_path, folder, model):
    options = tuple(folder if word == "DATA" else word for word in ROUNDS)
    small = ("--train-arg", "batch_size=48", "--train-arg", "lr=0.02", "-o", tmp_path / "r.safetensors")
    dry = ok(run(model, *options, *small, "--dry-run", "--json"))
    assert [entry["keep"] for entry in dry["rounds"]] == [107, 76] and dry["output"] is None
    result = ok(run(model, *options, *small, "--json"))
    assert [entry["units"] for entry in result["rounds"]] == [107, 76]
    assert sum(counts(tmp_path / "r.safetensors").values()) == 76 == sum(counts(result["rounds"][1]["file"]).values())
    train = daukit.read(tmp_path / "r.safetensors").header.history[-1]["arguments"]
    assert (train["batch_size"], train["lr"], train["epochs"], train["seed"]) == (48, 0.02, 1, 1)
    out = run(model, *options, *small, "--resume", "--overwrite")[1]
    assert "2 rounds of pruning and 1 epoch of training; keep: units, by |w|" in out and "152 -> 76 units" in out


def test_sensitivity_is_what_masking_one_layers_weights_does(run, tmp_path, folder, model):
    table = tmp_path / "s.csv"
    figure = tmp_path / "s.svg"
    options = (
        "--thresholds",
        "0.2,0.7",
        "--sensitivity",
        "--data",
        folder,
        "--csv",
        table,
        "--figure",
        figure,
        "--json",
    )
    result = ok(run(model, *options))
    whole = evaluate_folder(daukit.load(model), folder)
    assert (result["accuracy"], result["loss"]) == (whole.accuracy, whole.loss)
    assert [(e["layer"], e["threshold"]) for e in result["sensitivity"]] == [(n, t) for n in LAYERS for t in (0.2, 0.7)]
    for entry in result["sensitivity"]:
        network = daukit.load(model)
        layer = network.get_submodule(entry["layer"])
        size = layer.weight.detach().abs()
        mask = ~(size.double() < entry["threshold"] * size.max().double())
        torch_prune.custom_from_mask(layer, "weight", mask)
        masked = evaluate_folder(network, folder)
        assert entry["units_after"] == int(mask.sum()) and entry["accuracy"] == masked.accuracy
        assert abs(entry["loss_change"] - (masked.loss - whole.loss)) <= 1e-6
        assert entry["accuracy_change"] == masked.accuracy - whole.accuracy
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [float(r["loss"]) for r in rows] == [e["loss"] for e in result["sensitivity"]]
    assert all(f">{name}<" in figure.read_text() or name in figure.read_text() for name in LAYERS)


def test_merged_units_and_dropped_channels_are_told(run, tmp_path, model):
    output = tmp_path / "p.safetensors"
    options = ("--merge-within", "1.5", "--threshold", "0.01", "--drop-channels", "-o", output)
    result = ok(run(model, *options, "--json"))
    assert sum(layer["units_before"] - layer["units_after"] for layer in result["merge"]["layers"]) > 0
    (channels,) = result["channels"]
    assert (channels["name"], channels["dropped"]) == ("conv1", [2])
    assert daukit.load(output).conv1.out_channels == 3
    operations = [entry["operation"] for entry in daukit.read(output).header.history]
    assert operations == ["merge", "prune", "drop-channels"]
    text = run(model, *options, "--overwrite")[1]
    assert "merged" in text and "of their norm" in text and "conv1: dropped 1 channels" in text


def test_times_are_of_the_files_own_input_and_are_printed_whatever_they_are(run, tmp_path, model):
    result = ok(run(model, "--threshold", "0.3", "--time", "--dry-run", "--json"))
    assert result["time"]["input"] == [8, 1, 16, 16]
    for when in ("before", "after"):
        quartiles = result["time"][when]
        assert 0 < quartiles["lower"] <= quartiles["median"] <= quartiles["upper"]
    assert "forward pass of 8 x 1 x 16 x 16: " in run(model, "--threshold", "0", "--time", "--dry-run")[1]


def test_a_plain_state_dict_is_pruned_too(run, tmp_path):
    network = daukit.create_model("shallow_dau", channels=[3, 4, 5])
    torch.save(network.state_dict(), tmp_path / "m.pt")
    named = ("--model", "shallow_dau", "--model-arg", "channels=[3,4,5]")
    output = tmp_path / "p.safetensors"
    result = ok(run(tmp_path / "m.pt", *named, "--keep-units", "40", "-o", output, "--json"))
    assert result["units_after"] == sum(counts(output).values()) == 40
    assert (
        ok(run(tmp_path / "m.pt", *named, "--keep-units", "40", "--dry-run", "--json"))["bytes_after"]
        == output.stat().st_size
    )


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--threshold", "x", "-o", "OUT"), 2, "not a list of numbers"),
        (("--threshold", "conv2=", "-o", "OUT"), 2, "not a list of numbers"),
        (("--threshold", "conv2=1.5", "-o", "OUT"), 2, "not within"),
        (("--threshold", "0.1,0.2", "-o", "OUT"), 2, "for a sweep, give --thresholds"),
        (("--threshold", "0.1", "--threshold", "0.2", "-o", "OUT"), 2, "of all layers is given twice"),
        (("--threshold", "conv1=0.1", "--threshold", "conv1=0.2", "-o", "OUT"), 2, "of conv1 is given twice"),
        (("--threshold", "conv22=0.1", "-o", "OUT"), 1, "did you mean 'conv2'"),
        (("--threshold", "0.1", "--keep-units", "3", "-o", "OUT"), 2, "give either"),
        (("--keep-units", "3", "--remove", "0.1", "-o", "OUT"), 2, "give either"),
        (("--keep-units", "-1", "-o", "OUT"), 2, "--keep-units"),
        (("--keep-units", "153", "-o", "OUT"), 1, "the network has only 152"),
        (("--remove", "1.1", "-o", "OUT"), 2, "--remove"),
        (("--random", "--merge-within", "1", "-o", "OUT"), 2, "say how many units"),
        (("--thresholds", "0.1", "--random"), 2, "--data"),
        (("--thresholds", "0.1", "--sensitivity"), 2, "--data"),
        (("--thresholds", "0.1", "--sensitivity", "--random", "--data", "DATA"), 2, "units of small weight"),
        (("--thresholds", "0.1", "-o", "OUT"), 2, "a sweep writes no file"),
        (("--thresholds", "0.1", "--drop-channels"), 2, "a sweep only removes units"),
        (("--thresholds", "0.1", "--figure", "OUT"), 1, "a figure is .png"),
        (("--thresholds", "0.1", "--csv", "MODEL"), 1, "is read here"),
        (("--threshold", "0.1", "--csv", "OUT", "--dry-run"), 2, "belongs to a sweep"),
        (("--threshold", "0.1", "--sensitivity", "--dry-run"), 2, "belongs to a sweep"),
        (("--merge-within", "-1", "-o", "OUT"), 2, "--merge-within"),
        (("--merge-within", "inf", "-o", "OUT"), 2, "out of all bounds"),
        (("--thresholds", "0.1", "--csv", "OUT", "--figure", "OUT"), 1, "two outputs"),
        (("--threshold", "0.1", "--time", "--size", "0", "--dry-run"), 2, "not a size"),
        (("--threshold", "0.1", "--time", "--size", "9", "--dry-run"), 1, "its forward failed on"),
        (("--threshold", "nan", "-o", "OUT"), 2, "not within"),
        (("--macs", "0.5", "--keep-units", "3", "-o", "OUT"), 2, "give either"),
        (("--macs", "1.1", "-o", "OUT"), 2, "--macs"),
        (("--macs", "0.01", "-o", "OUT"), 1, "cannot be reached: without any unit"),
        (("--time-budget", "0", "-o", "OUT"), 1, "cannot be reached: without any unit"),
        (("--time-budget", "0.9", "--time", "-o", "OUT"), 2, "measures the time anyhow"),
        (("--remove", "0.1", "--score", "taylor", "-o", "OUT"), 2, "name their folder by --data"),
        (("--remove", "0.1", "--score", "size", "-o", "OUT"), 2, "--score"),
        (("--remove", "0.1", "--score", "random", "--random", "-o", "OUT"), 2, "drop one of them"),
        (("--remove", "0.1", "--split", "test", "-o", "OUT"), 2, "only --score taylor and --recalibrate need it"),
        (("--merge-within", "1", "--score", "random", "-o", "OUT"), 2, "no unit is removed by a score"),
        (("--thresholds", "0.1", "--recalibrate", "DATA"), 2, "--data"),
        (("--remove", "0.1", "--recalibrate", "nowhere", "-o", "OUT"), 1, "nowhere: there is no such folder"),
        (("--remove", "0.1", "--resume", "-o", "OUT"), 2, "belongs to --iterate"),
        (("--threshold", "0.1", "--iterate", "2", "-o", "OUT"), 2, "rounds lead to a budget"),
        (("--remove", "0.1", "--iterate", "2", "--data", "DATA", "-o", "OUT"), 2, "how long to train"),
        (("--remove", "0.1", "--iterate", "2", "--epochs-between", "1", "-o", "OUT"), 2, "images to train on"),
        ((*ROUNDS, "--recalibrate", "DATA", "-o", "OUT"), 2, "rounds only prune and train"),
        ((*ROUNDS, "--train-arg", "epochs=3", "-o", "OUT"), 2, "no option 'epochs'"),
        ((*ROUNDS, "--train-arg", "lr", "-o", "OUT"), 2, "is not KEY=VALUE"),
        ((*ROUNDS, "--resume", "-o", "OUT"), 1, "no run to go on with"),
        (("--remove", "1", *ROUNDS[2:], "-o", "OUT"), 1, "no budget of 0 units"),
    ],
)
def test_a_wrong_call_says_what_and_writes_nothing(run, tmp_path, folder, model, options, code, message):
    before = model.read_bytes()
    names = {"MODEL": model, "OUT": tmp_path / "out.safetensors", "DATA": folder}
    returned, out, err = run(model, *(names.get(option, option) for option in options))
    text = " ".join(err.replace("│", "").split())
    assert returned == code and message in text and out == "" and "Traceback" not in err, err
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"] and model.read_bytes() == before
