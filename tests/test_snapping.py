"""Snapping: closed forms against dense kernels and brute-force least squares, and what it does to whole networks."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import daukit
from daukit.errors import CheckpointError, NetworkError
from daukit.ops.kernels import blur_radius, blur_taps
from daukit.snapping import outputs
from daukit.snapping.filters import snap_filters, squared_errors
from daukit.snapping.kernels import Autocorrelation
from daukit.snapping.layers import snap_layer
from daukit.snapping.outputs import PixelUnits, refit_outputs

MARGIN = 12  # pixels around the origin that hold every kernel of these tests
SIDE = 2 * MARGIN + 1


def gaussian(sigma):
    """Normalised taps by the textbook's formula."""
    x = np.arange(-MARGIN, MARGIN + 1)
    taps = np.where(abs(x) <= blur_radius(sigma), np.exp(-(x**2) / (2 * sigma**2)), 0)
    return taps / taps.sum()


def dense(mu, *sigmas):
    """A unit's kernel as pixels, (SIDE, SIDE): the bilinear cell, blurred by every sigma in turn."""
    kernel = np.zeros((SIDE, SIDE))
    for y, x in itertools.product((0, 1), repeat=2):
        at = [math.floor(m) for m in mu]
        fy, fx = mu[0] - at[0], mu[1] - at[1]
        kernel[MARGIN + at[0] + y, MARGIN + at[1] + x] += (fy if y else 1 - fy) * (fx if x else 1 - fx)
    for sigma in sigmas:
        for axis in (0, 1):
            kernel = np.apply_along_axis(np.convolve, axis, kernel, gaussian(sigma), "same")
    return kernel


def seen(mu, sigma):
    """A unit's kernel as smooth maps with a mean see it: a vector whose inner products are those of `smooth`."""
    plain = dense((0, 0), sigma, 0.7)
    return np.append(dense(mu, sigma, 0.7).ravel(), math.sqrt(10) * np.linalg.norm(plain) * dense(mu).sum())


units = st.integers(1, 4).flatmap(
    lambda count: st.tuples(
        st.lists(st.floats(-2, 2, width=32), min_size=count, max_size=count),
        st.lists(st.tuples(*2 * [st.floats(-2.5, 2.5, width=32)]), min_size=count, max_size=count),
        st.sampled_from([0.3, 0.5, 0.8]),
    )
)


def as_filters(weight, mu):
    return torch.tensor([weight]).double(), torch.tensor(mu).double().T[:, None]


def blurs(sigma):
    taps = blur_taps(torch.tensor(sigma, dtype=torch.float64), blur_radius(sigma)).gaussian
    return Autocorrelation.of(taps), Autocorrelation.smooth(taps)


def best_fit(weight, mu, pixels, sigma):
    """Weights at pixels and the error that is left, by numpy's least squares over the pixels of dense kernels."""
    wanted = sum((w * seen(m, sigma) for w, m in zip(weight, mu, strict=True)), np.zeros(SIDE**2 + 1))
    columns = np.stack([seen(pixel, sigma) for pixel in pixels], axis=1)
    found = np.linalg.lstsq(columns, wanted, rcond=None)[0]
    return found, np.linalg.norm(columns @ found - wanted) ** 2, wanted @ wanted


@settings(deadline=None, max_examples=25)
@given(units)
def test_refitted_weights_are_those_of_least_squares_over_pixels(case):
    weight, mu, sigma = case
    for to in ("nearest", "best"):
        snapped = snap_filters(*as_filters(weight, mu), blurs(sigma)[1], to=to)
        keep = snapped.keep[0]
        pixels = snapped.pixel[:, 0, keep].T.tolist()
        expected, _, _ = best_fit(weight, mu, pixels, sigma)
        np.testing.assert_allclose(snapped.weight[0, keep], expected, rtol=1e-7, atol=1e-7)
        assert not snapped.weight[0, ~keep].any()


