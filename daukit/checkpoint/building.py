"""Build the network that a header describes, without its tensors, and check that the header tells the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from daukit.checkpoint.header import Header
from daukit.checkpoint.resolution import how_to_adapt
from daukit.errors import CheckpointError, NetworkError
from daukit.limits import in_short
from daukit.models.arguments import check_options
from daukit.models.descriptions import LEFT_OUT
from daukit.models.factory import build_architecture
from daukit.models.specs import Architecture
from daukit.models.structure import Description, apply_differences, dau_layers, describe

_OF_TRAINING = {"max_displacement", "initialization", "mu_gradient", "window"}
"""Keys of a layer's description that change no output of the bilinear form."""


def build_described(architecture: Architecture, modules: Mapping[str, Description], path: Path | str) -> nn.Module:
    """The network of ``architecture`` with ``modules`` in the place of what its factory has there, without tensors.

    Raises:
        CheckpointError: there is no such network, its code fails, or it has no place for the modules.
    """
    try:
        if "name" in architecture:
            check_options(architecture["name"], architecture.get("config", {}))
        network = build_architecture(architecture)
        # New modules have no memory yet either, however large the file says they are.
        with torch.device("meta"):
            apply_differences(network, dict(modules))
    # RuntimeError is torch's, where sizes multiply beyond 64 bits.
    except (NetworkError, ValueError, TypeError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: cannot build its network: {reason}") from error
    return network


def check_layers(network: nn.Module, header: Header, path: Path | str, *, loaded: bool = True) -> None:
    """Raise ``CheckpointError`` where the header's words for a layer are not those for the network's.

    Before its tensors are ``loaded``, no layer of the network is ragged. Where units started is history, which only
    the header can know: networks may start elsewhere by now.
    """
    imported = "imported" in header.architecture
    built = {name: {"name": name, **(describe(layer) or {})} for name, layer in dau_layers(network).items()}
    if not imported and list(built) != [layer["name"] for layer in header.layers]:
        raise CheckpointError(
            f"{path}: describes the DAU layers {in_short([layer['name'] for layer in header.layers])}, and its network "
            f"has {in_short(list(built))}; the file is damaged, or its network's factory has changed"
        )
    for layer in ({**LEFT_OUT, **layer} for layer in header.layers):
        here = {**LEFT_OUT, **built.get(layer["name"], {})}
        # Whoever names a network for layers of another format brings their limits and starting points along.
        passed = (_OF_TRAINING if imported else {"initialization"}) | (set() if loaded else {"ragged"})
        keys = [key for key in layer if key in here and key not in passed]
        for key in keys:
            if layer[key] != here[key]:
                # A network of finer maps has wider limits, and would read units where they did not learn to.
                advice = f"; {how_to_adapt()} gives it this one's layers" if key == "max_displacement" else ""
                raise CheckpointError(
                    f"{path}: layer {layer['name']!r} has {key} {in_short(layer[key])}, and {in_short(here[key])} in "
                    f"the network that is built; the file is damaged, or it is another network{advice}"
                )


def take_starts(network: nn.Module, header: Header) -> None:
    """Let the layers of a network remember where the file says that their units started."""
    if "imported" in header.architecture:
        return  # as in ``check_layers``
    layers = dau_layers(network)
    for described in header.layers:
        layers[described["name"]].initialization = dict(described["initialization"])


def check_told(header: Header, path: Path | str) -> None:
    """As ``check_layers``, before the network is needed; of daukit's own only, as no file may choose other code."""
    if "name" not in header.architecture:
        return
    try:
        network = build_described(header.architecture, header.modules, path)
    except CheckpointError:
        return  # an operation that needs the network says why
    check_layers(network, header, path, loaded=False)
