"""``daukit plot-offsets`` with two files, groups, sigmas and columns, as a user meets it."""

import csv
import json
import re

import pytest
import torch

import daukit
from daukit.offsets import displacement_changes, displacement_distributions, sigma_distributions

COMMAND = "plot-offsets"


def network(moved=0.0, sigma=0.5):
    torch.manual_seed(0)
    model = daukit.create_model("shallow_dau", channels=[3, 2, 4], units=4)
    for layer in (model.conv1, model.conv2, model.conv3):
        layer.mu.data.add_(moved * torch.randn_like(layer.mu)).clamp_(-4, 4)
        layer.sigma = sigma
    return model


@pytest.fixture
def files(tmp_path):
    """The trained file, and the one before training."""
    for name, model in (("after", network(1.0, 0.6)), ("before", network())):
        daukit.save(model, tmp_path / f"{name}.safetensors")
    return tmp_path / "after.safetensors", tmp_path / "before.safetensors"


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_json_of_changes_is_what_the_library_measures(run, files):
    code, out, err = run(files[0], "--before", files[1], "--json", "--near", 0.5)
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert (result["kind"], result["before"], result["near"]) == ("change", str(files[1]), 0.5)
    expected = displacement_changes(*map(daukit.read, files), near=0.5)
    for entry, layer in zip(result["layers"], expected, strict=True):
        assert (entry["name"], entry["layers"], entry["units"]) == (layer.name, [layer.name], layer.units)
        assert entry["mean_distance"] == layer.mean_distance > 0
        assert entry["quantiles"] == {str(q): value for q, value in layer.quantiles.items()}
        assert entry["mean_change"] == dict(zip("yx", layer.mean_change, strict=True))
        assert entry["unmoved"] == {"units": layer.unmoved.units, "weight": layer.unmoved.weight}
        assert (entry["limit"], entry["bin_width"]) == ({"y": 4.0, "x": 4.0}, layer.bin_width)
        assert [(f["share"], f["units"], f["mean_distance"]) for f in entry["filters"]] == [
            (d.weight_filter.share, d.units, d.mean_distance) for d in layer.distributions
        ]


def test_json_of_sigmas_is_what_the_library_measures(run, files):
    code, out, _ = run(files[0], "--before", files[1], "--kind", "sigma", "--json")
    assert code == 0
    expected = sigma_distributions(daukit.read(files[0]), before=daukit.read(files[1]))
    for entry, layer in zip(json.loads(out)["layers"], expected, strict=True):
        assert (entry["units"], entry["per_unit"]) == (layer.units, False)
        for key, values in (("sigma", layer.now), ("before", layer.before), ("change", layer.change)):
            assert (entry[key]["mean"], entry[key]["low"], entry[key]["high"]) == (values.mean, values.low, values.high)
            assert list(entry[key]["quantiles"]) == ["0.25", "0.5", "0.75", "0.9"]
            assert [f["mean"] for f in entry[key]["filters"]] == [curve.mean for curve in values.distributions]
    alone = json.loads(run(files[0], "--kind", "sigma", "--json")[1])["layers"][0]
    assert (alone["before"], alone["change"]) == (None, None)


def test_spikes_are_in_the_json_and_in_the_table(run, tmp_path):
    file = tmp_path / "untrained.safetensors"
    daukit.save(daukit.create_model("shallow_dau", channels=[8, 8, 8], units=4), file)
    entry = json.loads(run(file, "--json", "--layer", "conv2", "--keep-top", 1)[1])["layers"][0]
    (spike,) = entry["filters"][0]["spikes"]
    assert spike["start"] <= 3.0625**0.5 * 2**0.5 < spike["end"]  # the grid's corner (1.75, 1.75)
    assert spike | {"distance": 0, "start": 0, "end": 0} == {
        "distance": 0, "start": 0, "end": 0, "weight": 1.0, "at_points": 1.0, "at_limit": 0.0,
        "reason": "initialisation",
    }  # fmt: skip
    out = run(file, "--dry-run", "--layer", "conv2")[1]
    assert "spikes" in out and out.count("initialisation") == 3  # one a filter


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        (["--group", "network"], {"network": ["conv1", "conv2", "conv3"]}),
        (["--group", "network", "--layer", "conv3", "--layer", "conv1"], {"network": ["conv3", "conv1"]}),
        (["--stage", "conv2"], {"conv2": ["conv2"]}),
    ],
)
@pytest.mark.parametrize("kind", ["1d", "change", "sigma"])
def test_groups_hold_the_layers_asked_for_in_every_kind(run, files, options, groups, kind):
    before = [] if kind == "1d" else ["--before", files[1]]
    code, out, _ = run(files[0], *before, "--kind", kind, *options, "--json")
    assert code == 0
    assert {entry["name"]: entry["layers"] for entry in json.loads(out)["layers"]} == groups


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
@pytest.mark.parametrize("kind", ["change", "sigma"])
def test_figures_and_tables_are_the_same_bytes_every_time(run, files, tmp_path, kind, suffix):
    written = []
    for name in ("first", "second"):
        paths = [tmp_path / f"{name}.{suffix}", tmp_path / f"{name}.csv"]
        done = run(files[0], "--before", files[1], "--kind", kind, "-o", paths[0], "--csv", paths[1])
        assert done[0] == 0
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]
    assert written[0][1].startswith(b"layer,")
    assert not re.search(rb"CreationDate|<dc:date>|20\d\d-\d\d-\d\d", written[0][0])


