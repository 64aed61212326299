"""Layers that read at whole pixels: what they compute, how they learn, and how their units are kept apart."""

import copy
import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from daukit.baking import bake
from daukit.nn import DAUConv2d, keep_apart, parameter_groups, project_displacements, settle
from daukit.ops import dau_conv2d
from daukit.receptive_field import theoretical_receptive_field


def layer_of(seed=0, **options):
    """A layer whose displacements lie between pixels."""
    torch.manual_seed(seed)
    layer = DAUConv2d(4, 6, 3, **{"groups": 2, "whole_pixels": True, **options})
    with torch.no_grad():
        layer.mu.uniform_(-3.4, 3.4)
    return layer


def image(*shape, seed=1):
    return torch.randn(*(shape or (2, 4, 9, 7)), generator=torch.Generator().manual_seed(seed))


def as_convolution(layer, x):
    """What the layer computes without a blur, by torch's convolution with one weight per unit."""
    size = 2 * int(layer.mu.detach().abs().max().ceil()) + 1
    kernel = torch.zeros(layer.pairs, size, size, dtype=layer.weight.dtype)
    at = layer.mu.detach().reshape(2, -1).round().long() + size // 2
    pair = torch.repeat_interleave(torch.arange(layer.pairs), layer.unit_counts)
    kernel.index_put_((pair, *at), layer.weight.detach().flatten(), accumulate=True)
    kernel = kernel.reshape(layer.out_channels, -1, size, size)
    padding = [size // 2 * step for step in layer.dilation]
    return F.conv2d(x, kernel, layer.bias, stride=layer.stride, padding=padding, dilation=layer.dilation, groups=2)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": (1, 2), "stride": (2, 1), "bias": False}])
@pytest.mark.parametrize("ragged", [False, True])
def test_without_a_blur_the_layer_is_a_sparse_convolution(options, ragged):
    layer = layer_of(sigma=0, **options).double()
    if ragged:
        layer.keep_units(torch.arange(layer.weight.numel()).reshape(layer.weight.shape) % 3 > 0)
    x = image().double()
    torch.testing.assert_close(layer(x), as_convolution(layer, x), rtol=1e-12, atol=1e-12)


def test_the_layer_reads_at_rounded_displacements_and_passes_their_gradient_through():
    layer, x = layer_of(), image()
    rounded = layer.mu.detach().round().requires_grad_()
    assert torch.equal(layer.displacements(), rounded) and not torch.equal(layer.mu, rounded)
    expected = dau_conv2d(x, layer.weight, rounded, layer.bias, groups=2)
    output = layer(x)
    assert torch.equal(output, expected)
    (grad,) = torch.autograd.grad(output.square().sum(), layer.mu)
    (expected_grad,) = torch.autograd.grad(expected.square().sum(), rounded)
    assert torch.equal(grad, expected_grad) and grad.any()


def test_rounding_is_exact_for_every_float_and_ties_go_to_the_even_pixel():
    layer = DAUConv2d(1, 1, 8, whole_pixels=True, max_displacement=None)
    places = [0.5, 1.5, -2.5, 0.49999997, 8388607.5, -1e-38, 16777216.0, 1e30]
    with torch.no_grad():
        layer.mu[0] = layer.mu[1] = torch.tensor(places)
    expected = [float(round(place)) for place in torch.tensor(places).tolist()]  # Python rounds ties to even, too
    assert layer.displacements()[0].flatten().tolist() == expected


def test_without_a_blur_displacements_learn_by_the_exact_gradient_only():
    fixed, free = layer_of(sigma=0), layer_of(sigma=0, mu_gradient="exact")
    assert not fixed.mu.requires_grad and free.mu.requires_grad
    for layer in (fixed, free):
        layer(image()).sum().backward()
    assert fixed.mu.grad is None and free.mu.grad is not None
    fixed.keep_units(fixed.weight > 0)
    assert not fixed.mu.requires_grad and not copy.deepcopy(fixed).mu.requires_grad
    fixed(image()).sum().backward()


@pytest.mark.parametrize("options", [{}, {"sigma": 0}, {"sigma": 0, "mu_gradient": "exact"}, {"learn_sigma": True}])
def test_copies_pickles_states_and_halves_compute_the_same(options):
    layer, x = layer_of(**options), image()
    expected = layer(x)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    fresh = layer_of(seed=3, **options)
    fresh.load_state_dict(layer.state_dict())
    for other in (copy.deepcopy(layer), torch.load(buffer, weights_only=False), fresh):
        assert torch.equal(other(x), expected)
    half = layer(x.bfloat16())
    assert half.dtype == torch.bfloat16 and torch.equal(layer.bfloat16()(x.bfloat16()), half)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), layer(x.bfloat16()))


def test_a_layer_that_was_pickled_before_there_were_whole_pixels_reads_between_them():
    layer = DAUConv2d(2, 2, 2)
    del layer.__dict__["whole_pixels"]
    assert torch.equal(layer.displacements(), layer.mu) and "whole" not in repr(layer)


