"""The images that a network takes: their channels and, where it is known, their height and width."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx, nn

from daukit.errors import NetworkError
from daukit.models.effects import KEEPING_CHANNELS, effect_of, is_arithmetic, is_joining
from daukit.models.factory import option_of
from daukit.models.graph import argument, module_of, trace
from daukit.models.record import record_of
from daukit.models.running import dtype_of, evaluating, run
from daukit.models.specs import Architecture
from daukit.nn import DAUConv2d
from daukit.preprocessing import Preprocessing

TRIAL_SIZES = (32, 64, 128, 256)
"""Heights and widths to try on a network where neither its file nor its options tell any."""
_OTHERS = (3, 1, 2, 4)
"""Channels to try on a network that cannot be traced, beside those of its first convolution and their divisors."""


def input_channels(network: nn.Module, size: tuple[int, int] | None = None) -> int:
    """Channels of the images that ``network`` takes.

    Its own options and preprocessing say it; otherwise a trace tells which layer reads the image, which need not be the
    first one that it holds. Where no trace tells, the network is tried on images of several numbers of channels.

    Args:
        network: any network of images.
        size: (height, width) of images that it takes, if known.

    Raises:
        ValueError: no layer tells.
    """
    told = told_channels(network)
    if told is not None:
        return told
    try:
        channels = _traced_channels(network, trace(network, "reading its input's channels", ""))
    except ValueError:
        channels = None  # its forward decides by its input
    if channels is None:
        channels = _tried_channels(network, size)
    if channels is None:
        raise ValueError("the network has no 2-D convolution to say how many channels its input has")
    return channels


def told_channels(network: nn.Module) -> int | None:
    """Channels of the images that a network takes, by its options or its preprocessing; None: neither says."""
    record = record_of(network)
    if record is None:
        return None
    told = option_of(record.architecture, "in_channels")
    if _is_count(told):
        return told
    return None if record.preprocessing is None else len(record.preprocessing.mean)


def known_input_size(architecture: Architecture, preprocessing: Preprocessing | None) -> tuple[int, int] | None:
    """(height, width) of the images that a network takes, by its preprocessing or its options; None: neither says."""
    if preprocessing is not None:
        return preprocessing.input_size
    own = "name" in architecture
    # A guess, where the option is a user's; what is done with images of that size then says if it is wrong.
    size = option_of(architecture, "input_size") if own else architecture.get("config", {}).get("input_size")
    height, width = size if isinstance(size, list | tuple) and len(size) == 2 else (size, size)
    return (height, width) if _is_count(height) and _is_count(width) else None


def noise_for(network: nn.Module, images: int, size: tuple[int, int], seed: int) -> Tensor:
    """Images of N(0, 1) noise that ``network`` takes: (images, C, *size), of its type and on its device.

    Raises:
        ValueError: as in ``input_channels``, or there is not enough memory.
    """
    # Drawn on the CPU, so that a seed means the same images on every device.
    generator = torch.Generator().manual_seed(seed)
    shape = (images, input_channels(network, size), *size)
    with _allocating(shape):
        noise = torch.randn(shape, generator=generator)
    return noise.to(_device_of(network), dtype_of(network))


@contextmanager
def _allocating(shape: tuple[int, ...]) -> Iterator[None]:
    try:
        yield
    except RuntimeError:
        raise ValueError(f"inputs {shape} do not fit into memory; take smaller ones, or fewer") from None


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _traced_channels(network: nn.Module, graph: fx.Graph) -> int | None:
    """Channels of the first input, by the first module on its way that says what it reads."""
    multiples: dict[fx.Node, Fraction] = {}  # channels of a map, as a multiple of the image's
    for node in graph.nodes:
        if node.op == "placeholder":
            if multiples:
                continue  # of two inputs, the first one counts
            multiples[node] = Fraction(1)
        module = module_of(network, node)
        multiple = next((multiples[source] for source in node.all_input_nodes if source in multiples), None)
        reads = None if module is None or multiple is None else _reads(module)
        if reads is not None:
            channels = reads / (multiple or 1)
            return int(channels) if channels.denominator == 1 else None
        behind = _behind(node, module, multiples)
        if behind is not None:
            multiples[node] = behind
    return None


def _reads(module: nn.Module) -> Fraction | None:
    """Channels that a module says it reads; None where it says nothing."""
    if isinstance(module, nn.Conv2d | DAUConv2d | nn.ConvTranspose2d):
        return Fraction(module.in_channels)
    return Fraction(module.num_features) if isinstance(module, nn.BatchNorm2d) else None


def _behind(node: fx.Node, module: nn.Module | None, multiples: dict[fx.Node, Fraction]) -> Fraction | None:
    """The multiple behind a module or call; None where it is not known."""
    if is_joining(node):
        items = node.args[0] if node.args else ()
        joined = [multiples.get(item) for item in items] if isinstance(items, list | tuple) else [None]
        if None in joined:
            return None
        along_channels = argument(node, 1, ("dim", "axis"), 0) in (1, -3)
        return sum(filter(None, joined), Fraction(0)) if along_channels else joined[0]
    if is_arithmetic(node) or effect_of(node, None) in KEEPING_CHANNELS or isinstance(module, KEEPING_CHANNELS):
        return max((multiples[source] for source in node.all_input_nodes if source in multiples), default=None)
    return None


def _first_channels(network: nn.Module) -> int | None:
    """Channels that the first convolution of the network reads, which need not be the image's."""
    found = (getattr(module, "in_channels", None) for module in network.modules())
    return next((channels for channels in found if _is_count(channels)), None)


def _tried_channels(network: nn.Module, size: tuple[int, int] | None) -> int | None:
    """The first number of channels that the network can be run with; if none, those of its first convolution."""
    first = _first_channels(network)
    if first is None:
        return None
    divisors = [n for n in range(first, 0, -1) if first % n == 0]
    for channels in dict.fromkeys((*divisors[:2], *_OTHERS, *divisors)):
        if _runs(network, channels, size or (64, 64)):
            return channels
    return first


def _runs(network: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    shape = (1, channels, *size)
    with _allocating(shape):
        image = torch.zeros(shape, dtype=dtype_of(network), device=_device_of(network))
    try:
        with evaluating(network):
            run(network, image)
    except NetworkError:
        return False
    return True


def _device_of(network: nn.Module) -> torch.device:
    tensors = (*network.parameters(), *network.buffers())
    return tensors[0].device if tensors else torch.device("cpu")
