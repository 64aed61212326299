"""Time a network's forward pass before and after it is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
    measured = time_forwards({"before": (before, shape), "after": (after, shape)}, device=device)
    channels, height, width = shape
    return ForwardTimes(input=(BATCH, channels, height, width), rounds=ROUNDS, **measured)


def time_forwards(
    networks: Mapping[str, tuple[nn.Module, Sequence[int]]], *, device: str = "cpu"
) -> dict[str, Quartiles]:
    """Time the forward passes of several networks on noise, in turn. All are moved to ``device``.

    Args:
        networks: by name, each with (channels, height, width) of its images.
        device: where to compute.

    Raises:
        NetworkError: a network's forward fails on such an input.
    """

    def task(network: nn.Module, shape: Sequence[int]) -> Callable[[], None]:
        images = torch.randn((BATCH, *shape), generator=torch.Generator().manual_seed(0)).to(device)  # (N, C, H, W)
        network.to(device)

        def forward() -> None:
            with torch.no_grad(), calling(network, images):
                wait(network(images.to(dtype_of(network))))

        return forward

    return benchmark.interleave({name: task(*each) for name, each in networks.items()}, ROUNDS)


def wait(output: object) -> None:
    """Return when the GPU, if there is one, has computed a network's output."""
    if isinstance(output, torch.Tensor):
        output.cpu()
    elif torch.cuda.is_available():
        torch.cuda.synchronize()
