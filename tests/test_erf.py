"""Effective receptive fields against closed forms, a naive loop, and hand-built networks."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import daukit
from daukit.cli.figures import save_figure
from daukit.erf import ReceptiveField, default_layers, effective_receptive_field, fitting_size, random_inputs
from daukit.plots.erf import Panel, plot_receptive_fields

EPS = torch.finfo(torch.float64).eps


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def uniform(model, dtype=torch.float64):
    """The model with equal positive weights in every convolution and no biases."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 0.25)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model.to(dtype)


def field_of(model, size, layer=None, **options):
    layer = layer or list(dict(model.named_modules()))[-1]
    inputs = torch.ones(1, 1, *size, dtype=torch.float64)
    (field,) = effective_receptive_field(model, layer, inputs, **options)
    return field


def one_unit(mu, **options):
    layer = daukit.DAUConv2d(1, 1, 1, max_displacement=None, bias=False, **options).double()
    layer.mu.data[:] = torch.tensor(mu, dtype=torch.float64)[:, None, None, None]
    layer.weight.data.fill_(1.0)
    return layer


def blur_variance(sigma, radius):
    taps = [math.exp(-(t**2) / (2 * sigma**2)) for t in range(-radius, radius + 1)]
    return sum(w * t**2 for w, t in zip(taps, range(-radius, radius + 1), strict=True)) / sum(taps)


@pytest.mark.parametrize(("layers", "kernel", "expected"), [(5, 3, 1.8257), (10, 3, 2.5820), (10, 5, 4.4721)])
def test_uniform_stacks_have_the_spread_of_luo_et_al(layers, kernel, expected):
    stack = uniform(nn.Sequential(*(nn.Conv2d(1, 1, kernel, padding=kernel // 2) for _ in range(layers))))
    field = field_of(stack, (2 * layers * kernel + 1,) * 2)
    exact = math.sqrt(layers * (kernel**2 - 1) / 12)
    rounding = 4 * layers * kernel**2 * EPS  # one multiplication and one addition per tap and layer, twice
    assert exact == pytest.approx(expected, abs=5e-5)
    assert field.std == pytest.approx((exact, exact), rel=rounding)


def test_contours_of_a_gaussian_have_the_radii_of_theory():
    sigma, reach = 100.0, 600
    axis = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
    field = ReceptiveField.of("gaussian", axis[:, None] * axis, None)
    for contour in field.contours:
        theory = sigma * math.sqrt(-2 * math.log(1 - contour.mass))
        # A pixel belongs to the disc by its middle, and half its diagonal may stick out: once for mass, once for area.
        assert contour.radius == pytest.approx(theory, abs=math.sqrt(2))


def test_linear_dau_stacks_have_the_mean_and_variance_of_their_units():
    generator = torch.Generator().manual_seed(3)
    layers, strides = [], (1, 2, 1)
    for stride in strides:
        layer = daukit.DAUConv2d(1, 1, 3, max_displacement=None, stride=stride, bias=False).double()
        layer.weight.data.uniform_(0.1, 1.0, generator=generator)
        layer.mu.data.uniform_(-2.5, 2.5, generator=generator)
        layers.append(layer)
    field = field_of(nn.Sequential(*layers), (81, 84))
    step, mean, variance = 1, torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for layer, stride in zip(layers, strides, strict=True):
        weight, mu = layer.weight.detach().flatten(), layer.mu.detach().reshape(2, -1)
        share, fraction = weight / weight.sum(), mu - mu.floor()
        center = mu @ share
        spread = ((mu - center[:, None]) ** 2) @ share + (fraction * (1 - fraction)) @ share
        variance += step**2 * (spread + blur_variance(0.5, 3))
        mean += step * center
        step *= stride
    rounding = 3 * 3 * (49 + 4) * EPS  # layers, units, taps of blur and of interpolation
    assert field.border_mass == 0
    assert field.center == (40.0, 42.0)
    for axis in (0, 1):  # positions are below 84
        assert field.centroid[axis] - field.center[axis] == pytest.approx(float(mean[axis]), abs=84 * rounding)
        assert field.std[axis] ** 2 == pytest.approx(float(variance[axis]), abs=84**2 * rounding)


@pytest.mark.parametrize("form", ["bilinear", "gaussian"])
def test_a_unit_reads_at_its_displacement(form):
    field = field_of(one_unit((2.0, -1.0), form=form, window=15 if form == "gaussian" else None), (21, 24))
    assert field.center == (10.0, 12.0)
    assert field.centroid == pytest.approx((12.0, 11.0), abs=24 * 100 * EPS)


def test_a_dilated_strided_unit_reads_at_stride_times_position_plus_dilation_times_displacement():
    field = field_of(one_unit((1.0, -2.0), stride=3, dilation=2), (41, 41))
    assert field.center == (21.0, 21.0)  # 14 outputs; the probed one is the 7th
    assert field.centroid == pytest.approx((23.0, 17.0), abs=41 * 100 * EPS)


NETWORKS = {
    "odd kernels": nn.Sequential(nn.Conv2d(1, 1, 5, padding=2), nn.Conv2d(1, 1, 3, stride=2, padding=1)),
    "even kernels": nn.Sequential(nn.Conv2d(1, 1, 4, padding=1), nn.Conv2d(1, 1, 2, stride=2)),
    "valid windows": nn.Sequential(nn.Conv2d(1, 1, 3), nn.AvgPool2d(3, 2), nn.Conv2d(1, 1, 3)),
    "dilation": nn.Sequential(nn.Conv2d(1, 1, 3, dilation=3, padding=1), nn.Conv2d(1, 1, 2, dilation=2)),
    "uneven axes": nn.Sequential(nn.Conv2d(1, 1, (3, 5), stride=(2, 3), padding=(0, 2)), nn.Conv2d(1, 1, 3)),
    "padding modules": nn.Sequential(nn.ZeroPad2d((3, 0, 1, 2)), nn.ReflectionPad2d(1), nn.Conv2d(1, 1, 3)),
    "replicated border": nn.Sequential(nn.ReplicationPad2d((2, 0, 0, 1)), nn.Conv2d(1, 1, 3, padding=1)),
    "strides of 32": nn.Sequential(*(nn.Conv2d(1, 1, 3, stride=2, padding=1) for _ in range(5))),
    "adaptive pool": nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.AdaptiveAvgPool2d(16)),
    "same padding": nn.Sequential(nn.Conv2d(1, 1, 5, padding="same"), nn.Conv2d(1, 1, 3)),
    "pool without a stride": nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.AvgPool2d(3)),
    "deconvolution": nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.ConvTranspose2d(1, 1, 4, 2, 1)),
    "nearest upsampling": nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Upsample(scale_factor=2)),
    "bilinear upsampling": nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear")),
    "aligned corners": nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1), nn.Upsample(size=(90, 81), mode="bilinear", align_corners=True)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(160, 160), (161, 163)])
