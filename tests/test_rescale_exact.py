"""Mode exact against forward passes of the network before, at every position that it had."""

from __future__ import annotations

import pytest
import torch
from rescaled import (
    CHOICES,
    POOLS,
    STRIDES,
    Residual,
    assert_same_at_coarse_positions,
    built,
    checkpoint_of,
    factory_name,
    noise,
    removed,
    single,
    three_pools,
)

from daukit.checkpoint import Checkpoint
from daukit.rescale import compare, remove_pools

# Quick tests have every pool and every choice, slow ones all pairs.
PAIRS = [
    pytest.param(pool, names, marks=pytest.mark.slow if (i + j) % 3 else ())
    for i, pool in enumerate(POOLS)
    for j, names in enumerate(CHOICES)
]


@pytest.mark.parametrize(("pool", "names"), PAIRS)
def test_exact_equals_the_coarse_network_for_every_choice_of_three_pools(pool: str, names: tuple[str, ...]) -> None:
    before = checkpoint_of(three_pools, pool=pool)
    after, _ = removed(before, names, "exact", input_size=(41, 46))
    for size in ((41, 46), (44, 39)):
        assert_same_at_coarse_positions(before, after, noise(1, 1, *size), STRIDES[pool] ** len(names))


def test_exact_holds_for_every_input_size_modulo_the_strides() -> None:
    before = checkpoint_of(three_pools, pool="max 3/2 ceil")
    after, _ = removed(before, ("pool1", "pool2", "pool3"), "exact")
    for size in range(33, 41):
        assert_same_at_coarse_positions(before, after, noise(1, 1, size, 73 - size), 8)


@pytest.mark.parametrize("names", CHOICES)
def test_exact_turns_the_linear_head_into_a_convolution_that_agrees_at_the_first_position(
    names: tuple[str, ...],
) -> None:
    before = checkpoint_of("shallow_dau", channels=[3, 4, 5], units=2, input_size=[30, 22])
    after, _ = remove_pools(before, names, "exact")
    image = noise(2, 1, 30, 22)
    with torch.no_grad():
        coarse, fine = built(before)(image), built(after)(image)
    assert fine.shape[:2] == coarse.shape == (2, 10)
    assert (fine[:, :, 0, 0] - coarse).abs().max() <= 1e-6 * coarse.abs().max()


def test_exact_predicts_at_every_position_that_the_head_fits() -> None:
    before = checkpoint_of("shallow_dau", channels=[3, 4, 5], units=2, input_size=[28, 28])
    after, _ = remove_pools(before, ["pool2", "pool3"], "exact")
    # 28 -> 14 (pool1), 13 (window 2), 11 (window 2, taps 2 apart), and a head of 3 x 3 taps 4 apart fits 3 times.
    assert built(after)(noise(1, 1, 28, 28)).shape == (1, 10, 3, 3)


def test_exact_predictions_are_those_of_the_coarse_network_on_shifted_images() -> None:
    # Fine position (1, 3) is the coarse network's only one on the image shifted by (2, 6), since pool1 still strides.
    # Every layer's reach is 0 here, so that borders, where a shift brings other pixels, play no part.
    before = checkpoint_of("shallow_dau", channels=[3, 4, 5], units=2, sigma=0.05, input_size=[16, 16])
    tensors = {name: torch.zeros_like(t) if name.endswith(".mu") else t for name, t in before.tensors.items()}
    before = Checkpoint(before.header, tensors)
    after, _ = remove_pools(before, ["pool2", "pool3"], "exact")
    image = noise(1, 1, 24, 24)
    with torch.no_grad():
        fine = built(after)(image)
        coarse = built(before)(image[..., 2:18, 6:22])
    assert (fine[0, :, 1, 3] - coarse[0]).abs().max() <= 1e-6 * coarse.abs().max()


@pytest.mark.parametrize(
    ("pool", "order"),
    [
        ("max 3/2 padded ceil", ("pool3", "pool1", "pool2")),
        ("max 2/2 padded", ("pool1", "pool2", "pool3")),
        ("average 2/2", ("pool3", "pool2", "pool1")),
    ],
)
def test_pools_removed_one_after_the_other_or_at_once_give_the_same_file(pool: str, order: tuple[str, ...]) -> None:
    before = in_turn = checkpoint_of(three_pools, pool=pool)
    at_once, _ = removed(before, order, "exact", input_size=(40, 40))
    for name in order:
        in_turn, _ = removed(in_turn, [name], "exact", input_size=(40, 40))
    assert in_turn.header.modules == at_once.header.modules
    assert in_turn.tensors.keys() == at_once.tensors.keys()
    assert all(torch.equal(in_turn.tensors[name], tensor) for name, tensor in at_once.tensors.items())


@pytest.mark.parametrize("kind", ["gaussian", "learned", "same odd", "zero pad", "constant pad", "divisor"])
def test_exact_covers(kind: str) -> None:
    before = checkpoint_of(single, kind=kind)
    after, _ = removed(before, ["pool"], "exact", input_size=(23, 18))
    for size in ((23, 18), (22, 19)):
        assert_same_at_coarse_positions(before, after, noise(2, 1, *size), 2)


def test_exact_follows_residual_and_concatenated_branches() -> None:
    before = checkpoint_of(Residual, globally="none")
    for names in (["pool"], ["left", "right"], ["pool", "left", "right"]):
        after, _ = removed(before, names, "exact", input_size=(21, 26))
        assert_same_at_coarse_positions(before, after, noise(1, 1, 21, 26), 4 if len(names) == 3 else 2)


@pytest.mark.parametrize(("globally", "stop"), [("module", "gap"), ("function", "mean")])
def test_exact_stops_before_a_global_pool_and_is_exact_until_there(globally: str, stop: str) -> None:
    before = checkpoint_of(Residual, globally=globally)
    after, report = removed(before, ["pool"], "exact")
    assert report.stopped_before == (stop,)
    assert_same_at_coarse_positions(before, after, noise(1, 1, 21, 26), 2, until="mix")
    assert torch.equal(after.tensors["head.weight"], before.tensors["head.weight"])
    difference = compare(before, after, report.pools, model=factory_name(Residual), input_size=(21, 26))
    assert difference.relative <= 1e-6
    assert difference.positions == 6 * 7  # 21 x 26 -> 11 x 13 -> 6 x 7
    assert difference.missing == 0


def test_exact_leaves_displacements_alone_and_multiplies_dilation() -> None:
    before = checkpoint_of("shallow_dau", channels=[2, 2, 2], units=2, input_size=[16, 16])
    after, report = remove_pools(before, ["pool1", "pool2"], "exact")
    for name in ("conv1", "conv2", "conv3"):
        assert torch.equal(after.tensors[f"{name}.mu"], before.tensors[f"{name}.mu"])
    changes = {layer.name: layer for layer in report.layers}
    assert [changes[f"conv{i}"].dilation_after for i in (1, 2, 3)] == [(1, 1), (2, 2), (4, 4)]
    assert changes["conv3"].limit_before == 4 and changes["conv3"].limit_after == 16
    assert report.clipped == 0
