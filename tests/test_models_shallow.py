"""The shallow networks: units per layer, and what segmentation makes of them."""

import math

import pytest
import torch
from torch import nn

import daukit
from daukit.receptive_field import theoretical_receptive_field

NARROW = {"channels": [4, 5, 6], "num_classes": 3}


def test_layers_have_units_of_their_own_and_the_gradient_that_was_asked_for():
    network = daukit.create_model("shallow_dau", **NARROW, units=[8, 3, 2], mu_gradient="exact")
    layers = [module for module in network.modules() if isinstance(module, daukit.DAUConv2d)]
    assert [layer.weight.shape for layer in layers] == [(4, 1, 8), (5, 4, 3), (6, 5, 2)]
    assert {layer.mu_gradient for layer in layers} == {"exact"}
    short = daukit.create_model("shallow_dau", **NARROW, units=[8, 3])
    assert [short.get_submodule(f"conv{i}").units for i in (1, 2, 3)] == [8, 3, 3]
    for wrong in ([], [1, 2, 3, 4]):
        with pytest.raises(ValueError, match="one for each of the 3 layers"):
            daukit.create_model("shallow_dau", **NARROW, units=wrong)


@pytest.mark.parametrize("name", ["shallow", "shallow_dau"])
def test_a_network_that_segments_begins_by_guessing_and_has_scores_at_every_second_pixel(name):
    network = daukit.create_model(name, **NARROW, task="segmentation")
    image = torch.randn(2, 1, 21, 34, generator=torch.Generator().manual_seed(0))
    assert network.scores(image).shape == (2, 3, 10, 17)
    loss = nn.functional.cross_entropy(network(image), torch.ones(2, 21, 34, dtype=torch.int64))
    assert abs(loss.item() - math.log(3)) < 1e-6


def test_factors_are_dilations_of_one_network_and_limits_of_the_other():
    plain = daukit.create_model("shallow", **NARROW, task="segmentation", factors=[1, 2, 4])
    assert [plain.get_submodule(f"conv{i}").dilation for i in (1, 2, 3)] == [(1, 1), (2, 2), (4, 4)]
    # 3 pixels, a pool of 2, then at every second pixel 4 + 8 more
    (field,) = theoretical_receptive_field(plain, "score", torch.zeros(1, 1, 64, 64))
    assert field.size == (4 + 2 * 12,) * 2
    units = daukit.create_model("shallow_dau", **NARROW, task="segmentation", max_displacement=3.0)
    assert [units.get_submodule(f"conv{i}").max_displacement for i in (1, 2, 3)] == [3, 3, 6]
    for wrong, words in (([1, 2], "each of the 3 layers"), ([1, 0, 1], "at least 1")):
        with pytest.raises(ValueError, match=words):
            daukit.create_model("shallow", task="segmentation", factors=wrong)
    with pytest.raises(ValueError, match="factors are for task"):
        daukit.create_model("shallow", factors=[1, 1, 2])
    with pytest.raises(ValueError, match="task must be"):
        daukit.create_model("shallow_dau", task="deblurring")


@pytest.mark.parametrize(
    "init",
    ["grid", "uniform", "diagonals", {"name": "grid", "extent": 2.0, "scale": 0.5}, {"name": "normal", "std": 1.0}],
)
def test_units_behind_pools_that_are_out_start_as_much_farther_as_their_limits_are(init):
    starts = []
    for factors in ([1, 1, 1], [1, 3, 2]):
        torch.manual_seed(0)
        network = daukit.create_model("shallow_dau", **NARROW, units=2, init=init, task="segmentation", factors=factors)
        starts.append([network.get_submodule(f"conv{i}").mu.detach() for i in (1, 2, 3)])
    for near, far, factor in zip(*starts, (1, 3, 2), strict=True):
        torch.testing.assert_close(far, near * factor)


def test_scores_lie_where_they_look():
    network = daukit.create_model("shallow", channels=[1], num_classes=1, task="segmentation").eval()
    nn.init.dirac_(network.conv1.weight)
    nn.init.ones_(network.score.weight)
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    # the pool's maxima are those at the right: half a pixel behind the middle of what they look at
    inner = network(ramp)[0, 0, 8, 2:-2] / network.bn1.weight * (1 + network.bn1.eps) ** 0.5
    torch.testing.assert_close(inner, torch.arange(16.0)[2:-2] + 0.5)
