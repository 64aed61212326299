"""What the automatic choice on a GPU chose for each pass, and by which figures, for whoever asks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Decision:
    """A way chosen for a pass of a layer.

    Attributes:
        step: the pass.
        way: that was chosen.
        by: the rule on counted operations, or a measurement on this card.
        figures: of each way that was thought of: costs beside those of the kernels, or milliseconds. A way that has not
            enough memory, or does not run here, has none.
    """

    step: Literal["forward", "backward"]
    way: str
    by: Literal["rule", "measurement"]
    figures: dict[str, float | None]


_listening: list[list[Decision]] = []


@contextmanager
def record_choices() -> Iterator[list[Decision]]:
    """Inside the block, in all threads, note what is chosen on GPUs for the passes that run.

    Where a way turns out not to run, what is chosen in its place follows.

    Example:
        >>> with daukit.ops.record_choices() as decisions:
        ...     model(images)
    """
    decisions: list[Decision] = []
    _listening.append(decisions)
    try:
        yield decisions
    finally:
        _listening[:] = [one for one in _listening if one is not decisions]


def note(what: str, way: str, costs: Mapping[Any, float], times: Mapping[Any, float] | None) -> None:
    """Note a choice where somebody listens.

    Args:
        what: the pass, with whatever follows its first word.
        way: that was chosen.
        costs: by the rule.
        times: seconds, where they were measured.
    """
    if not _listening:
        return
    unit, found = (costs["cuda"], costs) if times is None else (1e-3, times)
    figures = {name: None if math.isinf(one) else one / unit for name, one in found.items()}
    step: Literal["forward", "backward"] = "forward" if what.startswith("forward") else "backward"
    decision = Decision(step, way, "rule" if times is None else "measurement", figures)
    for decisions in _listening:
        decisions.append(decision)
