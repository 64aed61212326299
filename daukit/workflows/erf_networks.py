"""Networks to probe for receptive fields: of checkpoints with their weights, and of factories as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from daukit.checkpoint import Checkpoint, build_model
from daukit.erf import default_layers
from daukit.errors import CheckpointError, in_words_of_caller
from daukit.models import MODELS, create_model
from daukit.models.factory import build_architecture
from daukit.models.specs import architecture_of, is_factory
from daukit.preprocessing import Preprocessing
from daukit.texts import did_you_mean


@dataclass(frozen=True, kw_only=True)
class ProbedNetwork:
    """A network and its layers to probe.

    Attributes:
        label: name for messages: the file's, or the factory's.
        path: the file; None for initial weights.
        module: the network, in eval mode.
        layers: names of the modules to probe.
        trained: True by the file's history; False for initial weights of daukit's own networks; None: not known.
        preprocessing: of the input, if the file states it.
    """

    label: str
    path: Path | None
    module: nn.Module
    layers: tuple[str, ...] = ()
    trained: bool | None = None
    preprocessing: Preprocessing | None = None

    def probing(self, wanted: Sequence[str] = (), like: Sequence[str] = ()) -> ProbedNetwork:
        """The network with the layers ``wanted``, else those ``like`` another's if it has them all, else the default.

        The default are the DAU layers, or the plain 2-D convolutions where there are none.

        Raises:
            CheckpointError: there is no layer of a wanted name, or nothing to probe by default.
        """
        names = [name for name, _ in self.module.named_modules() if name]
        for name in wanted:
            if name not in names:
                hint = did_you_mean(name, names)
                raise CheckpointError(f"{self.label}: there is no layer {name!r}{hint} (layers: {', '.join(names)})")
        shared = like if set(like) <= set(names) else ()
        layers = wanted or shared or default_layers(self.module)
        if not layers:
            option = in_words_of_caller("probing([...])", "--layer")
            raise CheckpointError(
                f"{self.label}: it has neither DAU layers nor 2-D convolutions; name modules with {option}"
            )
        return replace(self, layers=tuple(layers))


def stored_network(checkpoint: Checkpoint, *, model: str | None = None, device: str = "cpu") -> ProbedNetwork:
    """Build the network of a checkpoint.

    Args:
        checkpoint: of any network.
        model: as in ``daukit.load``.
        device: where to put it.

    Raises:
        CheckpointError: the network cannot be built.
    """
    header = checkpoint.header
    return ProbedNetwork(
        label=checkpoint.called,
        path=checkpoint.path,
        module=build_model(checkpoint, model=model).to(device),
        trained=True if any(entry["operation"] == "train" for entry in header.history) else None,
        preprocessing=header.preprocessing,
    )


def initial_network(
    model: str, config: Mapping[str, Any] | None = None, *, seed: int = 0, device: str = "cpu"
) -> ProbedNetwork:
    """Build a network with its initial weights.

    Args:
        model: a network of daukit's, ``package.module:factory`` or ``file.py:factory``.
        config: options of the factory.
        seed: of the weights.
        device: where to put it.

    Raises:
        ValueError: daukit has no network of this name, or an option is wrong.
        TypeError: the factory does not take these options.
        NetworkError: a user's factory cannot be imported, fails, or returns no network.
    """
    architecture = architecture_of(model, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # build_architecture would leave daukit's own networks without numbers.
        module = (
            build_architecture(architecture) if is_factory(model) else create_model(model, **architecture["config"])
        )
    trained = False if model in MODELS else None
    return ProbedNetwork(label=model, path=None, module=module.eval().to(device), trained=trained)


def check_comparable(networks: Sequence[ProbedNetwork]) -> None:
    """Raise ``ValueError`` unless all networks have as many layers to probe as the first one."""
    first = networks[0]
    for network in networks[1:]:
        if len(network.layers) != len(first.layers):
            counts = f"{first.label} has {len(first.layers)} layers and {network.label} {len(network.layers)}"
            raise ValueError(f"{counts}; name those to compare")