@settings(deadline=None, max_examples=25)
@given(units)
def test_errors_of_filters_are_the_norms_of_dense_kernels(case):
    weight, mu, sigma = case
    pixel = np.round(mu)
    change, norm = squared_errors(*as_filters(weight, mu), *as_filters(weight, pixel), blurs(sigma)[0])
    before, after = (
        sum((w * dense(m, sigma) for w, m in zip(weight, places, strict=True)), np.zeros((SIDE, SIDE)))
        for places in (mu, pixel)
    )
    assert float(norm) == pytest.approx((before**2).sum(), rel=1e-9, abs=1e-12)
    assert float(change) == pytest.approx(((after - before) ** 2).sum(), rel=1e-9, abs=1e-12)


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(units)
def test_no_unit_finds_a_better_pixel_than_the_best_and_no_two_share_one(case):
    weight, mu, sigma = case
    pixels = snap_filters(*as_filters(weight, mu), blurs(sigma)[1]).pixel[:, 0].T.tolist()
    assert len({tuple(pixel) for pixel in pixels}) == len(pixels)
    _, error, norm = best_fit(weight, mu, pixels, sigma)
    for unit, (y, x) in enumerate(np.round(mu).tolist()):
        for step in itertools.product((-1, 0, 1), repeat=2):
            other = [*pixels[:unit], [y + step[0], x + step[1]], *pixels[unit + 1 :]]
            assert best_fit(weight, mu, other, sigma)[1] >= error - 1e-6 * norm


def test_units_keep_within_the_last_whole_pixel_of_the_limit():
    weight, mu = torch.rand(40, 5).double() - 0.5, 4 * torch.rand(2, 40, 5).double() - 2
    for to in ("nearest", "best"):
        snapped = snap_filters(weight, mu, blurs(0.5)[1], to=to, limit=1.7)
        assert float(snapped.pixel.abs().max()) == 1 and torch.equal(snapped.pixel, snapped.pixel.round())
    inside = snap_filters(weight, mu, blurs(0.5)[1], limit=0.9)
    assert not inside.pixel.any() and inside.keep.sum(1).tolist() == 40 * [1]  # one pixel is left, and one unit


def test_kernels_so_wide_that_they_agree_get_weights_of_a_bounded_size():
    """Minimum norm: an exact fit would need weights of either sign, many times larger."""
    mu = torch.tensor([[0.4, 0.5, 1.4], [0.3, 1.5, 0.6]]).double()[:, None]
    snapped = snap_filters(torch.ones(1, 3).double(), mu, blurs(16.0)[1])
    assert float(snapped.weight.abs().max()) < 10 and float(snapped.weight.sum()) == pytest.approx(3, rel=1e-3)


