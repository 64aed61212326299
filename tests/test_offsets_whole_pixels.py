"""What commands say of layers that read at whole pixels: where units are stored, where they read, and what moved."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import daukit
from daukit.checkpoint import from_model
from daukit.models.structure import dau_layers
from daukit.nn import DAUConv2d
from daukit.offsets import displacement_distributions
from daukit.plots.offsets import plot_displacements
from daukit.pruning import merge
from daukit.rescale import remove_pools, rescale_factors
from daukit.workflows.info import describe_file

PLACES = [[0.4, 1.6, -2.2, 0.1], [0.0, -0.7, 3.4, 0.3]]
READ = [[0.0, 2.0, -2.0, 0.0], [0.0, -1.0, 3.0, 0.0]]
WEIGHTS = [1.0, -2.0, 3.0, 4.0]


def network():
    """A layer that reads at whole pixels, with known units, before one that does not."""
    torch.manual_seed(0)
    model = nn.Sequential(
        DAUConv2d(1, 1, 4, whole_pixels=True, dilation=(2, 1), max_displacement=3.5), DAUConv2d(1, 2, 2)
    )
    with torch.no_grad():
        model[0].mu.copy_(torch.tensor(PLACES).reshape(2, 1, 1, 4))
        model[0].weight.copy_(torch.tensor(WEIGHTS).reshape(1, 1, 4))
    return model.eval()


def settled():
    model = network()
    daukit.settle(model)
    return model


def checkpoint_of(model):
    return from_model(model, architecture={"factory": network})


def test_both_the_stored_displacements_and_the_pixels_are_measured():
    whole, between = displacement_distributions(checkpoint_of(network()))
    assert between.pixels is None and between.pixel_shares is None and between.rounding is None
    places, read = np.array(PLACES) * [[2], [1]], np.array(READ) * [[2], [1]]  # in pixels of the input
    assert whole.mean_distance == pytest.approx(np.average(np.hypot(*places), weights=np.abs(WEIGHTS)))
    assert whole.rounding == pytest.approx(np.average(np.hypot(*(places - read)), weights=np.abs(WEIGHTS)))
    shares = {tuple(pixel): share for pixel, share in zip(whole.pixels.T.tolist(), whole.pixel_shares, strict=True)}
    assert shares == pytest.approx({(0, 0): 0.5, (4, -1): 0.2, (-4, 3): 0.3})


def test_a_group_rounds_only_the_units_of_its_layers_of_whole_pixels():
    model = network()
    (group,) = displacement_distributions(checkpoint_of(model), group="network")
    share = 10 / (10 + float(model[1].weight.detach().abs().sum()))
    assert group.pixel_shares.sum() == pytest.approx(share) and group.pixels.shape == (2, 3)


def test_settled_layers_have_no_spikes_and_units_at_the_last_pixel_are_at_the_limit():
    layer = displacement_distributions(checkpoint_of(settled()))[0]
    assert layer.rounding == 0 and not any(one.spikes for one in layer.distributions)
    assert [part.units for part in layer.at_limit] == [0, 0.25]  # x = 3 is the last whole pixel within 3.5


def test_the_grid_of_such_a_layer_is_on_whole_pixels():
    layer = DAUConv2d(1, 1, (2, 2), whole_pixels=True)
    architecture = {"factory": lambda: nn.Sequential(DAUConv2d(1, 1, (2, 2), whole_pixels=True))}
    (measured,) = displacement_distributions(from_model(nn.Sequential(layer), architecture=architecture))
    assert {tuple(point) for point in measured.points.T.tolist()} == {(-2, -2), (-2, 2), (2, -2), (2, 2)}
    assert measured.at_points.units == 1


@pytest.mark.parametrize("kind", ["1d", "2d", "both"])
def test_the_figure_marks_pixels_by_their_share_and_says_so(kind):
    figure = plot_displacements(displacement_distributions(checkpoint_of(network()), shares=[1]), kind)
    whole = figure.axes[: 2 if kind == "both" else 1]  # the panels of the first layer
    assert "reads at whole pixels (area: share of |w|)" in [text.get_text() for text in figure.legends[0].texts]
    places = {"1d": [(0, 0), (np.hypot(4, 1), 0), (5, 0)], "2d": [(-1, 4), (0, 0), (3, -4)]}
    for drawn, axes in zip(["1d", "2d"] if kind == "both" else [kind], whole, strict=True):
        (mark,) = axes.collections
        assert np.allclose(sorted(map(tuple, np.asarray(mark.get_offsets()))), places[drawn], rtol=0, atol=1e-9)
        assert sorted(mark.get_sizes() / max(mark.get_sizes())) == pytest.approx([0.4, 0.6, 1.0])


def test_bilinear_layers_have_no_marks():
    model = nn.Sequential(DAUConv2d(1, 2, 2))
    checkpoint = from_model(model, architecture={"factory": lambda: nn.Sequential(DAUConv2d(1, 2, 2))})
    figure = plot_displacements(displacement_distributions(checkpoint), "1d")
    assert "whole" not in " ".join(text.get_text() for text in figure.legends[0].texts)


@pytest.mark.parametrize(("model", "size"), [(network, 32), (settled, 8)])
def test_info_measures_where_units_read_and_counts_the_bytes_of_a_file(tmp_path, model, size):
    path = tmp_path / "m.safetensors"
    daukit.save(model(), path, architecture={"factory": network})
    whole, between = describe_file(daukit.read(path)).layers
    assert whole.whole_pixels and not between.whole_pixels
    assert (whole.displacement_bytes, between.displacement_bytes) == (size, 4 * 2 * 4)
    lengths = np.hypot(*(np.array(READ) * [[2], [1]]))
    assert whole.mean_displacement == pytest.approx(lengths.mean())
    assert (whole.largest_displacement, whole.largest_on_axis, whole.share_at_limit) == (5, 4, 0.25)


def shallow(tmp_path, settle=True):
    """A file of one of daukit's networks, two of whose layers read at whole pixels."""
    torch.manual_seed(0)
    model = daukit.create_model("shallow_dau", channels=[3, 2, 4], units=2)
    for layer in (model.conv2, model.conv3):
        layer.whole_pixels = True
        layer.mu.data.uniform_(-3, 3)
    if settle:
        daukit.settle(model)
    path = tmp_path / "model.safetensors"
    daukit.save(model, path)
    return path


