"""``daukit plot-offsets`` as a user meets it: a file in, a figure, numbers and errors out."""

import csv
import json

import numpy as np
import pytest
import torch

import daukit
from daukit.offsets import displacement_distributions

COMMAND = "plot-offsets"


def network():
    torch.manual_seed(0)
    model = daukit.create_model("shallow_dau", channels=[3, 2, 4], units=4)
    for layer in (model.conv1, model.conv2, model.conv3):
        layer.mu.data.add_(torch.randn_like(layer.mu)).clamp_(-4, 4)
    return model


@pytest.fixture
def source(tmp_path):
    daukit.save(network(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_json_is_what_the_library_measures(run, source):
    code, out, err = run(source, "--json")
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert (result["kind"], result["weight_filter"], result["output"], result["csv"]) == (
        "both",
        "keep-top",
        None,
        None,
    )
    expected = displacement_distributions(
        daukit.read(source)
    )  # with the library's defaults: the command's are the same
    for entry, layer in zip(result["layers"], expected, strict=True):
        assert (entry["name"], entry["units"], entry["mean_distance"]) == (layer.name, layer.units, layer.mean_distance)
        assert entry["quantiles"] == {str(q): value for q, value in layer.quantiles.items()}
        assert list(entry["quantiles"]) == ["0.25", "0.5", "0.75", "0.9"]
        assert entry["bin_width"] == layer.bin_width
        assert entry["limit"] == {"y": 4.0, "x": 4.0}
        assert entry["at_limit"]["x"] == {"units": layer.at_limit[1].units, "weight": layer.at_limit[1].weight}
        assert entry["initialization_points"] == [[-1.75, -1.75], [-1.75, 1.75], [1.75, -1.75], [1.75, 1.75]]
        assert entry["at_initialization"] == {"units": layer.at_points.units, "weight": layer.at_points.weight}
        assert [(f["share"], f["units"], f["mean_distance"]) for f in entry["filters"]] == [
            (d.weight_filter.share, d.units, d.mean_distance) for d in layer.distributions
        ]


def test_the_table_goes_to_stdout_and_talk_to_stderr(run, source, tmp_path):
    code, out, err = run(source, "-o", tmp_path / "figure.png", "--kind", "1d")
    assert code == 0
    assert all(name in out for name in ("conv1", "conv2", "conv3"))
    assert f"wrote {tmp_path / 'figure.png'}" in err
    assert "wrote" not in out


@pytest.mark.parametrize(
    ("suffix", "start"),
    [(".png", b"\x89PNG\r\n\x1a\n"), (".jpg", b"\xff\xd8\xff"), (".pdf", b"%PDF-"), (".svg", b"<?xml version")],
)
def test_a_figure_is_the_same_bytes_every_time(run, source, tmp_path, suffix, start):
    first, second = (tmp_path / f"{name}{suffix}" for name in ("first", "second"))
    for path in (first, second):
        assert run(source, "-o", path, "--layer", "conv2", "--keep-top", "1,0.5")[0] == 0
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(start)


def test_kinds_give_different_figures_and_tables_of_their_kind(run, source, tmp_path):
    figures = set()
    for kind, in_table in (("1d", {"1d"}), ("2d", {"2d"}), ("both", {"1d", "2d"})):
        figure, table = tmp_path / f"{kind}.png", tmp_path / f"{kind}.csv"
        assert run(source, "--kind", kind, "-o", figure, "--csv", table, "--layer", "conv1", "--keep-top", 1)[0] == 0
        figures.add(figure.read_bytes())
        with table.open(newline="") as file:
            assert {row["kind"] for row in csv.DictReader(file)} == in_table
    assert len(figures) == 3


def test_the_table_gives_back_the_densities_of_the_layers_asked_for(run, source, tmp_path):
    table = tmp_path / "numbers.csv"
    assert (
        run(source, "--csv", table, "--layer", "conv3", "--layer", "conv1", "--keep-rel", "0,0.5", "--bins", 9)[0] == 0
    )
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    layers = displacement_distributions(
        daukit.read(source), ["conv3", "conv1"], rule="keep-rel", shares=[0, 0.5], bins=9
    )
    expected = [[*d.density, *d.density_2d.ravel()] for layer in layers for d in layer.distributions]
    np.testing.assert_array_equal([float(row["density"]) for row in rows], np.concatenate(expected))
    assert {(row["layer"], row["weight_filter"], row["share"]) for row in rows} == {
        (name, "keep-rel", share) for name in ("conv1", "conv3") for share in ("0.0", "0.5")
    }


def test_dry_run_reports_and_writes_nothing(run, source, tmp_path):
    before = names(tmp_path)
    code, out, err = run(source, "-o", tmp_path / "figure.png", "--csv", tmp_path / "numbers.csv", "--dry-run")
    assert code == 0
    assert "conv2" in out
    assert "nothing was written" in err
    assert names(tmp_path) == before
    result = json.loads(run(source, "-o", tmp_path / "figure.png", "--dry-run", "--json")[1])
    assert result["output"] is None
    assert names(tmp_path) == before


def test_outputs_are_checked_before_the_checkpoint_is_read(run, tmp_path):
    missing, taken = tmp_path / "missing.safetensors", tmp_path / "taken.png"
    taken.write_bytes(b"precious")
    for arguments, message in (
        (["-o", taken], "exists already"),
        (["-o", tmp_path / "new.png", "--csv", taken], "exists already"),
        (["-o", tmp_path / "figure.gif"], "a figure is .png, .jpg, .pdf, .svg"),
        (["-o", taken / "figure.png"], "taken.png is not a folder"),
    ):
        code, out, err = run(missing, *arguments)
        assert (code, out) == (1, "")
        assert message in err
    assert taken.read_bytes() == b"precious"
    assert names(tmp_path) == {"taken.png"}


def test_overwrite_replaces_both_outputs(run, source, tmp_path):
    figure, table = tmp_path / "figure.svg", tmp_path / "numbers.csv"
    for path in (figure, table):
        path.write_bytes(b"old")
    assert run(source, "-o", figure, "--csv", table, "--overwrite", "--kind", "1d")[0] == 0
    assert figure.read_bytes().startswith(b"<?xml")
    assert table.read_bytes().startswith(b"layer,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "--keep-top", "1", "--keep-rel", "0"], "give one"),
        (["--json", "--keep-top", "1,0"], "0 would keep no unit"),
        (["--json", "--keep-rel", "1.5"], "not within"),
        (["--json", "--keep-top", "most"], "not a list of numbers"),
        (["--json", "--bins", "0"], "--bins"),
        (["--json", "--kind", "3d"], "--kind"),
        ([], "name the figure"),
    ],
)
def test_wrong_usage_is_exit_code_two(run, source, arguments, message):
    code, out, err = run(source, *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())


def test_a_misspelt_layer_gets_the_nearest_name(run, source):
    code, out, err = run(source, "--json", "--layer", "cnv2")
    assert (code, out) == (1, "")
    assert "did you mean 'conv2'?" in err


def test_a_network_without_dau_layers_is_an_error_in_one_line(run, tmp_path):
    daukit.save(daukit.create_model("shallow", channels=[2, 2, 4]), tmp_path / "plain.safetensors")
    code, out, err = run(tmp_path / "plain.safetensors", "-o", tmp_path / "figure.png")
    assert (code, out) == (1, "")
    assert "no DAU layer" in err
    assert len(err.splitlines()) == 1
    assert names(tmp_path) == {"plain.safetensors"}


def test_zero_weights_and_pruned_away_layers_are_null_and_still_drawn(run, tmp_path):
    model = network()
    model.conv1.weight.data.zero_()
    model.conv2.keep_units(torch.zeros(2, 3, 4, dtype=torch.bool))
    path, figure = tmp_path / "model.safetensors", tmp_path / "figure.png"
    daukit.save(model, path)
    code, out, _ = run(path, "-o", figure, "--json", "--keep-top", 1)
    zero, empty, alive = json.loads(out)["layers"]
    assert code == 0
    assert (zero["units"], zero["mean_distance"], zero["quantiles"]) == (12, None, None)
    assert (empty["units"], empty["mean_distance"], empty["quantiles"]) == (0, None, None)
    assert alive["mean_distance"] > 0
    assert figure.exists()
    assert run(path, "--dry-run")[0] == 0


def test_a_plain_state_dict_is_drawn_when_its_network_is_named(run, source, tmp_path):
    torch.save(network().state_dict(), tmp_path / "weights.pt")
    named = ("--model", "shallow_dau", "--model-arg", "channels=[3,2,4]", "--model-arg", "units=4")
    code, out, _ = run(tmp_path / "weights.pt", "--json", *named)
    assert code == 0
    assert json.loads(out)["layers"] == json.loads(run(source, "--json")[1])["layers"]


def test_the_limit_is_told_per_axis_and_its_distances_apart(daukit_command, tmp_path):
    network = daukit.create_model("shallow_dau", channels=[2, 2, 2], units=2)
    with torch.no_grad():
        for layer in (network.conv1, network.conv2, network.conv3):
            layer.mu.copy_(torch.tensor([3.0, -4.0])[:, None, None, None].expand_as(layer.mu))
    network.conv2.dilation = (2, 2)
    path = tmp_path / "corner.safetensors"
    daukit.save(network, path)
    first, second, _ = json.loads(daukit_command("info", path, "--json").stdout)["layers"]
    assert (first["max_displacement"], first["largest_on_axis"], first["largest_displacement"]) == (4, 4, 5)
    assert (second["max_displacement"], second["largest_on_axis"], second["largest_displacement"]) == (4, 8, 10)
    rows = [line.split("│")[7:11] for line in daukit_command("info", path).stdout.splitlines() if "conv" in line]
    assert [[float(cell) for cell in row] for row in rows] == [[4, 4, 5, 5], [8, 8, 10, 10], [4, 4, 5, 5]]
    layers = json.loads(daukit_command("plot-offsets", path, "--json").stdout)["layers"]
    assert [layer["limit"] for layer in layers[:2]] == [{"y": 4, "x": 4}, {"y": 8, "x": 8}]
    assert layers[0]["limit_distances"] == [4, pytest.approx(4 * 2**0.5)]
    assert layers[1]["limit_distances"] == [8, pytest.approx(8 * 2**0.5)]
