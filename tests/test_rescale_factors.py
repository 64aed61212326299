"""Factors per layer against arithmetic on tensors: displacements, limits, starting points, windows and dilations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from rescaled import (
    built,
    checkpoint_of,
    factory_name,
    noise,
)
from torch import nn

import daukit
from daukit.checkpoint import Checkpoint, from_model
from daukit.pruning import prune
from daukit.rescale import compare, remove_pools, rescale_factors


def test_paper_scales_displacements_limits_and_starting_points() -> None:
    before = checkpoint_of("shallow_dau", channels=[2, 2, 2], units=2, max_displacement=3.0)
    after, report = rescale_factors(before, {"conv2": 2, "conv3": 1.5})
    for name, factor in (("conv1", 1), ("conv2", 2), ("conv3", 1.5)):
        assert torch.equal(after.tensors[f"{name}.mu"], factor * before.tensors[f"{name}.mu"])
    assert [layer["max_displacement"] for layer in after.header.layers] == [3, 6, 4.5]
    assert [layer["initialization"]["scale"] for layer in after.header.layers] == [1, 2, 1.5]
    assert [layer["dilation"] for layer in after.header.layers] == [[1, 1]] * 3
    assert [layer.factor for layer in report.layers] == [1, 2, 1.5]


@pytest.mark.parametrize("init", [{"name": "uniform", "low": -1.0, "high": 2.0}, {"name": "normal", "std": 0.5}])
def test_starting_points_of_other_initialisers_scale_by_their_lengths(init: dict[str, Any]) -> None:
    architecture = {"factory": factory_name(initialised), "config": {"init": init}}
    before = from_model(initialised(init), architecture=architecture)
    after, _ = rescale_factors(before, {"0": 2})
    now = after.header.layers[0]["initialization"]
    assert now["name"] == init["name"]
    assert all(now[key] == 2 * before.header.layers[0]["initialization"][key] for key in now if key != "name")
    assert built(after)[0].initialization == now


def test_diagonals_scale_as_a_grid_does() -> None:
    start = {"name": "diagonals"}
    architecture = {"factory": factory_name(initialised), "config": {"init": start}}
    after, _ = rescale_factors(from_model(initialised(start), architecture=architecture), {"0": 2})
    (layer,) = after.header.layers
    assert layer["initialization"] == {"name": "diagonals", "extent": 3.0, "scale": 2.0}
    assert after.tensors["0.mu"].abs().unique().tolist() == [3.5]


def initialised(init: dict[str, Any]) -> nn.Sequential:
    return nn.Sequential(daukit.DAUConv2d(1, 1, 2, init=init))


def test_factor_two_then_a_half_restores_every_bit() -> None:
    before = checkpoint_of("shallow_dau", channels=[3, 4, 5], units=4)
    doubled, _ = rescale_factors(before, {"conv2": 2.0, "conv3": 2.0})
    restored, _ = rescale_factors(doubled, {"conv2": 0.5, "conv3": 0.5})
    assert not torch.equal(doubled.tensors["conv3.mu"], before.tensors["conv3.mu"])
    for name, tensor in before.tensors.items():
        assert restored.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()
    assert restored.header.layers == before.header.layers
    assert [entry["operation"] for entry in restored.header.history] == ["rescale", "rescale"]


def test_exact_factor_multiplies_dilation_and_a_half_undoes_it() -> None:
    before = checkpoint_of("shallow_dau", channels=[2, 2, 2], units=2)
    doubled, report = rescale_factors(before, {"conv3": 2}, "exact")
    assert doubled.header.layers[2]["dilation"] == [2, 2]
    assert report.layers[2].displacement_after == 2 * float(before.tensors["conv3.mu"].abs().max())
    image = noise(1, 2, 9, 7)
    spread = torch.zeros(1, 2, 18, 14, dtype=torch.float64)
    spread[..., ::2, ::2] = image
    old, new = built(before).conv3, built(doubled).conv3
    torch.testing.assert_close(new(spread)[..., ::2, ::2], old(image))
    restored, _ = rescale_factors(doubled, {"conv3": 0.5}, "exact")
    assert restored.header.layers == before.header.layers
    with pytest.raises(ValueError, match=r"conv3: dilation 1 times 1\.5 is 1\.5"):
        rescale_factors(before, {"conv3": 1.5}, "exact")


def test_displacements_over_the_old_limit_are_counted() -> None:
    before = checkpoint_of("shallow_dau", channels=[1, 1, 1], units=4, max_displacement=4.0)
    mu = torch.tensor([[1.5, -2.5, 0.0, 2.0], [0.0, 1.0, 2.5, -2.0]])  # times 2: 3, 5 (over), 5 in x (over), exactly 4
    before = Checkpoint(before.header, {**before.tensors, "conv2.mu": mu.reshape(2, 1, 1, 4)})
    _, report = rescale_factors(before, {"conv2": 2})
    change = report.layers[1]
    assert (change.clipped, report.clipped) == (2, 2)
    assert (change.limit_before, change.limit_after) == (4, 8)
    assert (change.displacement_before, change.displacement_after) == (2.5, 5)


def test_window_of_the_general_form_grows_with_the_limit_and_shrinks_back() -> None:
    before = checkpoint_of("shallow_dau", channels=[2, 2, 2], units=2, learn_sigma="unit")
    doubled, _ = rescale_factors(before, {"conv3": 2})
    # The default window holds limit 4 and a margin of 2: side 13. Limit 8 and the same margin: side 21.
    assert [layer["window"] for layer in doubled.header.layers] == [13, 13, 21]
    assert torch.equal(doubled.tensors["conv3.sigma"], before.tensors["conv3.sigma"])
    assert built(doubled).conv3.window == 21
    restored, _ = rescale_factors(doubled, {"conv3": 0.5})
    assert restored.header.layers == before.header.layers


def test_ragged_layers_are_rescaled() -> None:
    whole = checkpoint_of("shallow_dau", channels=[3, 4, 5], units=4, input_size=[28, 28])
    before, _ = prune(whole, 0.3)
    assert before.tensors["conv3.mu"].shape[1] < whole.tensors["conv3.mu"].numel() // 2
    doubled, _ = rescale_factors(before, {"conv3": 2})
    assert torch.equal(doubled.tensors["conv3.mu"], 2 * before.tensors["conv3.mu"])
    assert torch.equal(built(doubled).conv3.mu, 2 * built(before).conv3.mu)
    after, _ = remove_pools(before, ["pool2"], "exact")
    assert after.header.layers[2]["ragged"]
    assert compare(before, after, ["pool2"]).relative <= 1e-6


@pytest.mark.parametrize("factor", [0, -1, math.nan, math.inf])
def test_factors_that_are_not_positive_numbers_are_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="'conv2' must be positive and finite"):
        rescale_factors(checkpoint_of("shallow_dau", channels=[1, 1, 1], units=1), {"conv2": factor})
