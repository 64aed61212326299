"""How sure the numbers are: random probes, and when enough images are enough (intervals: test_erf_intervals.py)."""

import math

import pytest
import torch
from torch import nn

from daukit.erf import effective_receptive_field


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_fields_that_do_not_depend_on_the_image_are_known_exactly():
    conv = nn.Conv2d(2, 3, 5).double()
    (field,) = effective_receptive_field(conv, "", torch.randn(9, 2, 11, 11, dtype=torch.float64), until_stable=0.02)
    assert field.images == 8
    for contour in field.contours:
        assert contour.radius_interval == pytest.approx((contour.radius, contour.radius))
        assert contour.area_interval == (contour.area, contour.area)
        assert contour.radius_error is None and contour.area_error is None


def network():
    return nn.Sequential(
        nn.Conv2d(2, 32, 5), nn.ReLU(), nn.Conv2d(32, 32, 5, 2), nn.ReLU(), nn.Conv2d(32, 64, 5), nn.ReLU()
    )


def test_images_are_added_until_the_half_mass_radii_are_stable():
    model, inputs = network(), torch.randn(64, 2, 37, 37)
    options = {"measure": "squared", "until_stable": 0.02}
    first, second = effective_receptive_field(model, ["2", "4"], inputs, **options)
    assert 8 <= first.images == second.images < 64
    again = effective_receptive_field(model, ["2", "4"], inputs[: first.images], "squared")
    for field, other in zip((first, second), again, strict=True):
        assert torch.equal(field.map, other.map) and field.contours == other.contours
        low, high = field.contours[1].radius_interval
        assert (high - low) / 2 <= 0.02 * field.contours[1].radius
        assert low <= field.contours[1].radius <= high


def test_the_last_image_ends_it_too():
    (field,) = effective_receptive_field(network(), "4", torch.randn(9, 2, 37, 37), until_stable=1e-6)
    assert field.images == 9


def test_one_image_has_no_interval():
    (field,) = effective_receptive_field(network(), "4", torch.randn(1, 2, 37, 37))
    assert all(c.radius_interval is None and c.area_interval is None and not c.is_stable(1) for c in field.contours)


def test_more_images_than_groups_add_up_to_the_same_map():
    model, inputs = network().double(), torch.randn(70, 2, 37, 37, dtype=torch.float64)
    (field,) = effective_receptive_field(model, "4", inputs, "signed")
    parts = [effective_receptive_field(model, "4", inputs[i : i + 1], "signed")[0] for i in (0, 69)]
    assert field.images == 70 and [part.images for part in parts] == [1, 1]
    leaf = inputs.requires_grad_()
    (gradient,) = torch.autograd.grad(model[:5](leaf)[:, :, 5, 5].sum(), leaf)  # of an 11x11 map
    expected = gradient.sum((0, 1))
    torch.testing.assert_close(field.map, expected / expected.abs().sum(), rtol=0, atol=1e-12)


def test_an_eighth_of_the_passes_gives_the_squared_contours_to_two_percent():
    model, inputs = network(), torch.randn(8, 2, 37, 37)
    passes = []
    fields = []
    for probes in (None, 8):
        calls = []
        fields += effective_receptive_field(
            model, "4", inputs, "squared", probes=probes, batch_size=1, on_batch=lambda *call, to=calls: to.append(call)
        )
        passes.append(len(calls))
    exact, probed = fields
    assert passes == [8 * 64, 8 * 8]
    for true, contour in zip(exact.contours, probed.contours, strict=True):
        assert contour.radius == pytest.approx(true.radius, rel=0.02)
        assert contour.area_error == pytest.approx(2 * math.pi * contour.radius * contour.radius_error)
        assert true.radius_error is None


def test_probes_of_all_channels_average_to_the_squared_measure():
    """Each pixel of the mean over many probes lies within 5 standard errors of the exact value."""
    conv = nn.Conv2d(1, 6, 3).double()
    probes = 4000
    (field,) = effective_receptive_field(
        conv, "", torch.randn(1, 1, 3, 3, dtype=torch.float64), "squared", probes=probes
    )
    weight = conv.weight.detach()[:, 0]
    square = (weight**2).sum(0)
    # Var[(sum_o s_o w_o)^2] = 2 ((sum w^2)^2 - sum w^4) for independent signs s_o.
    error = (2 * (square**2 - (weight**4).sum(0)) / probes).sqrt()
    ratio = field.map / field.map.sum() * square.sum()
    assert bool(((ratio - square).abs() <= 5 * (error + square * float(error.norm()) / square.sum())).all())


def test_the_error_of_probes_is_how_much_other_signs_would_change_the_radius():
    model, inputs = network(), torch.randn(2, 2, 37, 37)
    fields = [effective_receptive_field(model, "4", inputs, "squared", probes=16, seed=seed)[0] for seed in range(40)]
    for i in range(3):
        radii = torch.tensor([field.contours[i].radius for field in fields])
        stated = torch.tensor([field.contours[i].radius_error for field in fields]).median()
        # 40 draws know their standard deviation to 11 %, 16 probes theirs to 18 %: a factor of 2 is far outside.
        assert 0.5 < float(stated / radii.std()) < 2


def test_seeds_repeat():
    model, inputs = network(), torch.randn(4, 2, 37, 37)
    one, same, other = (
        effective_receptive_field(model, "4", inputs, "squared", probes=4, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(one.map, same.map) and one.contours == same.contours
    assert not torch.equal(one.map, other.map)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 4}, "squared measure only"),
        ({"probes": 0, "measure": "squared"}, "probes must be positive"),
        ({"until_stable": 0.0}, "positive share"),
        ({"about": "middle"}, "center or centroid"),
    ],
)
def test_arguments_that_break_a_rule_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        effective_receptive_field(network(), "4", torch.randn(1, 2, 37, 37), **options)
