"""Time a network's forward pass before and after it is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from daukit import benchmark
from daukit.benchmark import Quartiles
from daukit.checkpoint import Checkpoint, build_model
from daukit.errors import naming
from daukit.models.running import dtype_of
from daukit.models.usercode import calling
from daukit.results import Size
from daukit.workflows.shapes import image_shape

BATCH = 8
"""Images at a time."""
ROUNDS = 9


@dataclass(frozen=True, kw_only=True)
class ForwardTimes:
    """Times of a network's forward pass before and after a change, measured in turn.

    Attributes:
        input: sizes (batch, channels, height, width) of the input.
        rounds: number of measurements of each network.
        before: of the network as it was.
        after: of the changed network.
    """

    input: tuple[Size, Size, Size, Size]
    rounds: Size
    before: Quartiles
    after: Quartiles


def time_checkpoints(
    before: Checkpoint,
    after: Checkpoint,
    *,
    size: tuple[int, int] | None = None,
    model: str | None = None,
    device: str = "cpu",
) -> ForwardTimes:
    """Build both networks and time their forward passes.

    Args:
        before: the network as it was.
        after: the changed network.
        size: (height, width) of the input, where ``before`` does not tell them.
        model: as in ``daukit.load``.
        device: where to compute.

    Raises:
        CheckpointError: a network cannot be built or run, or nothing tells the size of its input.
    """
    first, second = (build_model(checkpoint, model=model) for checkpoint in (before, after))
    shape = image_shape(before, first, size)
    with naming(before.called):
        return time_networks(first, second, shape, device=device)


def time_networks(before: nn.Module, after: nn.Module, shape: Sequence[int], *, device: str = "cpu") -> ForwardTimes:
    """Time the forward passes of two networks on noise, in turn. Both are moved to ``device``.

    Args:
        before: the network as it was.
        after: the changed network.
        shape: (channels, height, width) of an image.
        device: where to compute.

    Raises:
        NetworkError: a network's forward fails on such an input.
    """
    images = torch.randn((BATCH, *shape), generator=torch.Generator().manual_seed(0)).to(device)  # (N, C, H, W)

    def forward(network: nn.Module) -> None:
        with torch.no_grad(), calling(network, images):
            wait(network(images.to(dtype_of(network))))

    networks = {"before": before, "after": after}
    tasks = {name: partial(forward, network.to(device)) for name, network in networks.items()}
    measured = benchmark.interleave(tasks, ROUNDS)
    channels, height, width = shape
    return ForwardTimes(input=(BATCH, channels, height, width), rounds=ROUNDS, **measured)


def wait(output: object) -> None:
    """Return when the GPU, if there is one, has computed a network's output."""
    if isinstance(output, torch.Tensor):
        output.cpu()
    elif torch.cuda.is_available():
        torch.cuda.synchronize()
