"""Words where displacements learn too little to matter, or too much to be of use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from daukit.errors import in_words_of_caller
from daukit.texts import counted
from daukit.training.log import EpochResult
from daukit.training.moves import Moves, UnitMoves
from daukit.training.optimizers import displacement_rate
from daukit.training.options import AUTO, TrainingOptions

_FROZEN = 0.1
"""Pixels: units that move less on average stay where they were put, as ``near`` of ``plot-offsets`` has it."""
_RESTLESS = 1.0
"""Pixels within an epoch: as far as the next pixel of a map, whose content is another one."""
_CROWDED = 0.1
"""Share of a layer's units at their limit."""
_STEPS, _SHARE = 100, 0.1
"""Steps, and share of all that displacements learn in a training, after which it can be judged."""
_SAMPLES = 1000
"""Points of a training at which its rates are looked at."""
_NAMED = 3
"""Layers that a message names."""


@dataclass(frozen=True)
class _Epoch:
    """An epoch that can be judged: its number, what it came to, and the share of the learning that is done by then."""

    number: int
    moves: Moves
    share: float


def remarks(results: Sequence[EpochResult], options: TrainingOptions, steps: int, *, is_new: bool) -> list[str]:
    """What there is to say of displacements after the last of some epochs: that they are frozen, or thrown about.

    Each of the two is said after the first epoch that it holds for, so once in a training, however often that is
    stopped. Nothing is said of a training of few steps, of one that was begun by a version that did not count moves,
    and of displacements that do not learn or are whole for good.

    Args:
        results: of all epochs so far.
        options: of the training.
        steps: per epoch.
        is_new: the network has learnt nothing before, so that its units cannot have found their places.
    """
    epochs = _judged(results, options, steps)
    if not epochs or epochs[-1].number < len(results):
        return []
    rate = _rate(options, steps)

    def thrown(epoch: _Epoch) -> str | None:
        return (_crowded(epoch, options, rate) if is_new else None) or _restless(epoch, options, rate)

    judges = [lambda epoch: _frozen(epoch, options, rate), thrown] if is_new else [thrown]
    said = [_said_first(judge, epochs) for judge in judges]
    return [words for words in said if words is not None]


def _said_first(judge: Callable[[_Epoch], str | None], epochs: Sequence[_Epoch]) -> str | None:
    """What ``judge`` says of the last epoch, unless it had something to say of an earlier one."""
    words = judge(epochs[-1])
    return None if words is None or any(map(judge, epochs[:-1])) else words


def _judged(results: Sequence[EpochResult], options: TrainingOptions, steps: int) -> list[_Epoch]:
    """The epochs after which so much is done that displacements can be judged, and before they are whole."""
    places = [(i + 0.5) / _SAMPLES * options.epochs for i in range(_SAMPLES)]
    rates = [0.0 if options.is_whole(place) else options.mu_rate(place) for place in places]
    done = [0.0, *accumulate(rates)]
    if not results or results[0].moves is None or 0 in (getattr(options, options.mu_option), done[-1]):
        return []
    shares = [done[round(result.epoch / options.epochs * _SAMPLES)] / done[-1] for result in results]
    return [
        _Epoch(result.epoch, result.moves, share)
        for result, share in zip(results, shares, strict=True)
        if result.moves is not None
        and result.epoch * steps >= _STEPS
        and share > _SHARE - 1 / _SAMPLES
        and not options.is_whole(result.epoch)
    ]


def _frozen(epoch: _Epoch, options: TrainingOptions, rate: str) -> str | None:
    """Layers whose units will not have moved by the end, even if they go on as far as the rates let them."""
    still = {name: each for name, each in epoch.moves.layers.items() if each.mean / epoch.share < _FROZEN}
    if not still:
        return None
    mean, most = max(each.mean for each in still.values()), "at most " if len(still) > 1 else ""
    end = f", which makes {mean / epoch.share:.2g} px by the end" if epoch.share < 1 else ""
    return (
        f"displacements of {_names(still)} are frozen in effect: on average they moved by {most}{mean:.2g} px in "
        f"{_so_far(epoch, options)}{end}; raise {rate}"
    )


def _crowded(epoch: _Epoch, options: TrainingOptions, rate: str) -> str | None:
    """Layers of which many units lie at their limit."""
    crowded = {name: each for name, each in epoch.moves.layers.items() if each.at_limit > _CROWDED}
    if not crowded:
        return None
    share = max(each.at_limit for each in crowded.values())
    return (
        f"units of {_names(crowded)} are thrown to their limits: {share:.0%} of a layer's lie at max_displacement "
        f"after {_so_far(epoch, options)}; lower {rate}, or give the layer a larger max_displacement"
    )


def _restless(epoch: _Epoch, options: TrainingOptions, rate: str) -> str | None:
    """Layers whose units still move far in the second half, and that within an epoch, not over all of them."""
    restless = {
        name: each
        for name, each in epoch.moves.layers.items()
        if each.epoch_mean > _RESTLESS and each.epoch_mean > each.mean / 2
    }
    if 2 * epoch.number <= options.epochs or epoch.number == 1 or not restless:
        return None
    worst = max(restless.values(), key=lambda each: each.epoch_mean)
    return (
        f"units of {_names(restless)} are thrown about: on average {worst.epoch_mean:.2g} px within epoch "
        f"{epoch.number}, and only {worst.mean:.2g} px since the start; lower {rate}"
    )


def _names(layers: dict[str, UnitMoves]) -> str:
    named, more = list(layers)[:_NAMED], len(layers) - _NAMED
    words = [*named, f"{more} more"] if more > 0 else named
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _so_far(epoch: _Epoch, options: TrainingOptions) -> str:
    if epoch.number == options.epochs:
        return counted(options.epochs, "epoch")
    return f"{epoch.number} of {counted(options.epochs, 'epoch')}"


def _rate(options: TrainingOptions, steps: int) -> str:
    """The option that makes displacements learn faster or slower, with its value."""
    by_adam, name = options.moves_by_adam, options.mu_option
    value = getattr(options, name)
    now = f"{value:g}" if isinstance(value, float) else str(value)
    now += f", {displacement_rate(options, steps):.2g}" if by_adam and value == AUTO else ""
    told = f"{in_words_of_caller(name, '--' + name.replace('_', '-'))} (now {now})"
    return told if by_adam else f"{told}, or leave it out to move units by Adam"