def test_tables_of_changes_and_sigmas_have_their_kinds(run, files, tmp_path):
    for kind, kinds in (("change", {"1d", "2d", "flow"}), ("sigma", {"sigma", "before", "change"})):
        table = tmp_path / f"{kind}.csv"
        assert run(files[0], "--before", files[1], "--kind", kind, "--csv", table)[0] == 0
        with table.open(newline="") as file:
            assert {row["kind"] for row in csv.DictReader(file)} == kinds


@pytest.mark.parametrize("kind", ["1d", "2d", "sigma"])
def test_a_column_wide_figure_is_a_column_wide(run, files, tmp_path, kind):
    figure = tmp_path / "figure.pdf"
    assert run(files[0], "--kind", kind, "--width", "column", "-o", figure)[0] == 0
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", figure.read_bytes())
    assert 0.7 * 3.5 < float(box[0]) / 72 <= 3.55


@pytest.mark.parametrize("kind", ["change", "sigma"])
def test_dry_run_prints_and_writes_nothing(run, files, tmp_path, kind):
    before = names(tmp_path)
    code, out, err = run(files[0], "--before", files[1], "--kind", kind, "-o", tmp_path / "f.png", "--dry-run")
    assert (code, names(tmp_path)) == (0, before)
    assert all(name in out for name in ("conv1", "conv2", "conv3"))
    assert "nothing was written" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "change"], "--before OTHER"),
        (["--kind", "2d", "--before", "other"], "give --kind change or sigma"),
        (["--width", "column"], "1d, 2d and sigma do"),
        (["--before", "other", "--width", "column"], "--kind change does not fit into a column"),
        (["--width", "3.5"], "--width"),
        (["--group", "block"], "--group"),
        (["--group", "network", "--stage", "conv1"], "give one"),
    ],
)
def test_wrong_usage_is_exit_code_two(run, files, arguments, message):
    code, out, err = run(files[0], "--json", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())


def test_a_second_file_that_does_not_fit_is_one_clear_error(run, files, tmp_path):
    pruned, broken = tmp_path / "pruned.safetensors", tmp_path / "broken.safetensors"
    daukit.write(daukit.prune(daukit.read(files[1]), 0.5)[0], pruned)
    broken.write_bytes(files[1].read_bytes()[:-100])
    for other, message in (
        (pruned, "only the same units"),
        (broken, "not a complete safetensors file"),
        (tmp_path / "none.safetensors", "no such file"),
    ):
        code, out, err = run(files[0], "--before", other, "-o", tmp_path / "figure.png")
        assert (code, out) == (1, "")
        assert message in err and other.name in err
        assert len(err.splitlines()) == 1
    assert run(files[0], "--stage", "block", "--json")[0] == 1
    assert "figure.png" not in names(tmp_path)


def test_two_plain_state_dicts_of_one_network_are_compared(run, files, tmp_path):
    paths = []
    for name, model in (("now.pt", network(1.0)), ("then.pt", network())):
        paths.append(tmp_path / name)
        torch.save(model.state_dict(), paths[-1])
    named = ("--model", "shallow_dau", "--model-arg", "channels=[3,2,4]", "--model-arg", "units=4")
    code, out, _ = run(paths[0], "--before", paths[1], "--json", *named)
    assert code == 0
    assert json.loads(out)["layers"] == json.loads(run(*files[:1], "--before", files[1], "--json")[1])["layers"]


def test_distances_of_a_group_are_the_librarys(run, files):
    (entry,) = json.loads(run(files[0], "--group", "network", "--json")[1])["layers"]
    (group,) = displacement_distributions(daukit.read(files[0]), group="network")
    assert (entry["mean_distance"], entry["units"]) == (group.mean_distance, 3 * 4 * 1 + 3 * 2 * 4 + 2 * 4 * 4)