def test_the_layer_prints_that_it_reads_at_whole_pixels():
    assert repr(layer_of(sigma=0)) == (
        "DAUConv2d(4, 6, units=3, max_displacement=4.0, sigma=0.0, groups=2, whole_pixels=True)"
    )


@pytest.mark.parametrize("options", [{}, {"sigma": 0, "mu_gradient": "exact"}])
def test_torch_traces_and_exports_the_rounding(options):
    layer, x = layer_of(**options), image()
    program = torch.export.export(layer.eval(), (x,))
    assert torch.equal(program.module()(x), layer(x))
    assert torch.equal(torch.fx.symbolic_trace(layer)(x), layer(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("default::DeprecationWarning")  # torch's own, of its compiler
def test_a_compiled_layer_has_the_same_gradients():
    layer, x = layer_of(), image()
    expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    actual = torch.autograd.grad(compiled(x).square().sum(), list(layer.parameters()))
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"form": "gaussian"}, ValueError, "whole_pixels goes with form"),
        ({"whole_pixels": 1}, TypeError, "whole_pixels must be True or False, got int 1"),
        ({"sigma": 0, "whole_pixels": False}, ValueError, "no blur goes with whole_pixels=True"),
        ({"sigma": 0, "learn_sigma": True}, ValueError, r"sigma must be within \[0.1, 1.6\]"),
        ({"sigma": 5e-4}, ValueError, r"sigma must be within \[0.001, 1000\]"),
        ({"sigma": -1}, ValueError, "sigma must be within"),
        ({"sigma": math.nan}, ValueError, "sigma must be within"),
    ],
)
def test_what_does_not_go_together_is_refused(options, error, match):
    with pytest.raises(error, match=match):
        layer_of(**options)


@pytest.mark.parametrize("options", [{}, {"sigma": 0}, {"learn_sigma": True}, {"dilation": 2, "stride": 2}])
def test_the_baked_layer_is_the_layer(options):
    layer, x = layer_of(**options).double(), image().double()
    twin = bake(nn.Sequential(layer))
    assert not any(isinstance(module, DAUConv2d) for module in twin.modules())
    torch.testing.assert_close(twin(x), layer(x), rtol=1e-12, atol=1e-12)
    # Without a blur there is only the one convolution.
    assert sum(isinstance(module, nn.Conv2d) for module in twin.modules()) == (1 if layer.sigma == 0 else 3)


@pytest.mark.parametrize(("sigma", "radius"), [(0, 0), (0.5, 3)])
@pytest.mark.parametrize(("limit", "reach"), [(2.7, 2), (3, 3), (None, 4)])
def test_the_theoretical_field_ends_with_the_last_whole_pixel_within_the_limit(limit, reach, sigma, radius):
    layer = layer_of(sigma=sigma, max_displacement=limit, dilation=2)
    with torch.no_grad():
        layer.mu[:, 0, 0, 0] = torch.tensor([3.6, -3.6])
        layer.mu[:, 0, 0, 1] = torch.tensor([-3.6, 3.6])
    for limits, pixels in ((True, reach), (False, 4)):
        (field,) = theoretical_receptive_field(layer, "", image(1, 4, 40, 40), limits=limits)
        assert field.size == (4 * (pixels + radius) + 1, 4 * (pixels + radius) + 1)


# Displacements


def brute_force(mu, counts, limit):
    """The rule of ``keep_apart``, unit by unit."""
    pixels, bound = mu.double().round(), math.inf if limit is None else math.floor(limit)
    start = 0
    for count in counts.tolist():
        units, start = range(start, start + count), start + count
        if count > (2 * bound + 1) ** 2:
            continue
        seen, waiting = set(), []
        for u in sorted(units, key=lambda u: (float((mu[:, u].double() - pixels[:, u]).square().sum()), u)):
            place = tuple(pixels[:, u].tolist())
            waiting += [u] if place in seen else []
            seen.add(place)
        for u in waiting:
            taken, (y, x) = {tuple(pixels[:, other].tolist()) for other in units}, mu[:, u].double().tolist()
            nearby = [(round(y) + i, round(x) + j) for i in range(-8, 9) for j in range(-8, 9)]
            free = [p for p in nearby if p not in taken and max(map(abs, p)) <= bound]
            best = min(free, key=lambda p: ((p[0] - y) ** 2 + (p[1] - x) ** 2, p))
            pixels[:, u] = torch.tensor(best, dtype=torch.float64)
    return pixels


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    limit=st.sampled_from([None, 0, 1, 1.5, 2, 3.7]),
    steps=st.sampled_from([2, 4, 1000]),
    spread=st.sampled_from([0.5, 1.5, 3.0]),
    seed=st.integers(0, 99),
)
def test_units_of_a_pair_go_to_the_nearest_free_pixels(counts, limit, steps, spread, seed):
    counts = torch.tensor(counts)
    mu = torch.empty(2, int(counts.sum())).uniform_(-spread, spread, generator=torch.Generator().manual_seed(seed))
    mu = (mu * steps).round() / steps  # with two or four steps a pixel many are equally near
    if limit is not None:
        mu = mu.clamp(-math.floor(limit), math.floor(limit))
    pixels = keep_apart(mu, counts, limit)
    assert pixels.dtype == mu.dtype and torch.equal(pixels.double(), brute_force(mu, counts, limit))