def test_commands_say_it_in_words(daukit_command, tmp_path):
    path = shallow(tmp_path)
    told = daukit_command("info", path).stdout
    units = daukit.read(path).layer("conv2").weight.numel() + daukit.read(path).layer("conv3").weight.numel()
    assert f"reading at whole pixels: conv2, conv3; their displacements take {2 * units} bytes" in told
    layers = json.loads(daukit_command("info", path, "--json").stdout)["layers"]
    assert [layer.get("whole_pixels") for layer in layers] == [None, True, True]
    done = daukit_command("plot-offsets", path, "--kind", "1d", "-o", tmp_path / "f.svg")
    pixels = displacement_distributions(path)[1].pixels.shape[1]
    assert f"conv2 reads at {pixels} whole pixels, to which displacements are rounded, 0 px away" in done.stderr
    plot = json.loads(daukit_command("plot-offsets", path, "--json").stdout)
    assert [layer.get("pixels_read") for layer in plot["layers"]][:2] == [None, pixels]


def test_pruning_and_evaluating_by_command_work(daukit_command, tmp_path):
    path, output = shallow(tmp_path), tmp_path / "pruned.safetensors"
    done = daukit_command("prune", path, "--threshold", "0.3", "-o", output, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["bytes_after"] == output.stat().st_size
    model = daukit.load(output)
    assert [layer.whole_pixels for layer in dau_layers(model).values()] == [False, True, True]
    assert model.conv2.is_ragged and torch.equal(model.conv2.mu, model.conv2.mu.round())


# Rescaling


@pytest.mark.parametrize("factor", [1.5, 0.5, 0.3])
def test_factors_round_settled_displacements_again_and_say_how_far(factor):
    before = checkpoint_of(settled())
    after, report = rescale_factors(before, {"0": factor})
    old, new = before.tensors["0.mu"], after.tensors["0.mu"]
    assert torch.equal(new, (old * factor).round()) and after.header.layers[0]["max_displacement"] == 3.5 * factor
    moved = (new.double() - factor * old.double()).reshape(2, -1) * torch.tensor([[2.0], [1.0]])  # the dilation
    assert report.layers[0].rounded == pytest.approx(float(moved.norm(dim=0).max()))
    assert report.layers[1].rounded is None and report.rounded == report.layers[0].rounded


def test_whole_factors_move_nothing_and_displacements_that_still_learn_stay_between_pixels():
    _, report = rescale_factors(checkpoint_of(settled()), {"0": 2})
    assert report.layers[0].rounded == 0
    before = checkpoint_of(network())
    after, report = rescale_factors(before, {"0": 1.5})
    assert torch.equal(after.tensors["0.mu"], before.tensors["0.mu"] * 1.5)
    assert report.layers[0].displacement_before == 4 and report.layers[0].displacement_after == 6


@pytest.mark.parametrize("settle", [False, True])
def test_merged_units_go_to_a_whole_pixel_and_the_filters_change_as_reported(settle):
    before = settled() if settle else network()
    with torch.no_grad():
        before[0].mu[1, 0, 0, 3] += 1.0 if settle else 0.6  # units 1 and 4 read at (0, 0) and (0, 1)
    after, (merged, _) = merge(before, 1.0)
    assert (merged.units_before, merged.units_after) == (4, 3)
    assert after[0].displacements().T.tolist() == [[0, 1], [2, -1], [-2, 3]]  # the balance of the two is at 0.8
    assert settle == torch.equal(after[0].mu, after[0].mu.round())
    assert after[0].weight.tolist() == [5, -2, 3] and merged.moved == 1
    point = torch.zeros(1, 1, 31, 31)
    point[0, 0, 15, 15] = 1
    old, new = (model[0].double()(point.double()).detach() - model[0].bias.item() for model in (before, after))
    assert merged.error == pytest.approx(float((new - old).norm() / old.norm()))


def test_exact_mode_dilates_and_rounds_nothing():
    before = checkpoint_of(settled())
    after, report = rescale_factors(before, {"0": 2}, "exact")
    assert torch.equal(after.tensors["0.mu"], before.tensors["0.mu"]) and report.layers[0].rounded == 0
    assert after.header.layers[0]["dilation"] == [4, 2]


@pytest.mark.parametrize("settle", [True, False])
def test_removed_pools_stay_exact_and_the_command_says_how_far_rounding_moved(daukit_command, tmp_path, settle):
    path = shallow(tmp_path, settle)
    after, report = remove_pools(path, ["pool1"], "exact", input_size=(28, 28))
    assert report.proof.is_exact and after.header.layers[1]["dilation"] == [2, 2]
    done = daukit_command("rescale", path, "--factor", "conv2=1.5", "-o", tmp_path / "out.safetensors")
    assert "layers of whole pixels: rounding moved units by up to" in done.stderr
    assert daukit.load(tmp_path / "out.safetensors").conv2.whole_pixels


@pytest.mark.parametrize("sigma", [0, 0.5])
def test_the_effective_field_of_one_layer_is_its_units_where_they_read(sigma):
    model = settled() if sigma else nn.Sequential(DAUConv2d(1, 1, 4, whole_pixels=True, sigma=0, dilation=(2, 1)))
    with torch.no_grad():
        model[0].mu.copy_(torch.tensor(PLACES).reshape(2, 1, 1, 4))
        model[0].weight.copy_(torch.tensor(WEIGHTS).abs().reshape(1, 1, 4))
    model = model[:1].eval()
    (field,) = daukit.effective_receptive_field(model.double(), "0", torch.zeros(1, 1, 41, 41, dtype=torch.float64))
    influence = torch.zeros(41, 41, dtype=torch.float64)
    offsets = torch.arange(-3, 4, dtype=torch.float64)
    g = torch.exp(-(offsets**2) / (2 * 0.5**2)) if sigma else (offsets == 0).double()
    g = g / g.sum()
    for w, y, x in zip(WEIGHTS, *READ, strict=True):
        for i, gy in zip(offsets.int().tolist(), g.tolist(), strict=True):
            for j, gx in zip(offsets.int().tolist(), g.tolist(), strict=True):
                influence[20 + 2 * (int(y) + i), 20 + int(x) + j] += abs(w) * gy * gx
    torch.testing.assert_close(torch.as_tensor(field.map), influence / 10, rtol=1e-12, atol=1e-14)
