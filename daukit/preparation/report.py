"""What a preparation did, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PreparedLayer:
    """One layer of a prepared network.

    Attributes:
        name: the layer's name in the network.
        kind: its type before, as ``"DAUConv2d"``.
        norm: name of the batch norm that its weights took in; None without one.
        relu: whether it applies the ReLU that followed it.
        joined: name of the first of the layers that read the same map and run as one, its own if it is the first; None
            where it runs alone.
    """

    name: str
    kind: str
    norm: str | None = None
    relu: bool = False
    joined: str | None = None


@dataclass(frozen=True)
class PreparationReport:
    """What ``daukit.prepare`` did.

    Attributes:
        layers: the layers that were prepared.
        kept: DAU layers that stay as they are, by name, each with the reason.
        unfused: why nothing was fused; None where the network could be traced.
    """

    layers: tuple[PreparedLayer, ...]
    kept: dict[str, str]
    unfused: str | None
