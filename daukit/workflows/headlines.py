"""The figure that networks are compared by, which depends on their task, in results, tables and drawings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Headline:
    """Accuracy, mean IoU or PSNR.

    Attributes:
        name: its key in results, as ``"mean_iou"``; an ending such as ``"_before"`` may follow.
        title: what tables call it.
        is_share: its values are within [0, 1], and printed in per cent; others are decibels.
    """

    name: str
    title: str
    is_share: bool

    @property
    def axis(self) -> str:
        """The title, with the unit of values that are not in per cent."""
        return self.title if self.is_share else f"{self.title} (dB)"

    @property
    def change(self) -> str:
        """The heading of differences."""
        return f"change ({'points' if self.is_share else 'dB'})"

    def text(self, value: float | None) -> str | None:
        """A value with its unit; None where there is none."""
        if value is None:
            return None
        return f"{value:.2%}" if self.is_share else f"{value:.2f} dB"

    def difference(self, value: float | None) -> str | None:
        """A difference of two values, in percentage points or decibels; None where there is none."""
        if value is None:
            return None
        return f"{100 * value if self.is_share else value:+.2f}"


ACCURACY = Headline("accuracy", "accuracy", is_share=True)
HEADLINES = {
    each.name: each
    for each in (
        ACCURACY,
        Headline("mean_iou", "mean IoU", is_share=True),
        Headline("psnr", "PSNR", is_share=False),
    )
}
"""All of them, by name."""


def headline_of(result: object, ending: str = "") -> Headline | None:
    """The figure that a result has a value of, with this ending; None if it has none."""
    return next((each for each in HEADLINES.values() if getattr(result, each.name + ending, None) is not None), None)


def value_of(result: object, ending: str = "") -> float | None:
    """That value."""
    headline = headline_of(result, ending)
    value: float | None = None if headline is None else getattr(result, headline.name + ending)
    return value


def named(result: object, ending: str = "") -> dict[str, Any]:
    """What was measured, as ``{"mean_iou_before": 0.6}`` with the ending ``"_before"``."""
    headline = headline_of(result)
    return {} if headline is None else {headline.name + ending: getattr(result, headline.name)}
