"""The tables and notes of ``daukit rescale``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from daukit.cli.printing import change, note, print_line, print_table, wrote

if TYPE_CHECKING:
    from daukit.rescale import LayerChange, RescaleReport, StridePlan
    from daukit.workflows.rescale import Rescaling

_PROMISES = {
    "exact": "this mode promises less than 1e-6: the former outputs at the former positions",
    "paper": "this mode promises displacements that fit the finer maps, not the former outputs: train it further",
}
_NO_PROMISE = (
    "does not promise the former outputs: train the network further (daukit train --initial-checkpoint), or take "
    "--mode exact, which keeps them at the former positions"
)


def print_plan(report: RescaleReport, likeness: StridePlan | None) -> None:
    """Print the plan as a table, and what it does to limits, before anything is compared or written."""
    columns: list[tuple[str, Callable[[LayerChange], object]]] = [
        ("layer", lambda layer: layer.name),
        ("type", lambda layer: _change(layer.type, layer.type_after)),
        ("factor", lambda layer: layer.factor),
        ("limit (px)", lambda layer: _change(layer.limit_before, layer.limit_after)),
        ("max |mu| per axis (px)", lambda layer: _change(layer.displacement_before, layer.displacement_after)),
        ("dilation", lambda layer: _change(_axes(layer.dilation_before), _axes(layer.dilation_after))),
        ("over old limit", lambda layer: layer.clipped),
    ]
    if report.strides:
        columns.insert(-1, ("stride", lambda layer: _change(_axes(layer.stride_before), _axes(layer.stride_after))))
    rows = [tuple(value(layer) for _, value in columns) for layer in report.layers]
    print_table(f"Rescale plan, mode {report.mode}", [title for title, _ in columns], rows)
    for line in _plan_notes(report, likeness):
        note(line)


def _plan_notes(report: RescaleReport, likeness: StridePlan | None) -> Iterator[str]:
    if likeness is not None:
        yield (
            f"the factors of {len(likeness.checked)} modules agree with the accumulated strides of both networks"
            + (f"; the second one lacks {', '.join(likeness.missing)}" if likeness.missing else "")
        )
    if report.pools:
        yield f"{', '.join(report.pools)}: {'taken out' if report.mode == 'paper' else 'kept at stride 1'}"
    if report.strides:
        yield f"{', '.join(report.strides)}: stride 1"
    yield f"displacements beyond their layer's old limit, which would have clipped them: {report.clipped:,}"
    if report.beyond:
        yield (
            f"displacements beyond the new limits, as they were beyond the old ones: {report.beyond:,}; they are kept, "
            "but training will clip them (project_displacements)"
        )
    if report.rounded:
        yield (
            f"layers of whole pixels: rounding moved units by up to {report.rounded:.2g} px from their scaled places; "
            "whole factors and --mode exact do not"
        )
    for name in report.stopped_before:
        yield (
            f"stopped before {name}, which reads a whole map: this module and those behind it are unchanged"
            + (", and the outputs are equal only up to its input" if report.mode == "exact" else "")
        )
    if report.gates:
        reads = "the whole finer map" if report.mode == "paper" else "the former positions of the finer map"
        yield f"{', '.join(report.gates)}: pools for a gate, and reads {reads}"
    if report.proof is not None:
        yield (
            f"checked on noise of {_sizes(report.proof.input_size)}: outputs at the former positions differ by at most "
            f"{report.proof.relative:.2g} of the largest output"
        )
    elif report.mode == "exact" and (report.pools or report.strides):
        yield (
            "not checked on noise: the file does not state the size of its input, and the network takes none of the "
            "usual sizes; give --size H,W"
        )
    if report.head_position not in (None, (0, 0)):
        yield (
            f"the linear head's former prediction lies at position {report.head_position}; evaluate and train read "
            "position (0, 0), where --head-padding valid puts it"
        )


def print_outcome(result: Rescaling) -> None:
    """Print the comparison of both modes, and the file that was written."""
    from daukit.rescale import MODES
    from daukit.workflows.rescale import Refused

    both = result.verify_modes
    for mode, difference in () if both is None else ((mode, both.of(mode)) for mode in MODES):
        if isinstance(difference, Refused):
            note(f"mode {mode} cannot be compared: {difference.refused}")
            continue
        note(
            f"mode {mode}: on noise of {_sizes(difference.input_size)}, the largest difference at "
            f"{difference.positions:,} common positions ({difference.missing:,} missing) is {difference.relative:.2g} "
            f"of the largest output; {_PROMISES[mode]}"
        )
    if result.mode == "paper" and (result.pools or result.strides):
        note(f"mode paper {_NO_PROMISE}")
    if result.bytes_before is None or result.bytes_after is None:
        note("dry run: nothing was written")
        return
    print_line(f"file: {change(result.bytes_before, result.bytes_after, 'bytes')}")
    wrote(result.output)


def _sizes(pair: tuple[int, int]) -> str:
    return f"{pair[0]} x {pair[1]}"


def _axes(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def _change(before: float | str | None, after: float | str | None) -> str | None:
    """Both values, or the one where nothing changed."""
    first, second = (f"{value:.4g}" if isinstance(value, float) else value for value in (before, after))
    return first if first == second else f"{first} -> {second}"
