"""Effective receptive fields against a naive loop and hand-built networks; what the function promises its callers."""

import math

import pytest
import torch
from torch import nn

import daukit
from daukit.erf import ReceptiveField, default_layers, effective_receptive_field, fitting_size, random_inputs
from daukit.errors import NetworkError

EPS = torch.finfo(torch.float64).eps


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def naive(model, inputs, layer, reduce):
    """One image, one channel, one backward pass at a time."""
    total = torch.zeros(inputs.shape[2:], dtype=torch.float64)
    for image in inputs:
        leaf = image[None].clone().requires_grad_()
        output = model[: list(dict(model.named_children())).index(layer) + 1](leaf)
        for channel in output[0, :, output.shape[2] // 2, output.shape[3] // 2]:
            (gradient,) = torch.autograd.grad(channel, leaf, retain_graph=True)
            total += reduce(gradient[0]).sum(0)
    return total.abs() / total.abs().sum()


REDUCTIONS = {"absolute": torch.abs, "squared": torch.square, "signed": lambda gradient: gradient}


@pytest.mark.parametrize("measure", REDUCTIONS)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batched_fields_of_several_layers_equal_a_loop_over_images_and_channels(measure, batch_size):
    model = daukit.create_model("shallow_dau", channels=[2, 3, 2], units=2, in_channels=2).double().eval()
    inputs = torch.randn(3, 2, 16, 13, dtype=torch.float64)
    fields = effective_receptive_field(model, ["conv2", "relu1"], inputs, measure, batch_size=batch_size)
    for field in fields:
        # 9 gradients of 2 channels, each through 2 layers of at most 2 units x 4 taps x 2 channels after 2 x 7 of blur.
        rounding = (9 * 2 + 2 * (16 + 14)) * EPS
        expected = naive(model, inputs, field.name, REDUCTIONS[measure])
        torch.testing.assert_close(field.map.abs(), expected, rtol=0, atol=rounding)


def test_the_three_measures_of_one_convolution_are_those_of_its_weights():
    conv = nn.Conv2d(2, 3, 3, padding=1, bias=False).double()
    weight = conv.weight.detach()
    patches = {"absolute": weight.abs(), "squared": weight**2, "signed": weight}
    for measure, patch in patches.items():
        expected = patch.sum((0, 1)) / patch.sum((0, 1)).abs().sum()
        (field,) = effective_receptive_field(conv, "", torch.randn(1, 2, 7, 7, dtype=torch.float64), measure)
        # Sums of 6 and of 9 numbers in another order; the signed ones cancel, so that the bound is on the largest.
        torch.testing.assert_close(field.map[2:5, 2:5], expected, rtol=0, atol=15 * EPS)
        assert float(field.map.abs().sum()) == pytest.approx(1, abs=15 * EPS)


@pytest.mark.parametrize("measure", REDUCTIONS)
@pytest.mark.parametrize("scale", [2.0**27, 2.0**-100])
def test_a_power_of_two_in_the_gradients_scale_changes_no_bit(measure, scale):
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.Conv2d(4, 3, 5))
    inputs = torch.randn(2, 1, 15, 15)
    (before,) = effective_receptive_field(model, "2", inputs, measure)
    model[2].weight.data *= scale
    (after,) = effective_receptive_field(model, "2", inputs, measure)
    assert torch.equal(before.map, after.map)
    assert before.contours == after.contours


class Scaled(nn.Module):
    """A network whose output is multiplied."""

    def __init__(self, model, scale):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x):
        return self.model(x) * self.scale


@pytest.mark.parametrize("measure", REDUCTIONS)
@pytest.mark.parametrize("scale", [1e8, 1e-30])
def test_no_number_depends_on_the_scale_of_the_gradient(measure, scale):
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), daukit.DAUConv2d(4, 3, 2))
    inputs = torch.randn(3, 1, 35, 35)
    before, after = (effective_receptive_field(Scaled(model, s), "", inputs, measure)[0] for s in (1.0, scale))
    torch.testing.assert_close(after.map, before.map, rtol=0, atol=1e-6 * float(before.map.abs().max()))
    for numbers in ("centroid", "std", "border_mass"):
        assert getattr(after, numbers) == pytest.approx(getattr(before, numbers), rel=1e-6, abs=1e-6)
    for one, other in zip(before.contours, after.contours, strict=True):
        assert other.radius == pytest.approx(one.radius, rel=1e-6)
        assert other.area_interval == one.area_interval


