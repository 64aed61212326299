"""Mode paper against a network built by hand, and the factors of the paper."""

from __future__ import annotations

import pytest
import torch
from rescaled import (
    alexnet_imitation,
    built,
    checkpoint_of,
    noise,
    removed,
    three_pools,
)
from torch.nn import functional as F

import daukit
from daukit.rescale import Mode, compare, remove_pools


def test_paper_equals_a_network_built_by_hand() -> None:
    before = checkpoint_of(three_pools, pool="max 2/2")
    after, _ = removed(before, ["pool1", "pool3"], "paper")
    t = {name: tensor.double() for name, tensor in before.tensors.items()}
    x = noise(2, 1, 22, 18)
    y = F.conv2d(x, t["conv1.weight"], t["conv1.bias"], padding=1)
    y = daukit.dau_conv2d(y, t["conv2.weight"], 2 * t["conv2.mu"], t["conv2.bias"])
    y = F.batch_norm(y, t["bn2.running_mean"], t["bn2.running_var"], t["bn2.weight"], t["bn2.bias"])
    y = F.max_pool2d(y, 2)
    y = F.conv2d(y, t["conv3.weight"], t["conv3.bias"], padding=4, dilation=2)
    y = daukit.dau_conv2d(y, t["conv4.weight"], 4 * t["conv4.mu"], t["conv4.bias"], stride=2)
    y = F.conv2d(y, t["conv5.weight"], t["conv5.bias"], stride=(1, 2), padding=(0, 4), dilation=4)
    with torch.no_grad():
        assert torch.equal(built(after)(x), y)


def test_paper_is_not_exact() -> None:
    before = checkpoint_of("shallow_dau", channels=[3, 4, 5], units=2, input_size=[28, 28])
    after, report = remove_pools(before, ["pool2", "pool3"], "paper")
    assert compare(before, after, report.pools).relative > 0.01


@pytest.mark.parametrize("mode", ["paper", "exact"])
def test_factors_of_alexnet_are_those_of_the_paper(mode: Mode) -> None:
    # Section 6.1: a factor of two for layers 3, 4 and 5, and of four for the fully connected ones.
    before = checkpoint_of(alexnet_imitation)
    after, report = removed(before, ["pool2", "pool5"], mode, input_size=(67, 67))
    factors = {layer.name: layer.factor for layer in report.layers}
    assert factors == {"conv1": 1, "conv2": 1, "conv3": 2, "conv4": 2, "conv5": 2, "fc6": 4, "fc7": 4, "fc8": 4}
    # 67 -> 16 (conv1) -> 7 (pool1), and no pool behind it; or -> 5 (pool2) -> 3 (pool5: taps 2 apart, ceil adds 2).
    size = 7 if mode == "paper" else 3
    assert built(after)(noise(1, 3, 67, 67)).shape == (1, 5, size, size)
