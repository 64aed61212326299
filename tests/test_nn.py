"""The layer, its initialisers and what optimisers need."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from daukit.nn import DAUConv2d, grid_points, parameter_groups, project_displacements
from daukit.ops import dau_conv2d, dau_conv2d_gaussian


def layer_and_input(**options):
    torch.manual_seed(0)
    layer = DAUConv2d(3, 5, 4, **options)
    with torch.no_grad():
        layer.mu.normal_(0, 2)
        if layer.bias is not None:
            layer.bias.normal_()
    return layer, torch.randn(2, 3, 9, 7)


def test_the_layer_is_the_operator_on_its_parameters():
    layer, x = layer_and_input(sigma=0.7, stride=2, dilation=(1, 2), mu_gradient="exact")
    options = {"sigma": 0.7, "stride": 2, "dilation": (1, 2), "mu_gradient": "exact"}
    expected = dau_conv2d(x, layer.weight, layer.mu, layer.bias, **options)
    assert torch.equal(layer(x), expected)
    (expected_grad,) = torch.autograd.grad(expected.square().sum(), layer.mu)
    (grad,) = torch.autograd.grad(layer(x).square().sum(), layer.mu)
    assert torch.equal(grad, expected_grad)


def test_the_general_form_is_its_operator_and_learns_a_sigma_per_unit():
    layer, x = layer_and_input(form="gaussian", window=9, bias=False)
    assert torch.equal(layer(x), dau_conv2d_gaussian(x, layer.weight, layer.mu, layer.sigma, window=9))
    layer(x).square().sum().backward()
    assert layer.sigma.grad.shape == layer.weight.shape and layer.sigma.grad.abs().min() > 0


def test_a_learned_sigma_is_one_parameter_and_gets_a_gradient():
    layer, x = layer_and_input(learn_sigma=True)
    layer(x).square().sum().backward()
    assert layer.sigma.shape == (1,) and layer.sigma.grad.abs() > 0


@pytest.mark.parametrize(
    ("units", "limit", "expected"),
    [
        (4, 4.0, {(y, x) for y in (-1.75, 1.75) for x in (-1.75, 1.75)}),
        (2, 4.0, {(0.0, -1.75), (0.0, 1.75)}),
        (1, 4.0, {(0.0, 0.0)}),
        ((3, 1), 4.0, {(-7 / 3, 0.0), (0.0, 0.0), (7 / 3, 0.0)}),
        (4, 8.0, {(y, x) for y in (-3.75, 3.75) for x in (-3.75, 3.75)}),
    ],
)
def test_the_grid_is_arranged_as_intended(units, limit, expected):
    mu = DAUConv2d(2, 3, units, max_displacement=limit).mu
    for out in range(3):
        points = {(round(y, 5), round(x, 5)) for y, x in mu[:, out, 1].T.tolist()}
        assert points == {(round(y, 5), round(x, 5)) for y, x in expected}


def test_six_units_make_two_rows_of_three():
    y, x = grid_points(2, 3, 3.0)
    assert len(set(y.tolist())) == 2 and len(set(x.tolist())) == 3
    assert DAUConv2d(1, 1, 6).initialization == {"name": "grid", "rows": 2, "columns": 3, "extent": 3.0, "scale": 1.0}


@pytest.mark.parametrize("groups", [1, 4])
def test_two_units_start_on_diagonals_that_take_turns(groups):
    mu = DAUConv2d(4, 8, 2, init={"name": "diagonals", "extent": 1.5, "scale": 2.0}, groups=groups).mu
    places = [[{tuple(point) for point in mu[:, o, c].T.tolist()} for c in range(mu.shape[2])] for o in range(8)]
    falling, rising = {(-2.0, -2.0), (2.0, 2.0)}, {(-2.0, 2.0), (2.0, -2.0)}
    for o, row in enumerate(places):
        assert row == [(falling, rising)[(o + c) % 2] for c in range(4 // groups)]
    assert DAUConv2d(1, 1, 2, init="diagonals").mu.flatten().tolist() == [-1.75, 1.75] * 2  # corners of four units


def test_random_initialisers_fill_their_range():
    torch.manual_seed(0)
    uniform = DAUConv2d(30, 30, 4, init={"name": "uniform", "low": -1.0, "high": 2.0}).mu
    assert -1 <= uniform.min() < -0.99 and 1.99 < uniform.max() <= 2
    normal = DAUConv2d(30, 30, 4, init="normal").mu
    count = normal.numel()  # three standard errors
    assert abs(normal.mean()) < 3 * 0.5 / math.sqrt(count)
    assert abs(normal.std() - 0.5) < 3 * 0.5 / math.sqrt(2 * count)


def test_weights_follow_glorots_rule():
    torch.manual_seed(0)
    weight = DAUConv2d(96, 64, 4).weight
    expected = math.sqrt(2 / (96 * 4 + 64 * 4))
    assert abs(weight.std() - expected) < 3 * expected / math.sqrt(2 * weight.numel())


@pytest.mark.parametrize("form", ["bilinear", "gaussian"])
def test_dropping_zero_units_leaves_the_output_and_state_unchanged(form):
    layer, x = layer_and_input(form=form, window=9 if form == "gaussian" else None)
    keep = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    with torch.no_grad():
        layer.weight.mul_(keep)
    expected = layer(x)
    layer.keep_units(keep)
    assert layer.weight.numel() == int(keep.sum()) and layer.is_ragged
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5 * float(expected.detach().abs().max()))
    torch.testing.assert_close(layer.unit_counts, keep.sum(-1).flatten())

    other = DAUConv2d(3, 5, 4, form=form, window=layer.window)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_a_ragged_layer_trains_a_step_and_can_be_pruned_again():
    layer, x = layer_and_input()
    layer.keep_units(layer.weight.abs() > layer.weight.abs().median())
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    optimizer = torch.optim.SGD(parameter_groups(layer, 0.1, 0.1, 0.0), lr=0.1)
    layer(x).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(before[name], p) for name, p in layer.named_parameters())
    units = layer.weight.numel()
    layer.keep_units(torch.arange(units) % 2 == 0)
    assert layer.weight.numel() == (units + 1) // 2 and layer(x).shape == (2, 5, 9, 7)


def test_loading_a_ragged_state_keeps_the_parameters_that_an_optimiser_holds():
    layer, _ = layer_and_input()
    other = copy.deepcopy(layer)
    other.keep_units(other.weight > 0)
    held = dict(layer.named_parameters())
    layer.load_state_dict(other.state_dict())
    assert all(parameter is held[name] for name, parameter in layer.named_parameters())
    assert torch.equal(layer.weight, other.weight)


def test_a_ragged_layer_adopts_a_dense_state():
    dense, x = layer_and_input()
    ragged = copy.deepcopy(dense)
    ragged.keep_units(ragged.weight > 0)
    ragged.load_state_dict(dense.state_dict())
    assert not ragged.is_ragged and torch.equal(ragged(x), dense(x))


def test_pairs_with_more_than_255_units_survive_the_state():
    layer = DAUConv2d(1, 1, 300)
    layer.keep_units(torch.arange(300).reshape(1, 1, 300) != 7)
    assert layer.state_dict()["unit_counts"].dtype == torch.uint16
    other = DAUConv2d(1, 1, 300)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, layer.weight)


def test_a_state_whose_counts_do_not_add_up_is_refused():
    layer, _ = layer_and_input()
    layer.keep_units(layer.weight > 0)
    state = layer.state_dict()
    state["unit_counts"] = state["unit_counts"][:-1]
    with pytest.raises(ValueError, match="unit_counts holds 14 pairs"):
        DAUConv2d(3, 5, 4).load_state_dict(state)


def test_half_leaves_parameters_in_float32():
    layer, x = layer_and_input()
    expected = layer(x.half())
    assert {p.dtype for p in layer.half().parameters()} == {torch.float32}
    assert torch.equal(layer(x.half()), expected) and expected.dtype == torch.float16
    assert layer.double().mu.dtype == torch.float64


def test_the_layer_pickles_and_prints():
    layer, x = layer_and_input(stride=2, bias=False)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), layer(x))
    assert repr(layer) == "DAUConv2d(3, 5, units=4, max_displacement=4.0, sigma=0.5, stride=(2, 2), bias=False)"


def test_parameter_groups_decay_weights_only_and_give_mu_its_rate():
    model = nn.Sequential(
        DAUConv2d(3, 4, 2, learn_sigma=True), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2)
    )
    model[2].weight = nn.Parameter(model[2].weight.detach())
    groups = {group["name"]: group for group in parameter_groups(model, lr=0.01, mu_lr=5.0, weight_decay=0.1)}
    assert {id(p) for p in groups["weights"]["params"]} == {id(model[i].weight) for i in (0, 2, 4)}
    assert {id(p) for p in groups["mu"]["params"]} == {id(model[0].mu)}
    assert sum(len(group["params"]) for group in groups.values()) == len(list(model.parameters()))
    assert {name: (g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "weights": (0.01, 0.1),
        "others": (0.01, 0.0),
        "mu": (5.0, 0.0),
    }


@pytest.mark.parametrize("wrong", ["Auto", None, True, -1, -0.1, math.nan, math.inf, 1j, [0.1]])
def test_rates_are_finite_numbers_that_are_not_negative(wrong):
    layer = DAUConv2d(1, 1, 2)
    with pytest.raises(ValueError, match=r'^mu_lr must be a finite number of at least 0 or "auto", got '):
        parameter_groups(layer, lr=0.01, mu_lr=wrong, weight_decay=0.0)
    with pytest.raises(ValueError, match=r"^lr must be a finite number of at least 0, got "):
        parameter_groups(layer, lr=wrong, mu_lr=0.1, weight_decay=0.0)
    rates = torch.tensor(0.5), np.float32(0.25)
    groups = parameter_groups(layer, lr=rates[0], mu_lr=rates[1], weight_decay=0.0)
    assert {group["name"]: float(group["lr"]) for group in groups}["mu"] == 0.25


@pytest.mark.parametrize(("steps", "pixels"), [(1, 0.1), (25, 0.1), (400, 0.05), (10_000, 0.01)])
def test_for_adam_the_automatic_rate_is_pixels_by_the_number_of_steps(steps, pixels):
    model = nn.Sequential(DAUConv2d(1, 4, 2), DAUConv2d(4, 40, 3))
    groups = parameter_groups(model, lr=0.01, mu_lr="auto", weight_decay=0.0, steps=steps)
    (mu,) = [group for group in groups if group["name"] == "mu"]
    assert mu["lr"] == pytest.approx(pixels, rel=1e-12) and len(mu["params"]) == 2


@pytest.mark.parametrize(("steps", "mu_lr"), [(0, "auto"), (-3, "auto"), (math.nan, "auto"), ("x", "auto"), (100, 0.1)])
def test_a_number_of_steps_that_says_nothing_of_the_rate_is_refused(steps, mu_lr):
    with pytest.raises(ValueError, match=rf'steps must be at least 1, with mu_lr="auto", got {steps!r} and '):
        parameter_groups(DAUConv2d(1, 1, 2), lr=0.01, mu_lr=mu_lr, weight_decay=0.0, steps=steps)


def test_projection_clamps_displacements_per_axis_and_learned_sigmas():
    free, limited = DAUConv2d(1, 1, 2, max_displacement=None), DAUConv2d(1, 1, 2, learn_sigma=True)
    with torch.no_grad():
        for layer in (free, limited):
            layer.mu.copy_(torch.tensor([[9.0, -9.0], [1.0, 4.5]]).reshape(2, 1, 1, 2))
        limited.sigma.fill_(7)
    project_displacements(nn.ModuleList([free, limited]))
    assert free.mu.abs().max() == 9
    assert limited.mu.flatten().tolist() == [4, -4, 1, 4]
    assert torch.equal(limited.sigma, torch.tensor([1.6]))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"units": 0}, "units must be positive"),
        ({"groups": 2}, "multiples of groups"),
        ({"init": "spiral"}, "init must name one of"),
        ({"init": {"name": "uniform", "lo": 1}}, r"no option \['lo'\]"),
        ({"init": "diagonals", "units": 3}, "init 'diagonals' is for two units per pair, got 3; others"),
        ({"init": {"name": "grid", "rows": 2, "columns": 2}}, "'grid' of 2 x 2 points is not for 2 units per pair"),
        ({"init": {"name": "grid", "rows": -1, "columns": -2}}, "'grid' of -1 x -2 points is not for 2"),
        ({"init": {"name": "grid", "rows": 1.0}}, "rows of init 'grid' must be an integer, got 1.0"),
        ({"init": {"name": "uniform", "low": "x"}}, "low of init 'uniform' must be a finite number, got 'x'"),
        ({"init": {"name": "uniform", "low": 2}}, "low of init 'uniform' must be at most its high, got 2 and 1.5"),
        ({"init": {"name": "normal", "std": -1}}, "std of init 'normal' must be at least 0, got -1"),
        ({"init": {"name": "normal", "mean": math.nan}}, "mean of init 'normal' must be a finite number, got nan"),
        ({"init": {"name": "diagonals", "extent": True}}, "extent of init 'diagonals' must be a finite number"),
        ({"init": {"name": "diagonals", "extent": -1}}, "at least 0 and a positive scale, got -1 and 1.0"),
        ({"init": {"name": "grid", "scale": 0}}, "at least 0 and a positive scale, got 3.0 and 0"),
        ({"form": "gaussian", "window": 4}, "positive odd"),
        ({"form": "dense"}, "form must be"),
        ({"max_displacement": -1.0}, "max_displacement must be"),
        ({"max_displacement": math.inf}, "None .no limit. or within"),
        ({"stride": 0}, "stride must be"),
        ({"sigma": 0.0}, "sigma must be"),
        ({"sigma": 2.0, "learn_sigma": True}, r"within \[0.1, 1.6\]"),
        ({"mu_gradient": "none"}, "mu_gradient must be"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])  # where nothing is filled, too
def test_a_wrong_option_raises(options, match, device):
    with pytest.raises(ValueError, match=match), torch.device(device):
        DAUConv2d(3, 5, **{"units": 2, **options})


@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        ((3, 64, 3, 1, 1), {}, "three arguments by position, got 5; the third is the number of units"),
        ((3, 64), {"kernel_size": 3}, "no kernel_size: there is no window; units=2"),
        ((3, 64, 3), {"padding": 1}, r"no padding: .*ceil\(size / stride\)"),
        ((3, 64, 3), {"padding_mode": "zeros"}, "no padding_mode: outside the image"),
        ((3, 64, 3), {"device": "cpu"}, "no device: make the layer under torch.device"),
        ((3, 64, 3), {"dtype": torch.float64}, "no dtype: make the layer, then"),
        ((3, 64, 3), {"max_kernel_size": 9}, "no max_kernel_size: say max_displacement"),
        ((3, 64, 3), {"colour": 1}, "no colour: it has max_displacement, sigma"),
        ((3, 64), {}, "needs units"),
        (("3", 64, 3), {}, "in_channels must be an integer, got '3'"),
        ((3, 64, 2.0), {}, "units must be an integer"),
        ((3, 64, (1, 2, 3)), {}, "units must be an integer"),
        ((3, 64, 3), {"groups": None}, "groups must be an integer"),
        ((3, 64, 3), {"stride": 1.5}, "stride must be"),
        ((3, 64, 3), {"dilation": "2"}, "dilation must be"),
        ((3, 64, 3), {"sigma": torch.tensor(0.5)}, "sigma must be a number of pixels; learn_sigma"),
        ((3, 64, 3), {"max_displacement": "4"}, "max_displacement must be a number of pixels or None"),
        ((3, 64, 3), {"init": None}, "init must be a name"),
        ((3, 64, 3), {"form": "gaussian", "window": 9.0}, "window must be an integer"),
    ],
)
def test_what_comes_from_elsewhere_gets_one_sentence_that_says_what_to_write(arguments, options, match):
    with pytest.raises(TypeError, match=match):
        DAUConv2d(*arguments, **options)


@pytest.mark.parametrize("form", ["bilinear", "gaussian"])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 12, 24])
def test_a_layer_takes_its_own_channels_only(channels, ragged, form):
    layer = DAUConv2d(6, 4, 2, form=form, bias=False)
    if ragged:
        layer.keep_units(torch.rand(layer.weight.shape) < 0.7)
    assert layer(torch.zeros(1, 6, 5, 5)).shape == (1, 4, 5, 5)
    with pytest.raises(ValueError, match=f"takes 6 channels, got {channels}"):
        layer(torch.zeros(1, channels, 5, 5))


def test_fx_sees_the_layer_as_a_leaf_and_a_layer_alone_as_its_operator():
    layer, x = layer_and_input()
    network = nn.Sequential(layer, nn.ReLU())
    traced = torch.fx.symbolic_trace(network)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1"]
    alone = torch.fx.symbolic_trace(layer)
    assert dau_conv2d in [node.target for node in alone.graph.nodes]
    assert torch.equal(traced(x), network(x)) and torch.equal(alone(x), layer(x))


@pytest.fixture
def unnoticed(monkeypatch):
    monkeypatch.setattr("daukit.nn.notices._noticed", False)


@pytest.mark.parametrize(
    ("limit", "place", "match"),
    [
        (4.0, 4.5, r"30 of 60 units .* beyond max_displacement \(4 pixels\), the farthest at 4.5; call daukit.project"),
        (None, 7.0, r"30 of 60 units .* outside the map of 9 x 7 pixels"),
    ],
)
def test_forgotten_projection_is_noticed_once_and_only_in_training(unnoticed, recwarn, limit, place, match):
    layer, x = layer_and_input(max_displacement=limit)
    with torch.no_grad():
        layer.mu.zero_()
        layer.mu[1, :, :, 2:] = place
    layer.eval()(x)
    with torch.no_grad():
        layer.train()(x)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=match):
        for _ in range(16):
            layer(x)
    for _ in range(48):
        layer(x)
    assert not recwarn.list


def test_a_unit_that_leaves_its_limit_while_training_is_noticed_and_a_projected_one_is_not(unnoticed):
    layer, x = layer_and_input(max_displacement=2.0)
    for _ in range(17):
        project_displacements(layer)
        layer(x)
    with torch.no_grad():
        layer.mu += 3
    with pytest.warns(UserWarning, match="beyond max_displacement"):
        for _ in range(16):
            layer(x)


@pytest.mark.parametrize("init", ["uniform", {"name": "normal", "std": 3.0}, {"name": "diagonals", "extent": 9}])
def test_units_start_within_their_limit(init):
    torch.manual_seed(0)
    layer = DAUConv2d(4, 4, 2, max_displacement=0.75, init=init)
    assert layer.mu.abs().max() == 0.75