def test_a_contour_encloses_the_fewest_pixels_that_hold_its_share():
    map = torch.tensor([[5.0, 1.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    field = ReceptiveField.of("hand", -map, None, masses=(0.95, 0.4, 0.5, 0.8, 0.9, 1.0))
    assert [(c.mass, c.area) for c in field.contours] == [(0.4, 1), (0.5, 1), (0.8, 2), (0.9, 3), (0.95, 4), (1.0, 4)]
    assert [c.level for c in field.contours] == pytest.approx([0.5, 0.5, 0.3, 0.1, 0.1, 0.1])
    assert field.contours[3].radius == pytest.approx(math.sqrt(3 / math.pi))
    assert field.centroid == pytest.approx((0.4, 0.2))
    assert field.std == pytest.approx((math.sqrt(0.24), math.sqrt(0.16)))


def test_the_reach_is_the_disc_about_the_chosen_origin_that_holds_the_share():
    map = torch.zeros(7, 9, dtype=torch.float64)
    map[3, 2], map[3, 6] = 3.0, 1.0  # the centroid lies at (3, 3)
    about_center = ReceptiveField.of("hand", map, (3.0, 4.0), masses=(0.5, 1.0))
    about_centroid = ReceptiveField.of("hand", map, (3.0, 4.0), masses=(0.5, 1.0), about="centroid")
    nowhere = ReceptiveField.of("hand", map, None, masses=(0.5, 1.0))
    assert (about_center.origin, [c.reach for c in about_center.contours]) == ((3.0, 4.0), [2.0, 2.0])
    assert (about_centroid.origin, [c.reach for c in about_centroid.contours]) == ((3.0, 3.0), [1.0, 3.0])
    assert nowhere.origin == nowhere.centroid and nowhere.contours == about_centroid.contours


def test_equal_pixels_are_counted_only_as_far_as_the_share_needs():
    field = ReceptiveField.of("flat", torch.full((10, 10), 0.1, dtype=torch.float64), None)
    assert [c.area for c in field.contours] == [25, 50, 75, 100]


def test_influence_on_the_border_is_reported_and_the_field_called_clipped():
    conv = nn.Conv2d(1, 1, 5, padding=2, bias=False)
    nn.init.constant_(conv.weight, 0.25)
    clipped, whole = (effective_receptive_field(conv, "", torch.ones(1, 1, size, size))[0] for size in (5, 7))
    assert (clipped.border_mass, clipped.clipped) == (pytest.approx(16 / 25), True)
    assert (whole.border_mass, whole.clipped) == (0.0, False)


def test_the_model_is_left_as_it_was_even_when_its_forward_pass_fails():
    model = daukit.create_model("shallow_dau", channels=[2, 2, 2], units=1)
    model.train()
    model.bn1.eval()
    model.conv2.weight.requires_grad_(False)
    model(torch.randn(2, 1, 28, 28)).sum().backward()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    effective_receptive_field(model, "conv3", torch.randn(2, 1, 28, 28))
    with pytest.raises(NetworkError, match="takes 1 channels, got 3"):
        effective_receptive_field(model, "conv3", torch.randn(2, 3, 28, 28))
    assert [name for name, module in model.named_modules() if not module.training] == ["bn1"]
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["conv2.weight"]
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (grads[name] is None)
        assert parameter.grad is None or torch.equal(parameter.grad, grads[name])


class InPlaceAndTwice(nn.Module):
    """Changes its input and its layer's output in place, and calls the layer twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        x -= 1.0
        x = self.conv(x).relu_().mul_(3.0)
        return self.conv(x).relu_()


def test_layers_changed_in_place_and_called_twice_count_by_their_own_first_output():
    model, inputs = InPlaceAndTwice().double(), torch.randn(2, 1, 9, 9, dtype=torch.float64)
    original = inputs.clone()
    (field,) = effective_receptive_field(model, "conv", inputs)
    weight = model.conv.weight.detach()[0, 0].abs()
    torch.testing.assert_close(field.map[3:6, 3:6], weight / weight.sum(), rtol=8 * EPS, atol=0)
    assert torch.equal(inputs, original)


def test_the_forward_pass_stops_at_the_last_layer_so_that_a_linear_head_never_sees_another_size():
    model = daukit.create_model("shallow_dau", channels=[4, 4, 4], units=1)
    model.classifier.register_forward_hook(lambda *_: pytest.fail("the head was reached"))
    fields = effective_receptive_field(model, ["conv3", "conv1"], torch.randn(2, 1, 41, 37))
    assert [(field.name, tuple(field.map.shape)) for field in fields] == [("conv3", (41, 37)), ("conv1", (41, 37))]


def test_inputs_that_the_model_cannot_take_are_an_error_that_names_their_shape():
    with pytest.raises(NetworkError, match=r"failed on \(1, 3, 8, 8\)"):
        effective_receptive_field(nn.Conv2d(1, 1, 3), "", torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_does_not_matter(context):
    conv = nn.Conv2d(1, 2, 3)
    inputs = torch.randn(1, 1, 5, 5)
    (expected,) = effective_receptive_field(conv, "", inputs)
    with context():
        (field,) = effective_receptive_field(conv, "", inputs)
    assert torch.equal(field.map, expected.map)


def test_progress_counts_the_backward_passes():
    calls = []
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Conv2d(5, 3, 3))
    inputs = torch.randn(3, 1, 9, 9)
    effective_receptive_field(model, ["0", "1"], inputs, batch_size=2, on_batch=lambda *call: calls.append(call))
    # Three images, two channels of each at a time: 3 + 2 passes an image.
    assert calls == [(i, 15) for i in range(1, 16)]


class Headless(nn.Module):
    """A module that is never called, one that flattens, one that cuts the graph, one that is dead."""

    def __init__(self):
        super().__init__()
        self.conv1, self.unused, self.dead = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 1, 1), nn.Conv2d(2, 1, 1)
        self.flat, self.cut = nn.Flatten(), nn.Identity()
        nn.init.zeros_(self.dead.weight)

    def forward(self, x):
        y = self.dead(self.conv1(x))
        self.cut(y.detach())
        return self.flat(y)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("conv2", "no layer 'conv2'; did you mean 'conv1'"),
        ("unused", "did not reach the layers"),
        ("flat", r"must give maps"),
        ("cut", "does not depend on the input"),
        ("dead", "nothing influences the probed output"),
    ],
)
def test_a_layer_without_a_field_is_an_error_that_says_why(layer, message):
    with pytest.raises(ValueError, match=message):
        effective_receptive_field(Headless(), layer, torch.randn(1, 1, 8, 8))


def test_weights_that_are_not_finite_are_an_error():
    conv = nn.Conv2d(1, 1, 3)
    conv.weight.data[0, 0, 1, 1] = math.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        effective_receptive_field(conv, "", torch.randn(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)}, "floating-point"),
        ({"inputs": torch.zeros(0, 1, 8, 8)}, "floating-point"),
        ({"measure": "relu"}, "measure must be one of"),
        ({"masses": (0.5, 1.5)}, "within"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"layers": []}, "at least one layer"),
    ],
)
def test_arguments_that_break_a_rule_are_errors(options, message):
    arguments = {"layers": "", "inputs": torch.randn(1, 1, 8, 8), **options}
    with pytest.raises(ValueError, match=message):
        effective_receptive_field(nn.Conv2d(1, 1, 3), **arguments)


def test_dau_layers_are_probed_by_default_and_convolutions_where_there_are_none():
    assert default_layers(daukit.create_model("shallow_dau", channels=[2, 2, 2])) == ["conv1", "conv2", "conv3"]
    assert default_layers(daukit.create_model("shallow", channels=[2, 2, 2])) == ["conv1", "conv2", "conv3"]
    assert default_layers(nn.Sequential(nn.Linear(2, 2))) == []


def test_score_layers_of_zeros_are_probed_only_where_there_is_nothing_else():
    untrained = daukit.create_model("shallow", task="segmentation", in_channels=1, channels=[2, 2, 2])
    assert not untrained.score.weight.any()
    layers = default_layers(untrained)
    assert layers == ["conv1", "conv2", "conv3"]
    fields = effective_receptive_field(untrained, layers, torch.randn(1, 1, 24, 24))
    assert all(field.map.isfinite().all() for field in fields)
    assert default_layers(nn.Sequential(untrained.score)) == ["0"]


def test_random_inputs_repeat_with_their_seed_and_have_the_models_channels():
    model = nn.Sequential(nn.Conv2d(3, 2, 1))
    first, again, other = (random_inputs(model, 4, (5, 6), seed) for seed in (1, 1, 2))
    assert first.shape == (4, 3, 5, 6)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(ValueError, match="no 2-D convolution"):
        random_inputs(nn.Identity(), 1, (2, 2), 0)


def test_the_input_is_doubled_until_it_holds_the_fields_or_is_large_enough():
    conv = nn.Conv2d(1, 1, 13, padding=6)
    assert fitting_size(conv, [""], (4, 5), 0) == (16, 20)
    assert fitting_size(nn.Conv2d(1, 1, 3, padding=1), [""], (200, 8), 0) == (200, 8)
