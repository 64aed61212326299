"""Choose the units that stay: by whatever score, within whatever budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from daukit.checkpoint import Checkpoint
from daukit.pruning import PruneReport, Rule, select
from daukit.pruning.removal import remove_units
from daukit.results import Progress
from daukit.workflows.scores import Scoring
from daukit.workflows.unit_costs import TimePlan, multiply_add_costs, time_costs


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The units that stay.

    Attributes:
        report: their number.
        keeps: a bool (units,) by layer, True to keep.
        plan: for a budget of time, the times by which they were chosen.
    """

    report: PruneReport
    keeps: dict[str, Tensor]
    plan: TimePlan | None

    def applied(self, checkpoint: Checkpoint, arguments: Mapping[str, Any] | None = None) -> Checkpoint:
        """The checkpoint without the others, with the rule, or other ``arguments``, in its history."""
        return remove_units(checkpoint, self.keeps, "prune", arguments or self.report.rule.to_json())


def choose(
    before: Checkpoint,
    now: Checkpoint,
    rule: Rule,
    scoring: Scoring,
    *,
    size: tuple[int, int] | None = None,
    model: str | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> Choice:
    """Choose the units of ``now`` that stay.

    Args:
        before: the network of whose multiply-adds or time a budget is a share.
        now: the network whose units are chosen: ``before``, or what has been made of it.
        rule: which of them go.
        scoring: what they are compared by.
        size: (height, width) of the images by which cost is counted, where ``before`` does not tell them.
        model: as in ``daukit.load``.
        device: where to run the network.
        on_progress: told of progress.

    Raises:
        ValueError: a budget of more units than there are, or of less cost than can be reached; or scores that are none.
        CheckpointError: a layer is missing or damaged, the network cannot be built, or nothing tells the size of its
            input.
        DataError: the images of the scores are wrong, or do not fit the network.
    """
    costs, plan = None, None
    if rule.macs is not None:
        costs = multiply_add_costs(before, now, rule.macs, size=size, model=model)
    if rule.time_budget is not None:
        costs, plan = time_costs(before, now, rule.time_budget, size=size, model=model, device=device)
    sizes = scoring.sizes(now, model=model, device=device, on_progress=on_progress)
    report, keeps = select(now, rule, sizes, costs)
    if plan is not None and costs is not None:
        gone = {name: had - has for name, (had, has) in report.units_by_layer.items()}
        spared = sum(costs.per_unit[name] * units for name, units in gone.items())
        plan = replace(plan, predicted=max(0.0, plan.now - spared))
    return Choice(report=report, keeps=keeps, plan=plan)


def stages(on_progress: Progress | None, tasks: int) -> Iterator[Progress | None]:
    """For each of several tasks of one command, what to tell its progress to: an equal part of the whole."""

    def part(number: int) -> Progress | None:
        if on_progress is None:
            return None
        return lambda share, words: on_progress((number + share) / tasks, words)

    return map(part, range(tasks))
