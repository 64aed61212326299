"""Networks, names and layers that cannot be rescaled are refused, by name and with the reason."""

from __future__ import annotations

import pytest
from rescaled import (
    Calls,
    Residual,
    built,
    checkpoint_of,
    noise,
    removed,
    single,
)

from daukit.errors import CheckpointError
from daukit.rescale import remove_pools, rescale_factors


def test_unknown_layers_pools_and_modes_are_refused() -> None:
    before = checkpoint_of("shallow_dau", channels=[1, 1, 1], units=1, input_size=[8, 8])
    with pytest.raises(CheckpointError, match="no DAU layer 'conv9'"):
        rescale_factors(before, {"conv9": 2})
    with pytest.raises(ValueError, match="mode must be one of paper, exact"):
        rescale_factors(before, {"conv2": 2}, "atrous")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no pool 'pol2'; did you mean 'pool2'"):
        remove_pools(before, ["pol2"])
    with pytest.raises(ValueError, match="'conv2' is a DAUConv2d, not a pool"):
        remove_pools(before, ["conv2"])
    once, _ = remove_pools(before, ["pool2"], "exact")
    with pytest.raises(ValueError, match="'pool2' has stride 1 already"):
        remove_pools(once, ["pool2"], "exact")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("reflect", "pads by 'reflect'"),
        ("same even", "even kernel by 'same'"),
        ("group norm", "how to rescale a GroupNorm there is unknown"),
        ("average ceil", "averages in ceil mode"),
        ("average border", "count_include_pad=False"),
        ("flatten all", "only 1 to -1 can be replaced"),
    ],
)
def test_layers_without_an_exact_replacement_are_refused(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        removed(checkpoint_of(single, kind=kind), ["pool"], "exact", input_size=(8, 8))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("decides", "cannot trace the network"),
        ("two outputs", "must return one tensor"),
        ("flatten", r"calls flatten\(\) behind a removed stride"),
        ("twice", r"calls mean\(\) behind a removed stride"),
    ],
)
def test_networks_that_cannot_be_followed_are_refused(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        removed(checkpoint_of(Calls, kind=kind), ["pool"], "paper", input_size=(6, 6))


def test_branches_that_would_no_longer_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'cat' joins branches .* factors of 1 and 2"):
        removed(checkpoint_of(Residual), ["left"], "exact")
    # Windows of 2 and of 3 make maps of one size from a map of even size, but only while both stride.
    before = checkpoint_of(Residual, second="max 2/2", globally="none")
    assert built(before)(noise(1, 1, 16, 16)).shape == (1, 3, 4, 4)
    with pytest.raises(ValueError, match="no longer fit each other"):
        removed(before, ["left", "right"], "exact", input_size=(16, 16))