def operator(seed, *, out_channels=6, in_channels=4, groups=2, units=2, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    layer = daukit.DAUConv2d(in_channels, out_channels, units, groups=groups, **options).to(dtype)
    layer.mu.data.uniform_(-2.6, 2.6)
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", [{}, {"stride": (2, 1), "dilation": (1, 2)}, {"sigma": 0.8, "groups": 1}])
def test_weights_refitted_on_outputs_are_those_of_least_squares_over_activations(options, bias):
    layer = operator(0, bias=bias, **options)
    wanted_of, inputs = operator(1, bias=bias, **options), torch.randn(3, 4, 7, 5).double()
    with torch.no_grad():
        layer.mu.round_()
        wanted = wanted_of(inputs)
    taps = blur_taps(torch.tensor(layer.sigma, dtype=torch.float64), blur_radius(layer.sigma)).gaussian
    pair = torch.arange(layer.pairs).repeat_interleave(layer.units)
    sizes = {"out_channels": 6, "in_channels": 4, "groups": layer.groups}
    placed = PixelUnits(
        layer.mu.detach().reshape(2, -1), pair, stride=layer.stride, dilation=layer.dilation, taps=taps, **sizes
    )
    start = None if layer.bias is None else layer.bias.detach()
    found = refit_outputs(inputs, wanted, placed, layer.weight.detach().flatten(), start, torch.Generator())
    for channel in range(6):
        expected = by_unfolding(layer, inputs, wanted, channel)
        own = [found.weight[pair // (4 // layer.groups) == channel]]
        own += [] if found.bias is None else [found.bias[channel, None]]
        torch.testing.assert_close(torch.cat(own), expected, rtol=1e-8, atol=1e-8)
    assert found.error < found.error_before


def by_unfolding(layer, inputs, wanted, channel):
    """Weights of an output channel, and its bias: one column of activations per unit, from the operator itself."""
    columns = []
    for c, unit in itertools.product(range(layer.weight.shape[1]), range(layer.units)):
        one = torch.zeros_like(layer.weight)
        one[channel, c, unit] = 1
        columns.append(
            daukit.dau_conv2d(
                inputs, one, layer.mu, sigma=layer.sigma, stride=layer.stride, dilation=layer.dilation,
                groups=layer.groups,
            )[:, channel].flatten()
        )  # fmt: skip
    matrix = torch.stack(columns, dim=1).detach()
    start = layer.weight[channel].detach().flatten()
    ridge = math.sqrt(outputs._RIDGE * float(matrix.square().sum(0).mean())) * torch.eye(len(start)).double()
    if layer.bias is not None:
        matrix = torch.cat([matrix, torch.ones(len(matrix), 1)], dim=1)
        ridge = torch.cat([ridge, torch.zeros(len(start), 1)], dim=1)
        start = torch.cat([start, layer.bias[channel, None].detach()])
    missing = wanted[:, channel].flatten() - matrix @ start
    rows = torch.cat([matrix, ridge]), torch.cat([missing, torch.zeros(len(ridge))])
    return start + torch.linalg.lstsq(rows[0], rows[1][:, None], driver="gelsd").solution[:, 0]


def network(**options):
    torch.manual_seed(0)
    model = daukit.create_model("shallow_dau", channels=[4, 6, 6], units=3, input_size=(8, 8), **options)
    for name, tensor in model.named_parameters():
        if name.endswith("mu"):
            tensor.data.uniform_(-2.4, 2.4)
    return model.eval()


IMAGES = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_snapping_a_model_moves_every_unit_and_changes_the_model_given_in_nothing():
    model = network()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    snapped, report = daukit.snap(model)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    for told, (name, layer) in zip(report.layers, daukit.models.structure.dau_layers(snapped).items(), strict=True):
        before = model.get_submodule(name)
        assert told.name == name and layer.whole_pixels and not before.whole_pixels
        assert torch.equal(layer.mu, layer.mu.round()) and torch.equal(layer.displacements(), layer.mu)
        moved = (layer.mu - before.mu).detach().norm(dim=0)
        assert told.moved_mean == pytest.approx(float(moved.mean()), rel=1e-6)
        assert told.moved_largest == pytest.approx(float(moved.max()), rel=1e-6)
        assert told.units_before == told.units_after == layer.weight.numel()
        assert 0 < told.error < told.error_rounded and told.matched == "filters"


def outputs_differ(model, other):
    with torch.no_grad():
        return float((model(IMAGES) - other(IMAGES)).norm() / model(IMAGES).norm())


def test_matching_outputs_changes_a_network_least_and_plain_rounding_most():
    model = network()
    rounded, _ = daukit.snap(model, to="nearest", refit=False)
    filters, _ = daukit.snap(model)
    matched, report = daukit.snap(model, inputs=IMAGES)
    assert outputs_differ(model, matched) < outputs_differ(model, filters) < outputs_differ(model, rounded)
    assert all(layer.output_error < layer.output_error_before for layer in report.layers)
    assert {layer.matched for layer in report.layers} == {"outputs"}


def test_a_layer_is_matched_on_what_the_snapped_layers_before_it_make():
    """The error told of the last layer is that of the two networks there, with all layers before it snapped."""
    model = network()
    matched, report = daukit.snap(model, inputs=IMAGES)
    maps = []
    for each in (model, matched):
        each.conv3.register_forward_hook(lambda *called: maps.append(called[2].detach().double()))
        each(IMAGES)
    error = (maps[1] - maps[0]).square().sum()
    spread = (maps[0] - maps[0].mean((0, 2, 3), keepdim=True)).square().sum()
    assert report.layers[-1].output_error == pytest.approx(float((error / spread).sqrt()), rel=1e-4)


def test_units_that_meet_become_one_and_plain_rounding_reads_the_same():
    model = network()
    model.conv2.mu.data[:, 0, 0] = torch.tensor([[1.2, 0.9, 1.4], [-0.3, 0.2, 0.1]])
    snapped, report = daukit.snap(model, to="nearest", refit=False)
    assert snapped.conv2.is_ragged and int(snapped.conv2.unit_counts[0]) == 1
    assert report.layers[1].units_after == snapped.conv2.weight.numel() < report.layers[1].units_before
    for _, layer in daukit.models.structure.dau_layers(model).items():
        layer.mu.data.round_()
    torch.testing.assert_close(snapped(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


def test_ragged_layers_are_snapped():
    pruned, _ = daukit.prune(network(), 0.4)
    for options in ({}, {"to": "nearest"}, {"inputs": IMAGES}):
        snapped, report = daukit.snap(pruned, **options)
        assert snapped.conv2.is_ragged and torch.equal(snapped.conv2.mu, snapped.conv2.mu.round())
        assert report.layers[1].units_before == pruned.conv2.weight.numel()
        assert report.layers[1].error < report.layers[1].error_rounded


def test_snapping_again_changes_nothing_and_says_why(tmp_path):
    checkpoint, _ = daukit.snap(daukit.checkpoint.from_model(network()))
    again, report = daukit.snap(checkpoint)
    assert again is checkpoint and report.layers == ()
    assert {kept.reason for kept in report.kept} == {"its units are at whole pixels already"}
    daukit.write(checkpoint, tmp_path / "a.safetensors")
    loaded = daukit.load(tmp_path / "a.safetensors")
    assert loaded.conv1.whole_pixels and torch.equal(loaded.conv1.mu, loaded.conv1.displacements())
    assert checkpoint.header.history[-1]["operation"] == "snap"


def test_units_that_lie_at_whole_pixels_of_their_own_keep_their_weights_to_the_bit():
    model = network()
    places = torch.tensor([[-1.0, 0.0, 1.0], [2.0, -2.0, 0.0]])
    for _, layer in daukit.models.structure.dau_layers(model).items():
        layer.mu.data[:] = places[:, None, None]
    snapped, report = daukit.snap(model)
    assert all(torch.equal(tensor, snapped.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert [layer.moved_largest for layer in report.layers] == [0, 0, 0] and snapped.conv1.whole_pixels


def test_a_path_a_model_and_a_checkpoint_give_the_same(tmp_path):
    path, model = tmp_path / "a.safetensors", network()
    daukit.save(model, path)
    states = [daukit.snap(model, inputs=IMAGES)[0].state_dict()]
    states += [daukit.snap(source, inputs=IMAGES)[0].tensors for source in (path, daukit.read(path))]
    for other in states[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in states[0].items())


def test_a_learned_sigma_stays_and_the_general_form_is_left_alone():
    snapped, report = daukit.snap(network(learn_sigma="layer"))
    assert len(report.layers) == 3 and isinstance(snapped.conv1.sigma, nn.Parameter)
    _, report = daukit.snap(network(learn_sigma="unit"))
    assert report.layers == () and "general form" in report.kept[0].reason


def test_a_dilated_layer_moves_by_pixels_of_its_input():
    layer = operator(0, dilation=(3, 2), groups=1, units=1, dtype=torch.float32)
    layer.mu.data[:] = torch.tensor([0.25, -1.5]).reshape(2, 1, 1, 1)
    snapped, report = daukit.snap(nn.Sequential(layer), to="nearest")
    assert report.layers[0].moved_largest == pytest.approx(math.hypot(0.75, 1.0))
    assert snapped[0].mu[:, 0, 0, 0].tolist() == [0, -2]


class Sharing(nn.Module):
    """Two layers with the same displacements."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (daukit.DAUConv2d(2, 2, 2, init="uniform") for _ in range(2))
        self.second.mu = self.first.mu

    def forward(self, x):
        return self.second(self.first(x))


def test_layers_that_share_displacements_go_separate_ways():
    torch.manual_seed(0)
    model, images = Sharing(), torch.randn(4, 2, 9, 8)
    snapped, report = daukit.snap(model, inputs=images)
    assert model.second.mu is model.first.mu and snapped.second.mu is not snapped.first.mu
    with torch.no_grad():
        error = (snapped(images) - model(images)).square().sum()
        spread = model(images).var((0, 2, 3), correction=0).sum() * 4 * 9 * 8
    assert report.layers[1].output_error == pytest.approx(float((error / spread).sqrt()), rel=1e-3)


class Twice(nn.Module):
    """Calls one layer twice, on maps of two sizes, and another one never."""

    def __init__(self):
        super().__init__()
        self.unused, self.used = (daukit.DAUConv2d(2, 2, 2, init="uniform") for _ in range(2))

    def forward(self, x):
        return self.used(x)[:, :, ::2, ::2] + self.used(input=x[:, :, ::2, ::2])


def test_a_layer_that_is_called_twice_is_matched_and_one_that_never_is_says_so():
    torch.manual_seed(0)
    _, report = daukit.snap(Twice(), inputs=torch.randn(4, 2, 9, 8))
    unused, used = report.layers
    assert unused.matched == "filters" and unused.why_filters == "the network does not call it"
    assert used.matched == "outputs" and used.output_error < used.output_error_before


def test_a_layer_of_too_many_units_is_refitted_on_its_filters(monkeypatch):
    monkeypatch.setattr("daukit.snapping.model.LARGEST_SYSTEM", 12)
    _, report = daukit.snap(network(), inputs=IMAGES)
    assert [layer.matched for layer in report.layers] == ["outputs", "outputs", "filters"]
    assert "18 units" in report.layers[2].why_filters and report.layers[2].output_error is None


def test_images_that_are_black_leave_weights_as_the_filters_have_them():
    filters, _ = daukit.snap(network())
    black, report = daukit.snap(network(), inputs=torch.zeros(3, 1, 8, 8))
    assert torch.equal(filters.conv1.weight, black.conv1.weight) and report.layers[0].output_error == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "far"}, 'to must be "best" or "nearest", got \'far\''),
        ({"refit": False}, 'go with to="nearest"'),
        ({"to": "nearest", "refit": False, "inputs": IMAGES}, "no inputs"),
        ({"inputs": IMAGES[:0]}, "at least one image"),
        ({"inputs": IMAGES[..., :0]}, "at least one image"),
        ({"inputs": [1]}, "must be a tensor"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        daukit.snap(network(), **options)


def test_wrong_layers_networks_and_images_are_refused():
    with pytest.raises(CheckpointError, match=r"conv9.*conv1"):
        daukit.snap(network(), layers=["conv9"])
    with pytest.raises(CheckpointError, match="no DAU layers"):
        daukit.snap(nn.Sequential(nn.Conv2d(1, 1, 1)))
    with pytest.raises(NetworkError, match="forward failed"):
        daukit.snap(network(), inputs=torch.randn(2, 3, 8, 8))
    with pytest.raises(NetworkError, match="'conv1' makes NaN or infinity"):
        daukit.snap(network(), inputs=torch.full((1, 1, 8, 8), math.nan))
    with pytest.raises(CheckpointError, match="4,097 units, and up to 4,096"):
        daukit.snap(nn.Sequential(daukit.DAUConv2d(1, 1, 4097)))
    model = network()
    model.conv1.mu.data[0] = math.nan
    with pytest.raises(CheckpointError, match=r"conv1.*NaN"):
        daukit.snap(model)


def test_only_the_layers_asked_for_are_snapped():
    snapped, report = daukit.snap(network(), layers=["conv2"])
    assert [layer.name for layer in report.layers] == ["conv2"] and not snapped.conv1.whole_pixels
    assert [kept.reason for kept in report.kept] == ["not chosen", "not chosen"]


def test_a_layer_without_units_stays_without():
    pruned, _ = daukit.prune(network(), layer_thresholds={"conv1": 0.99})
    empty = daukit.checkpoint.from_model(pruned)
    snapped = snap_layer(empty, "conv1")
    assert len(snapped.weight) == empty.layer("conv1").weight.numel()
    pruned.conv1.keep_units(torch.zeros(pruned.conv1.weight.shape, dtype=torch.bool))
    for options in ({}, {"inputs": IMAGES}):
        _, report = daukit.snap(pruned, **options)
        assert report.layers[0].units_after == 0 and report.layers[0].error == 0
