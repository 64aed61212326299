"""The log of a training: a line of JSON per epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daukit.errors import DataError
from daukit.texts import parse_json, read_lines
from daukit.training.moves import Moves
from daukit.training.options import TrainingOptions

_TEST = "test_"
_MOVES = "moves"
_BEFORE, _AFTER = ("epoch", "lr", "train_loss", "test_loss"), ("seconds",)


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch, a line of the log.

    Attributes:
        epoch: its number, from 1.
        lr: learning rate at its start.
        train_loss: mean loss over the training images, while they were learnt from.
        test_loss: mean loss over the test images after it.
        test_score: the headline of the task on the test images after it; for classification, the share of them that are
            classified correctly.
        seconds: time that it took.
        headline: what the score is called: the log has it as ``test_`` and this.
        moves: how far units have moved by its end; None where none learns to, and in logs of older versions.
    """

    epoch: int
    lr: float
    train_loss: float
    test_loss: float
    test_score: float
    seconds: float
    headline: str
    moves: Moves | None = None

    def to_json(self) -> dict[str, Any]:
        """The line of the log."""
        before, after = ({name: getattr(self, name) for name in names} for names in (_BEFORE, _AFTER))
        moves = {} if self.moves is None else {_MOVES: self.moves.to_json()}
        return {**before, _TEST + self.headline: self.test_score, **after, **moves}

    @classmethod
    def from_json(cls, data: object, epoch: int) -> EpochResult | None:
        """Read the line of a log that is that of ``epoch``; None if ``data`` is none."""
        if not isinstance(data, dict):
            return None
        moves = Moves.from_json(data.get(_MOVES))
        if moves is None and _MOVES in data:
            return None
        data, own = {name: value for name, value in data.items() if name != _MOVES}, {*_BEFORE, *_AFTER}
        if not own < set(data) or len(data) != len(own) + 1:
            return None
        (score,) = set(data) - own
        numbers = all(type(value) in (int, float) and value >= 0 for value in data.values())
        if not score.startswith(_TEST) or not numbers or type(data["epoch"]) is not int or data["epoch"] != epoch:
            return None
        named = score.removeprefix(_TEST)
        return cls(**{n: data[n] for n in own}, test_score=data[score], headline=named, moves=moves)


def log_bytes(results: Sequence[EpochResult]) -> bytes:
    """The log of some epochs."""
    return "".join(json.dumps(result.to_json()) + "\n" for result in results).encode()


def read_log(path: Path) -> list[EpochResult]:
    """Read the log of a training.

    Raises:
        DataError: the file cannot be read, or a line of it is not the result of an epoch; it names the line.
    """
    results: list[EpochResult] = []
    for number, line in enumerate(read_lines(path), 1):
        result = EpochResult.from_json(parse_json(line, path, what=f"line {number}", error=DataError), number)
        if result is None:
            keys = ", ".join((*_BEFORE, *_AFTER))
            raise DataError(
                f"{path}: line {number} is not the result of epoch {number} ({keys}, a score, and perhaps moves); give "
                "the .jsonl file that daukit train wrote beside its network"
            )
        if results and _layers(result) != _layers(results[-1]) and None not in (result.moves, results[-1].moves):
            raise DataError(f"{path}: line {number} tells of other layers than the one before; the file is damaged")
        results.append(result)
    if not results:
        raise DataError(f"{path}: has no line; the log of a training has one for each epoch that is done")
    return results


def _layers(result: EpochResult) -> list[str]:
    return [] if result.moves is None else list(result.moves.layers)


def history_arguments(
    options: TrainingOptions, results: Sequence[EpochResult], notes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The arguments of the history entry of a checkpoint that a training made; ``notes`` stand beside its options."""
    arguments = {**options.settings(), **(notes or {})}
    if results:
        arguments[_TEST + results[-1].headline] = results[-1].test_score
    return arguments


def best_of(results: Sequence[EpochResult], options: TrainingOptions) -> EpochResult:
    """The epoch of the best test score, the first of several; where displacements become whole, of those after it.

    Before its displacements are whole a network is another one: slower, and it says little of what it becomes.
    """
    after = [result for result in results if options.is_whole(result.epoch)]
    return max(after or results, key=lambda result: result.test_score)
