"""Preprocessing: the input that a network expects. It travels in the file, so evaluation needs no other source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from daukit.limits import MAX_NUMBER, MAX_SIZE, Check, every, in_short, is_size, list_of, number, one_of

MAX_NAME = 1000
"""Characters of a class's name."""


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME


_RULES: dict[str, tuple[Check, str]] = {
    "mean": (every(number()), "finite numbers"),
    "std": (every(number(1 / MAX_NUMBER, MAX_NUMBER)), "positive finite numbers"),
    "channel_order": (one_of("gray", "rgb", "bgr"), '"gray", "rgb" or "bgr"'),
    "input_size": (list_of(2, is_size), f"two integers from 1 to {MAX_SIZE}"),
    "value_range": (list_of(2, number()), "two finite numbers"),
    "class_names": (every(_is_name), f"texts of at most {MAX_NAME} characters"),
}


@dataclass(frozen=True)
class Preprocessing:
    """The way from raw pixels to a network's input: scale to ``value_range``, then ``(x - mean) / std`` per channel.

    Attributes:
        mean, std: one number per channel, in units of ``value_range``.
        channel_order: ``"gray"``, ``"rgb"`` or ``"bgr"``.
        value_range: the values of pixels 0 and 255 before normalisation.
        input_size: (height, width) that the network was trained on.
        class_names: by class index; empty where there are none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str
    input_size: tuple[int, int]
    value_range: tuple[float, float] = (0.0, 1.0)
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lists = (self.mean, self.std, self.input_size, self.value_range, self.class_names)
        if not all(isinstance(value, tuple) for value in lists):
            raise TypeError("mean, std, input_size, value_range and class_names must be tuples")
        if not len(self.mean) == len(self.std) > 0:
            raise ValueError(
                f"mean {in_short(self.mean)} and std {in_short(self.std)} must have one number per channel"
            )
        for name, (rule, what) in _RULES.items():
            value = getattr(self, name)
            if not rule(value):
                raise ValueError(f"{name} must be {what}, got {in_short(value)}")

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels (N, C, H, W) into float32 network input of the same shape."""
        low, high = self.value_range
        values = pixels.float() * ((high - low) / 255) + low
        mean, std = self._statistics(values)
        return (values - mean) / std

    def denormalize(self, values: Tensor) -> Tensor:
        """Turn values like a network's input, (N, C, H, W), into brightness: 0 is pixel 0 and 1 is pixel 255."""
        low, high = self.value_range
        mean, std = self._statistics(values)
        return (values * std + mean - low) / (high - low)

    def _statistics(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std per channel, (C, 1, 1), where ``values`` are."""
        mean, std = (torch.tensor(v, device=values.device)[:, None, None] for v in (self.mean, self.std))
        return mean, std

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Preprocessing:
        """Read what ``to_json`` wrote.

        Raises:
            TypeError: a key is missing, unknown or of the wrong type.
            ValueError: a value is out of bounds.
        """
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**options)
