"""The maps that a layer reads and makes while a network runs on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from daukit.errors import NetworkError
from daukit.models.running import dtype_of, evaluating
from daukit.models.usercode import calling, name_of

BATCH = 32
"""Images at a time."""

LARGEST_MAPS = 2**27
"""Bytes of maps of a layer that are kept; later images do without."""


def calling_order(network: nn.Module, names: Sequence[str], image: Tensor) -> list[str]:
    """Those of the modules of these names that the network calls, by their first call.

    Raises:
        NetworkError: the network's forward fails on the image.
    """
    called: list[str] = []

    def note(name: str) -> None:
        if name not in called:
            called.append(name)

    hooks = [network.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: note(name)) for name in names]
    try:
        _run(network, image)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def layer_maps(network: nn.Module, name: str, images: Tensor, *, inputs: bool, largest: int = LARGEST_MAPS) -> Tensor:
    """The inputs, or else the outputs, of a module: (N, channels, H, W) of the first images.

    If the network calls it more than once, those of all calls on maps as large as the first one's.

    Args:
        network: its forward is run.
        name: of the module.
        images: (N, ...), as the network takes them.
        inputs: take what the module reads, not what it makes.
        largest: bytes that end it, once there are as many.

    Raises:
        NetworkError: the network's forward fails on the images, or the maps are empty or hold NaN or infinity.
    """
    kept: list[Tensor] = []
    sizes: list[tuple[torch.Size, torch.Size]] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...], named: Mapping[str, Tensor], output: Tensor) -> None:
        read = given[0] if given else named["input"]
        sizes.append((read.shape[2:], output.shape[2:]))
        if sizes[-1] == sizes[0]:
            kept.append((read if inputs else output).detach().cpu())

    hook = network.get_submodule(name).register_forward_hook(keep, with_kwargs=True)
    try:
        for batch in images.split(BATCH):
            _run(network, batch)
            if sum(map.numel() * map.element_size() for map in kept) >= largest:
                break
    finally:
        hook.remove()
    maps = torch.cat(kept)
    if not maps.numel() or not bool(torch.isfinite(maps).all()):
        what = "NaN or infinity" if maps.numel() else "no pixel"
        does = "reads" if inputs else "makes"
        raise NetworkError(f"{name_of(network)}: {name!r} {does} {what} on the images; give others")
    return maps


def _run(network: nn.Module, images: Tensor) -> None:
    parameter = next(network.parameters(), images)
    images = images.to(parameter.device, dtype_of(network))
    with evaluating(network), torch.no_grad(), calling(network, images):
        network(images)
