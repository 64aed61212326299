"""A budget reached in rounds, of which each keeps the same share of what the one before it left."""

from __future__ import annotations

from dataclasses import replace

from daukit.limits import check_type, is_whole
from daukit.pruning.rules import Rule


def rounds_of(rule: Rule, units: int, rounds: int) -> tuple[Rule, ...]:
    """The rule of every round.

    Round ``i`` of ``n`` keeps ``units * (target / units) ** (i / n)`` units, to the nearest one, or
    ``share ** (i / n)`` of the multiply-adds or of the time that the network had before the first; the last round has
    the budget itself. Random choices have a seed of their own in every round.

    Args:
        rule: the budget to reach.
        units: units of the network before the first round.
        rounds: number of rounds.

    Raises:
        TypeError: ``rounds`` is no whole number.
        ValueError: there is no round, the rule is no budget, or it keeps nothing.
    """
    check_type(rounds, is_whole, "rounds must be a whole number")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    if not rule.is_budget:
        raise ValueError("rounds lead to a budget; thresholds say what goes at once")
    seeds = [None if rule.seed is None else rule.seed + i for i in range(rounds)]
    if rule.is_of_cost:
        share = rule.time_budget if rule.macs is None else rule.macs
        name = "time_budget" if rule.macs is None else "macs"
        if not share:
            raise ValueError("rounds of an equal factor reach no budget of 0")
        shares = [*(share ** (i / rounds) for i in range(1, rounds)), share]
        return tuple(replace(rule, seed=seed, **{name: one}) for seed, one in zip(seeds, shares, strict=True))
    target = units - rule.removed(units)
    if not target:
        raise ValueError("rounds of an equal factor reach no budget of 0 units")
    counts = [*(round(units * (target / units) ** (i / rounds)) for i in range(1, rounds)), target]
    return tuple(replace(rule, remove=None, units=count, seed=seed) for seed, count in zip(seeds, counts, strict=True))
