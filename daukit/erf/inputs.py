"""Defaults of a measurement: the layers to probe, random images, and a size that holds the layers' fields."""

from __future__ import annotations

from torch import Tensor, nn

from daukit.erf.measure import effective_receptive_field
from daukit.models.inputs import noise_for
from daukit.nn import DAUConv2d, DAULinear
from daukit.nn.wrappers import unwrapped

LARGEST_SIZE = 256
"""Inputs are not enlarged beyond it unasked: the work grows with their area."""


def default_layers(model: nn.Module) -> list[str]:
    """Names of the model's DAU layers of maps, or of its plain 2-D convolutions where it has none.

    Convolutions of zeros are left out beside others, as a score layer that has learned nothing yet: nothing influences
    what they say.
    """
    modules = list(unwrapped(model, "default_layers").named_modules())
    of_vectors = {module.dau for _, module in modules if isinstance(module, DAULinear)}
    dau = [name for name, module in modules if isinstance(module, DAUConv2d) and module not in of_vectors]
    convolutions = {name: module for name, module in modules if isinstance(module, nn.Conv2d)}
    seeing = [name for name, module in convolutions.items() if bool(module.weight.any())]
    return dau or seeing or list(convolutions)


def random_inputs(model: nn.Module, images: int, size: tuple[int, int], seed: int) -> Tensor:
    """Images of independent standard normal pixels that the model takes: (images, C, *size).

    Raises:
        ValueError: the number of the input's channels cannot be found, or there is not enough memory.
    """
    return noise_for(unwrapped(model, "random_inputs"), images, size, seed)


def fitting_size(
    model: nn.Module, layers: list[str], start: tuple[int, int], seed: int, tokens: tuple[int, int] | None = None
) -> tuple[int, int]:
    """``start``, doubled until no layer's field is clipped, or until one more doubling would pass ``LARGEST_SIZE``.

    The signed measure of a few images decides: it needs one backward pass a layer. Where ``tokens`` are given, as in
    ``effective_receptive_field``, it stays: another size would have others.
    """
    height, width = start
    while tokens is None and 2 * max(height, width) <= LARGEST_SIZE:
        fields = effective_receptive_field(model, layers, random_inputs(model, 4, (height, width), seed), "signed")
        if not any(field.clipped for field in fields):
            break
        height, width = 2 * height, 2 * width
    return height, width
