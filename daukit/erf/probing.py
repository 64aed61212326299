"""Gradients of a layer's outputs at the probed position, many output channels, or random mixtures, at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from daukit.models.usercode import reported

Measure = Literal["absolute", "squared", "signed"]
MEASURES: tuple[Measure, ...] = ("absolute", "squared", "signed")


class Part(NamedTuple):
    """Contribution of one backward pass to the map of every image (images, H, W) and of every probe (probes, H, W)."""

    by_image: Tensor
    by_probe: Tensor


def directions(channels: int, measure: Measure, probes: int | None) -> int:
    """Number of gradients of an image that one layer needs."""
    return 1 if measure == "signed" else probes or channels


def gradient_parts(
    outputs: Tensor,
    leaf: Tensor,
    copies: int,
    measure: Measure,
    probes: int | None,
    generator: torch.Generator,
    network: str,
) -> Iterator[Part]:
    """Backward passes of one layer; the sum over channels stands for the mean: a field has no scale.

    Args:
        outputs: (images * copies, O), the layer's outputs for ``leaf`` at the probed position.
        leaf: (images * copies, C, H, W), every image ``copies`` times in a row.
        copies: directions that are differentiated at once.
        measure: as in ``effective_receptive_field``.
        probes: as there.
        generator: draws the signs of the probes.
        network: its name, for errors of its own backward passes.

    Raises:
        NetworkError: a backward pass fails.
    """
    channels = outputs.shape[1]
    images = len(outputs) // copies
    number = directions(channels, measure, probes)
    for start in range(0, number, copies):
        used = min(copies, number - start)
        rows = torch.zeros(images, copies, channels)
        if probes is not None:
            # E[(sum_o sign_o g_o)^2] = sum_o g_o^2 for independent signs: the mixed terms average out.
            rows[:, :used] = _signs(images, used, channels, generator)
        elif measure == "signed":
            rows[:, 0] = 1  # the gradients of all channels add up, so that one pass gives them all
        else:
            rows[:, range(used), range(start, start + used)] = 1
        with reported(network, f"its backward failed on {tuple(leaf.shape)}"):
            (gradient,) = torch.autograd.grad(
                outputs, leaf, rows.flatten(0, 1).to(outputs), retain_graph=True, materialize_grads=True
            )  # (images * copies, C, H, W)
        # In float64 before squaring, which float32 may not survive; on the CPU, since not every device has float64.
        gradient = gradient.cpu().double()
        if measure == "absolute":
            gradient = gradient.abs()
        elif measure == "squared":
            gradient = gradient.square()
        maps = gradient.sum(1).unflatten(0, (images, copies))[:, :used]  # (images, used, H, W)
        yield Part(maps.sum(1), maps.sum(0) if probes is not None else maps.new_empty(0, *maps.shape[2:]))


def pass_over(images: int, channels: int, copies: int, probes: int | None, generator: torch.Generator) -> None:
    """Draw what ``gradient_parts`` would for some images of which another process computes the gradients."""
    for start in range(0, probes or 0, copies):
        _signs(images, min(copies, (probes or 0) - start), channels, generator)


def _signs(images: int, probes: int, channels: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2, (images, probes, channels), generator=generator) * 2.0 - 1
