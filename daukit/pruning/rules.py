"""The rules by which units go: thresholds or a budget; by weight or another score, or at random as a control."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from daukit.limits import check_type, either, is_none, is_number, is_text, is_whole

RelativeTo = Literal["layer", "channel", "network", "filter"]
RELATIVE_TO: tuple[RelativeTo, ...] = ("layer", "channel", "network", "filter")


MAGNITUDE, RANDOM = "magnitude", "random"
"""The scores that need no network."""


@dataclass(frozen=True)
class Rule:
    """The units to remove: those under a threshold or, for a budget, the smallest ones.

    Attributes:
        threshold: a unit goes when ``score < threshold * reference``, strictly; None where only single layers have one.
        relative_to: the reference is the largest score of the unit's ``layer``, of its output ``channel``, of the
            ``network``, or of its ``filter`` (one output-input pair).
        layer_thresholds: thresholds of single layers, in place of ``threshold``.
        units: budget: how many units of the whole network stay.
        remove: budget: the share of the network's units that goes, to the nearest unit; half a unit goes.
        seed: of ``score="random"``. With other scores None; or remove at random, with this seed, as many units of every
            layer as the rest of the rule says.
        score: what is compared: ``"magnitude"`` (``|w|``), ``"random"`` (a random number), or the name of a score whose
            values come beside the rule.
        macs: budget: the largest share of the network's multiply-adds that stays.
        time_budget: budget: the largest share of the network's time that stays.

    Raises:
        TypeError: a value of another type.
        ValueError: a value outside its range, not exactly one of thresholds and the budgets, or random scores without
            a seed.
    """

    threshold: float | None = None
    relative_to: RelativeTo = "layer"
    layer_thresholds: Mapping[str, float] = field(default_factory=dict)
    units: int | None = None
    remove: float | None = None
    seed: int | None = None
    score: str = MAGNITUDE
    macs: float | None = None
    time_budget: float | None = None

    def __post_init__(self) -> None:
        self._check_types()
        thresholds = self.threshold is not None or bool(self.layer_thresholds)
        if thresholds + len(self._budgets()) != 1:
            others = "".join(f", {n}={v}" for n, v in self._budgets().items() if n not in ("units", "remove"))
            raise ValueError(
                "give thresholds, or a number of units to keep, or a share to remove, or a share of multiply-adds or "
                f"of time to keep, and only one of them; got threshold={self.threshold}, "
                f"layer_thresholds={dict(self.layer_thresholds)}, units={self.units}, remove={self.remove}{others}"
            )
        if self.relative_to not in RELATIVE_TO:
            raise ValueError(f"relative_to must be one of {', '.join(RELATIVE_TO)}, got {self.relative_to!r}")
        for name, share in self._shares().items():
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"{name} must be within [0, 1], got {share}")
        if self.units is not None and self.units < 0:
            raise ValueError(f"units must be at least 0, got {self.units}")
        if self.score == RANDOM and self.seed is None:
            raise ValueError('score="random" needs a seed, as seed=0')

    def _check_types(self) -> None:
        thresholds = self.layer_thresholds
        check_type(thresholds, lambda v: isinstance(v, Mapping), "layer_thresholds must map layers to thresholds")
        for name, share in self._shares().items():
            check_type(share, either(is_none, is_number), f"{name} must be a number")
        for name, value in {"units": self.units, "seed": self.seed}.items():
            check_type(value, either(is_none, is_whole), f"{name} must be an integer")
        check_type(self.score, is_text, "score must be the name of a score")

    def _shares(self) -> dict[str, float | None]:
        named = {f"threshold of {layer}": share for layer, share in self.layer_thresholds.items()}
        budgets = {"remove": self.remove, "macs": self.macs, "time_budget": self.time_budget}
        return {"threshold": self.threshold, **budgets, **named}

    def _budgets(self) -> dict[str, float]:
        """The budgets that were given, by name."""
        own = {"units": self.units, "remove": self.remove, "macs": self.macs, "time_budget": self.time_budget}
        return {name: value for name, value in own.items() if value is not None}

    @property
    def is_budget(self) -> bool:
        """True where it says how many units go, not how small they must be."""
        return bool(self._budgets())

    @property
    def is_of_cost(self) -> bool:
        """True for a budget of multiply-adds or of time, which says what units may cost and not how many they are."""
        return self.macs is not None or self.time_budget is not None

    def threshold_of(self, layer: str) -> float | None:
        """The threshold of one layer; None for a budget."""
        return None if self.is_budget else self.layer_thresholds.get(layer, self.threshold or 0.0)

    def removed(self, units: int) -> int:
        """The number of the network's ``units`` that a budget removes.

        Raises:
            ValueError: it asks for more units than there are.
        """
        if self.units is not None:
            if self.units > units:
                raise ValueError(f"{self.units:,} units are to stay, but the network has only {units:,}; ask for fewer")
            return units - self.units
        # The share as the decimal that was written: 0.07 of 100 units are 7, not 7.000000000000001.
        return math.floor(Fraction(str(self.remove)) * units + Fraction(1, 2))

    def to_json(self) -> dict[str, Any]:
        """The arguments for a file's history: those that were given, and what the reference was."""
        values = {
            "threshold": self.threshold,
            "layer_thresholds": dict(self.layer_thresholds) or None,
            "units": self.units,
            "remove": self.remove,
            "seed": self.seed,
            "macs": self.macs,
            "time_budget": self.time_budget,
            "score": None if self.score == MAGNITUDE else self.score,
        }
        return {
            **{key: value for key, value in values.items() if value is not None},
            "relative_to": self.relative_to,
        }
