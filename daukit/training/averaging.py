"""The moving average of a network's tensors over the steps of its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """The exponential moving average of all parameters and floating-point buffers of a network.

    After ``n`` steps it keeps ``min(decay, (1 + n) / (10 + n))`` of itself, so that the network's first tensors, which
    are noise, are soon forgotten.

    Attributes:
        tensors: the average, by their names in the state dict.
        updates: steps that it is made of.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        # Names of the network's own memory: optimisers, projections and batch norms change it in place.
        self._live = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
        self.tensors: dict[str, Tensor] = {}
        self.restart()

    def restart(self) -> None:
        """Begin anew with the network as it is."""
        self.tensors = {name: tensor.clone() for name, tensor in self._live.items()}
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network after a step."""
        self.updates += 1
        kept = min(self._decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.tensors.values()), list(self._live.values()), 1 - kept)

    def restore(self, tensors: dict[str, Tensor], updates: int) -> None:
        """Go on from an average of the same network."""
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)
        self.updates = updates

    @torch.no_grad()
    def settle(self) -> None:
        """Put the average into the network for good."""
        for name, tensor in self.tensors.items():
            self._live[name].copy_(tensor)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Put the average into the network inside the block."""
        own = {name: tensor.clone() for name, tensor in self._live.items()}
        self.settle()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in own.items():
                    self._live[name].copy_(tensor)