def test_the_arithmetic_center_is_within_a_pixel_of_the_centroid_of_a_uniform_network(name, size):
    field = field_of(uniform(NETWORKS[name]), size)
    assert field.border_mass == 0
    assert all(abs(a - b) <= 1 for a, b in zip(field.center, field.centroid, strict=True))


class Residual(nn.Module):
    """A stride-2 block with a 1x1 shortcut and a gate, as in residual networks."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(2, 2, 1, stride=2)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return torch.relu_(y * y.mean((2, 3), keepdim=True).sigmoid() + self.shortcut(x))


def test_a_residual_network_at_224_looks_at_pixel_96_not_at_the_middle():
    stem = nn.Sequential(nn.Conv2d(1, 2, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1))
    model = nn.Sequential(stem, Residual(), Residual(), Residual())
    (field,) = effective_receptive_field(model, "3", torch.randn(1, 1, 224, 224), "signed")
    # A 7x7 map, so that 3 is probed: 3 * 32 by strides alone, since every window is padded to its middle.
    assert field.center == (96.0, 96.0)


def test_a_center_is_not_made_up_where_tokens_were_reshaped():
    class Tokens(nn.Module):
        def forward(self, x):
            return x.flatten(2).transpose(1, 2).transpose(1, 2).reshape(x.shape)

    (field,) = effective_receptive_field(nn.Sequential(nn.Conv2d(1, 2, 3), Tokens()), "1", torch.randn(1, 1, 9, 9))
    assert field.center is None


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
def test_no_number_depends_on_the_scale_of_the_gradient(measure, scale):
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.Conv2d(4, 3, 5))
    inputs = torch.randn(2, 1, 15, 15)
    (before,) = effective_receptive_field(model, "2", inputs, measure)
    model[2].weight.data *= scale  # a power of two is exact
    (after,) = effective_receptive_field(model, "2", inputs, measure)
    assert torch.equal(before.map, after.map)
    assert before.contours == after.contours


def test_a_contour_encloses_the_fewest_pixels_that_hold_its_share():
    map = torch.tensor([[5.0, 1.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    field = ReceptiveField.of("hand", -map, None, masses=(0.95, 0.4, 0.5, 0.8, 0.9, 1.0))
    assert [(c.mass, c.area) for c in field.contours] == [(0.4, 1), (0.5, 1), (0.8, 2), (0.9, 3), (0.95, 4), (1.0, 4)]
    assert [c.level for c in field.contours] == pytest.approx([0.5, 0.5, 0.3, 0.1, 0.1, 0.1])
    assert field.contours[3].radius == pytest.approx(math.sqrt(3 / math.pi))
    assert field.centroid == pytest.approx((0.4, 0.2))
    assert field.std == pytest.approx((math.sqrt(0.24), math.sqrt(0.16)))


def test_equal_pixels_are_counted_only_as_far_as_the_share_needs():
    field = ReceptiveField.of("flat", torch.full((10, 10), 0.1, dtype=torch.float64), None)
    assert [c.area for c in field.contours] == [25, 50, 75, 100]


def test_influence_on_the_border_is_reported_and_the_field_called_clipped():
    conv = uniform(nn.Conv2d(1, 1, 5, padding=2, bias=False))
    clipped, whole = field_of(conv, (5, 5), layer=None), field_of(conv, (7, 7))
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
    with pytest.raises(ValueError, match="in_channels 3"):
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
    with pytest.raises(ValueError, match=r"failed on inputs \(16, 3, 8, 8\)"):
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
    # Two chunks of images, with one channel of each at a time.
    assert calls == [(i, 16) for i in range(1, 17)]


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
        ("flat", r"must give maps \(N, O, h, w\)"),
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


def panel(field, title="layer"):
    levels = {contour.mass: contour.level for contour in field.contours}
    return Panel(title, field.map.abs().numpy(), (3.5, 4.0), levels)


def crossings(polygon, point):
    """How many edges of a closed polygon a ray from ``point`` along x crosses."""
    (x, y), nodes = point, np.vstack([polygon, polygon[:1]])
    (x0, y0), (x1, y1) = nodes[:-1].T, nodes[1:].T
    across = (y0 > y) != (y1 > y)
    at = x0 + (y - y0) / np.where(across, y1 - y0, 1.0) * (x1 - x0)
    return int((across & (at > x)).sum())


@pytest.mark.parametrize("shape", [(9, 12), (1, 7)])
def test_every_drawn_contour_encloses_exactly_the_pixels_that_are_reported(shape):
    field = ReceptiveField.of(
        "noise", torch.randn(shape, dtype=torch.float64), None
    )  # ragged, and clipped on all sides
    figure = plot_receptive_fields([[panel(field)]])
    drawn = figure.axes[0].collections
    assert len(drawn) == len(field.contours)
    for contour, lines in zip(field.contours, drawn, strict=True):
        polygons = [polygon for path in lines.get_paths() for polygon in path.to_polygons()]
        centers = [(x - 4.0, y - 3.5) for y in range(shape[0]) for x in range(shape[1])]
        inside = [sum(crossings(polygon, point) for polygon in polygons) % 2 for point in centers]
        assert sum(inside) == contour.area


def test_networks_stand_in_columns_and_layers_in_rows_of_equal_limits():
    fields = [ReceptiveField.of("noise", torch.randn(9, size, dtype=torch.float64), None) for size in (5, 30)]
    networks = [[panel(field, f"{name} {i}") for i, field in enumerate(fields)] for name in ("a", "b")]
    figure = plot_receptive_fields([networks[0], networks[1][::-1]])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["a 0", "b 1", "a 1", "b 0"]
    for axes in figure.axes:
        assert axes.get_xlim() == figure.axes[0].get_xlim()
        assert axes.get_ylim() == axes.get_xlim()[::-1]  # y points down


def test_one_network_fills_rows_of_three_and_leaves_no_empty_axes():
    field = ReceptiveField.of("noise", torch.randn(5, 5, dtype=torch.float64), None)
    figure = plot_receptive_fields([[panel(field)] * 4])
    assert len(figure.axes) == 4
    assert [bool(axes.get_xlabel()) for axes in figure.axes] == [False, True, True, True]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_fields_give_the_same_bytes(tmp_path, suffix):
    field = ReceptiveField.of("noise", torch.randn(5, 5, dtype=torch.float64), None)
    for name in ("a", "b"):
        save_figure(plot_receptive_fields([[panel(field)]]), tmp_path / f"{name}.{suffix}", overwrite=False)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