def distinct(layer):
    """True where no two units of a pair round to one pixel."""
    places = layer.mu.detach().reshape(2, -1).round()
    pair = torch.repeat_interleave(torch.arange(layer.pairs), layer.unit_counts)
    return len({(p, *place) for p, place in zip(pair.tolist(), places.T.tolist(), strict=True)}) == pair.numel()


@pytest.mark.parametrize("init", ["grid", "uniform", "normal"])
@pytest.mark.parametrize(("units", "limit"), [(2, 4.0), (9, 1.0), ((2, 4), 2.5), (81, 4.0)])
def test_every_initialiser_puts_the_units_of_a_pair_on_distinct_whole_pixels(units, limit, init):
    torch.manual_seed(0)
    layer = DAUConv2d(3, 4, units, max_displacement=limit, init=init, whole_pixels=True)
    assert torch.equal(layer.mu, layer.mu.round()) and distinct(layer)
    assert init != "grid" or layer.mu.abs().max() <= limit


def test_more_units_than_pixels_within_the_limit_are_rounded():
    layer = DAUConv2d(1, 1, 10, max_displacement=1.0, whole_pixels=True)
    assert torch.equal(layer.mu, layer.mu.round()) and layer.mu.abs().max() <= 1


@pytest.mark.parametrize("limit", [0.4, 1.0, 2.5, 3.99, None])
def test_projected_displacements_keep_their_limit_when_they_are_rounded(limit):
    layer = layer_of(max_displacement=limit)
    with torch.no_grad():
        layer.mu.mul_(3)
    before = layer.mu.detach().clone()
    project_displacements(layer)
    bound = math.inf if limit is None else math.floor(limit)
    assert torch.equal(layer.mu, before.clamp(-bound, bound))  # what lies within it learns on between pixels
    assert layer.displacements().abs().max() <= (math.inf if limit is None else limit)


def test_projection_moves_only_units_that_share_a_pixel():
    layer, parameter = layer_of(), None
    with torch.no_grad():
        layer.mu[:, 0, 0] = torch.tensor([[1.1, 1.3, -2.4], [0.2, 0.4, 0.6]])
    parameter, before = layer.mu, layer.mu.detach().clone()
    project_displacements(layer, apart=True)
    assert layer.mu is parameter and distinct(layer)
    assert layer.mu[:, 0, 0].T.tolist()[0] == before[:, 0, 0].T.tolist()[0]  # it is the nearest to (1, 0)
    assert layer.mu[:, 0, 0].T.tolist()[1] == [1.0, 1.0]
    alone = (layer.mu == before).all(0)
    assert 0 < int((~alone).sum()) < alone.numel() // 2
    again = layer.mu.detach().clone()
    project_displacements(layer, apart=True)
    assert torch.equal(layer.mu, again)


def test_bilinear_layers_are_projected_as_ever_whatever_is_kept_apart():
    layer = DAUConv2d(1, 1, 2, max_displacement=2.5)
    with torch.no_grad():
        layer.mu.copy_(torch.tensor([[9.0, 9.0], [1.2, 1.2]]).reshape(2, 1, 1, 2))
    project_displacements(layer, apart=True)
    assert layer.mu.flatten().tolist() == torch.tensor([2.5, 2.5, 1.2, 1.2]).tolist()


def test_settling_changes_no_output_and_apart_leaves_no_pixel_shared():
    layer, bilinear = layer_of(), DAUConv2d(4, 4, 2)
    with torch.no_grad():
        layer.mu[:, 0, 0] = 0.2
        bilinear.mu.fill_(0.3)
    model = nn.Sequential(bilinear, layer)
    expected = model(image())
    settle(model)
    assert torch.equal(model(image()), expected) and torch.equal(layer.mu, layer.mu.round()) and not distinct(layer)
    assert (bilinear.mu == 0.3).all()
    settle(torch.nn.DataParallel(model), apart=True)
    assert torch.equal(layer.mu, layer.mu.round()) and distinct(layer) and layer.mu.requires_grad
    with pytest.raises(ValueError, match="settle is for layers that read at whole pixels"):
        bilinear.settle()


def test_ragged_layers_are_kept_apart_pair_by_pair():
    layer = layer_of()
    layer.keep_units(torch.arange(layer.weight.numel()).reshape(layer.weight.shape) % 4 > 0)
    with torch.no_grad():
        layer.mu.fill_(0.25)
    layer.settle(apart=True)
    assert distinct(layer) and layer.mu.abs().max() == 1


def test_displacements_that_learn_are_a_group_of_their_own():
    model = nn.Sequential(layer_of(), layer_of(sigma=0))
    groups = {group["name"]: group["params"] for group in parameter_groups(model, 0.1, 0.1, 0.1)}
    assert any(one is model[0].mu for one in groups["mu"])
