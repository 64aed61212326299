"""The table and the lines of ``daukit snap``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daukit.cli.printing import change, note, print_line, print_table

if TYPE_CHECKING:
    from daukit.workflows.snap import Snapping


def print_snapping(result: Snapping) -> None:
    """Print how far the units of every layer moved, what that changed, and what was measured."""
    if result.layers:
        _print_layers(result)
    else:
        note("nothing is to be done: no layer has units that could move to whole pixels")
    for kept in result.kept:
        print_line(f"{kept.name}: left as it is ({kept.reason})")
    for layer in result.layers:
        if layer.why_filters is not None:
            print_line(f"{layer.name}: refitted on filters ({layer.why_filters})")
    _print_measures(result)


def _print_layers(result: Snapping) -> None:
    on_outputs = any(layer.output_error is not None for layer in result.layers)
    columns = ["layer", "before", "after", "mean move", "largest", "filters, rounded", "refitted"]
    rows: list[tuple[object, ...]] = [
        (
            layer.name, layer.units_before, layer.units_after, f"{layer.moved_mean:.3f}", f"{layer.moved_largest:.3f}",
            f"{layer.error_rounded:.1%}", f"{layer.error:.1%}",
        )
        for layer in result.layers
    ]  # fmt: skip
    if on_outputs:
        columns += ["outputs, by filters", "refitted"]
        outputs = [(_percent(layer.output_error_before), _percent(layer.output_error)) for layer in result.layers]
        rows = [(*row, *more) for row, more in zip(rows, outputs, strict=True)]
    where = "the nearest whole pixel" if result.to == "nearest" else "the best whole pixel around"
    print_table(f"Every unit at {where}; moves in pixels of the layer's input", columns, rows)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


def _print_measures(result: Snapping) -> None:
    from daukit.workflows.headlines import headline_of, value_of

    headline = headline_of(result, "_before")
    if result.images is not None:
        print_line(f"weights refitted on {result.images:,} {result.split} images")
        if headline is None:
            note("the folder has no labels of test images, so no accuracy was measured")
        elif result.split == "test":
            note(f"the {headline.title} is a little too good: it counts test images that weights were refitted on")
    if headline is not None:
        before, rounded, after = (
            headline.text(value_of(result, f"_{when}")) for when in ("before", "rounded", "after")
        )
        print_line(f"{headline.title} {before} -> {after} (only rounded: {rounded})")
    if result.time is not None:
        sizes = " x ".join(map(str, result.time.input))
        print_line(f"forward pass of {sizes}: {change(result.time.before.median, result.time.after.median, 'ms')}")
    print_line(f"file: {change(result.bytes_before, result.bytes_after, 'bytes')}")
