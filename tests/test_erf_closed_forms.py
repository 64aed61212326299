"""Effective receptive fields that theory knows: linear stacks, Gaussians, displaced units."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

import daukit
from daukit.erf import ReceptiveField, effective_receptive_field

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


@pytest.mark.parametrize(
    ("layers", "kernel", "expected"),
    [(5, 3, 1.8257), (10, 3, 2.5820), (20, 3, 3.6515), (10, 5, 4.4721), (20, 5, 6.3246)],
)
def test_uniform_stacks_have_the_spread_of_luo_et_al(layers, kernel, expected):
    stack = uniform(nn.Sequential(*(nn.Conv2d(1, 1, kernel, padding=kernel // 2) for _ in range(layers))))
    field = field_of(stack, (2 * layers * kernel + 1,) * 2)
    exact = math.sqrt(layers * (kernel**2 - 1) / 12)
    rounding = 4 * layers * kernel**2 * EPS  # one multiplication and one addition per tap and layer, twice
    assert exact == pytest.approx(expected, abs=5e-5)
    assert field.std == pytest.approx((exact, exact), rel=rounding)


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "kernel"), [(5, 3), (10, 3)])
def test_squares_of_random_linear_stacks_have_the_spread_of_luo_et_al_in_expectation(layers, kernel):
    """Squares of products of independent weights add up as uniform weights do; the mean is over 40 networks."""
    side, networks, channels = layers * (kernel - 1) + 3, 40, 16
    variance = torch.zeros(2, dtype=torch.float64)
    for _ in range(networks):
        widths = [1, *[channels] * layers]
        convolutions = [nn.Conv2d(i, o, kernel, padding=kernel // 2, bias=False) for i, o in pairwise(widths)]
        stack = nn.Sequential(*convolutions).double()
        (field,) = effective_receptive_field(
            stack, str(layers - 1), torch.ones(1, 1, side, side, dtype=torch.float64), "squared"
        )
        variance += torch.tensor(field.std, dtype=torch.float64) ** 2 / networks
    exact = math.sqrt(layers * (kernel**2 - 1) / 12)
    assert variance.sqrt().tolist() == pytest.approx([exact, exact], rel=0.03)


def test_contours_of_a_gaussian_have_the_radii_of_theory():
    sigma, reach = 100.0, 600
    axis = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
    field = ReceptiveField.of("gaussian", axis[:, None] * axis, (600.0, 600.0))
    for contour in field.contours:
        theory = sigma * math.sqrt(-2 * math.log(1 - contour.mass))
        # A pixel belongs to the disc by its middle, and half its diagonal may stick out: once for mass, once for area.
        assert contour.radius == pytest.approx(theory, abs=math.sqrt(2))
        assert contour.reach == pytest.approx(theory, abs=math.sqrt(2))
        assert contour.radius == pytest.approx(theory, rel=0.01)


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
