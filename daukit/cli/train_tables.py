"""What ``daukit train`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from daukit.cli.printing import note, print_json, print_line, wrote
from daukit.texts import counted

if TYPE_CHECKING:
    from daukit.training import EpochResult
    from daukit.workflows.train_runs import TrainingResult, TrainingRun

_FIGURES = {"accuracy": ("accuracy", ".2%"), "mean_iou": ("mean IoU", ".2%"), "psnr": ("PSNR", ".2f")}
"""Name and format of the figure that networks of a task are compared by."""


def announce(run: TrainingRun) -> None:
    """Print what a dry run would train."""
    result = run.announcement
    print_json("train", result)
    print_line(
        f"{run.called}: {counted(result.parameters, 'parameter')}, {counted(result.epochs, 'epoch')} of "
        f"{counted(result.steps, 'step')} on {counted(result.images, 'image')}, {len(run.test_set):,} to measure on"
    )
    note_adapted(run)
    note_rates(run)
    if run.options.snap_at is not None:
        print_line(f"displacements are rounded to whole pixels after {run.options.snap_at:.0%} of the steps")
    if run.recipe.name is not None:
        for line in ["", *run.recipe.to_toml().splitlines(), ""]:
            print_line(line)
    note("dry run: nothing was trained or written")


def note_adapted(run: TrainingRun) -> None:
    """Say what is new, what found no place and what was scaled, if the network begins with the layers of another."""
    if run.new:
        note(f"new layers, which begin anew: {', '.join(run.new)}")
    if run.left:
        note(f"layers of the initial checkpoint that are not taken: {', '.join(run.left)}")
    note_scaled(run.scaled)
    for sentence in run.notes:
        note(sentence)


def note_rates(run: TrainingRun) -> None:
    """Say at which rates displacements begin to learn, also where they follow from layers or steps."""
    rates = sorted(set(run.mu_lr.values()))
    if not rates:
        return
    by_adam = run.options.moves_by_adam
    told = f"{rates[0]:.3g}" if len(rates) == 1 else f"{rates[0]:.3g} to {rates[-1]:.3g}, by layer"
    words = f"by Adam, at {told} px a step at first" if by_adam else f"by SGD, at first at a rate of {told}"
    note(f"displacements learn {words}" if rates[-1] > 0 else "displacements stay where they are: their rate is 0")


def note_scaled(factors: Mapping[str, float]) -> None:
    """Say which displacements were multiplied, as their layers read finer maps than they learnt on."""
    for factor in sorted(set(factors.values())):
        names = [name for name, own in factors.items() if own == factor]
        note(f"displacements and limits times {factor:g}, for maps that are as much finer: {', '.join(names)}")


def note_epoch(run: TrainingRun, result: EpochResult) -> None:
    """Say what an epoch came to, and how far units have moved by its end."""
    words = f"epoch {result.epoch}/{run.options.epochs}: test {_figure(result)}"
    if result.moves is not None:
        moves = result.moves
        beyond, at_limit = _percent(moves.beyond_a_pixel), _percent(moves.at_limit)
        words += f", units moved {moves.mean:.2f} px ({beyond} beyond a pixel, {at_limit} at the limit)"
    note(words)


def print_result(run: TrainingRun, result: TrainingResult, results: Sequence[EpochResult]) -> None:
    """Print what a training came to."""
    from daukit.training import absurd_loss, best_of

    print_line(f"test {_figure(results[-1])} after {counted(result.epochs, 'epoch')}; log in {result.log}")
    print_line(f"file: {result.bytes:,} bytes")
    if run.keeping.best:
        best = best_of(list(results), run.options)
        words = f"best epoch: {best.epoch}, test {_figure(best)}"
        words += f" (a little too good, as it was chosen by this {_FIGURES[best.headline][0]})"
        print_line(
            words if run.files.best.exists() else f"{words}; it ended before --best was given, so it was not kept"
        )
    if results[-1].test_loss > absurd_loss(run.task.guessing_loss(run.train_set.info)):
        option = f"--{run.options.mu_option.replace('_', '-')}"
        note(f"a mean test loss of {results[-1].test_loss:.3g} is absurd: lower --lr or {option}")
    wrote(result.output)


def _figure(result: EpochResult) -> str:
    """What an epoch came to, in words."""
    name, form = _FIGURES[result.headline]
    return f"{name} {result.test_score:{form}}{' dB' if result.headline == 'psnr' else ''}"


def _percent(share: float) -> str:
    """A share in percent, with a digit or two: small ones are not none."""
    return f"{share:.0%}" if share == 0 or share >= 0.0995 else f"{100 * share:.2g}%"
