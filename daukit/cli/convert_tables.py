"""The tables and notes of ``daukit convert``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from daukit.cli.printing import change, note, print_line, print_table, wrote

if TYPE_CHECKING:
    from daukit.substitution import SkippedLayer, SubstitutionReport
    from daukit.workflows.adapt import Adaptation
    from daukit.workflows.adapt_layers import AdaptedLayer
    from daukit.workflows.convert import Conversion, Import
    from daukit.workflows.sparse import ConvertedLayer, SparseConversion
    from daukit.workflows.substitute import FileUnitsTable, Substitution

# By the relative error of a layer's kernels, which for inputs without structure is that of its outputs.
_VERDICTS = (
    (0.02, "as good as exact: the outputs of layers change by two percent at most"),
    (0.1, "near: compare the accuracy before you use the network without further training"),
    (0.3, "rough: train further (daukit train --initial-checkpoint) before you use the network"),
    (
        math.inf,
        "far from the trained kernels: a starting point for training (daukit train --initial-checkpoint), not a "
        "replacement; more --units or a smaller --sigma come nearer, and --units-table says how many units it takes",
    ),
)


def print_import(source: Path, result: Import) -> None:
    """Print the layers of an imported file, and what was assumed about them."""
    for sentence in result.notes:
        note(sentence)
    rows = [
        (
            layer.name, f"{layer.in_channels} -> {layer.out_channels}", layer.units, layer.form,
            "per unit" if layer.sigma is None else layer.sigma, layer.max_displacement, layer.largest_displacement,
        )
        for layer in result.layers
    ]  # fmt: skip
    columns = ("layer", "channels", "units", "form", "sigma", "limit (px)", "max |mu| (px)")
    network = result.architecture.get("name", "layers of a network that daukit does not know")
    print_table(f"{source.name}, {result.source}: {network}", columns, rows)
    print_line(f"{result.units:,} units, {result.other_tensors:,} other tensors")


def print_substitution(source: Path, result: Substitution) -> None:
    """Print the convolutions that became DAU layers, and how well the units fit."""
    report = result.substitution
    rows = [
        (
            layer.name, f"{layer.in_channels} -> {layer.out_channels}", "x".join(map(str, layer.kernel_size)),
            layer.units, layer.parameters_before, layer.parameters_after, layer.error,
        )
        for layer in report.layers
    ]  # fmt: skip
    columns = ("layer", "channels", "kernel", "units", "parameters before", "after", "relative error")
    print_table(f"{source.name}: convolutions that became DAU layers, sigma {report.sigma:g}", columns, rows)
    print_line(f"{report.parameters_before:,} parameters of these layers before, {report.parameters_after:,} after")
    _note_fit(report)
    _note_skipped(report.skipped)


def _note_fit(report: SubstitutionReport) -> None:
    """Judge the fit by its worst layer, whose error all that follow inherit."""
    errors = [(layer.error, layer.name) for layer in report.layers if layer.error is not None]
    if errors:
        error, name = max(errors)
        note(f"the fit is {verdict_of(error)} (largest relative error {error:.3g}, {name})")


def verdict_of(error: float) -> str:
    """Say what the relative error of a fitted layer means for the use of the network."""
    return next(words for bound, words in _VERDICTS if error <= bound)


def print_units_table(source: Path, table: FileUnitsTable) -> None:
    """Print the units that each layer would need."""
    rows = [
        (layer.name, "x".join(map(str, layer.kernel_size)), layer.filters, layer.filters_fitted, *layer.units)
        for layer in table.layers
    ]
    totals = ("units in all", None, sum(layer.filters for layer in table.layers), None, *table.total_units)
    errors = (f"error <= {error:g}" for error in table.errors)
    title = f"{source.name}: units per filter for a relative error, sigma {table.sigma:g}, up to {table.max_units}"
    print_table(title, ("layer", "kernel", "filters", "fitted", *errors), [*rows, totals], answer=True)
    _note_skipped(table.skipped)


def print_sparse(source: Path, result: SparseConversion) -> None:
    """Print the layers whose weights became units, or could, and what that costs and saves."""
    timed = any(layer.time is not None for layer in result.layers)
    columns = ("layer", "channels", "kernel", "weights", "% zero", "units", "bytes before", "after")
    title = f"{source.name}: layers with zeros, and units at whole pixels for the other weights"
    timing = ("dense (ms)", "units (ms)", "faster") if timed else ()
    print_table(title, (*columns, *timing), [_sparse_row(layer, timed) for layer in result.layers])
    if result.weights:
        share = 100 * result.zeros / result.weights
        print_line(f"{result.zeros:,} of {result.weights:,} weights of converted layers are zero ({share:.1f} %)")
    slower = [layer.name for layer in result.layers if not layer.converted]
    if slower:
        note(f"not faster as units, so left as they are: {', '.join(slower)}")
    _note_skipped(result.skipped)
    if result.time is not None:
        shape = " x ".join(map(str, result.time.input))
        print_line(f"forward pass of {shape}: {change(result.time.before.median, result.time.after.median, 'ms')}")
    print_line(f"file: {change(result.bytes_before, result.bytes_after, 'bytes')}")
    if result.output is None:
        note("dry run: nothing was written")
    wrote(result.output)


def _sparse_row(layer: ConvertedLayer, timed: bool) -> tuple[object, ...]:
    channels, zeros = f"{layer.in_channels} -> {layer.out_channels}", f"{100 * layer.zeros / layer.weights:.1f}"
    kernel = "linear" if layer.kernel_size is None else "x".join(map(str, layer.kernel_size))
    row = (layer.name, channels, kernel, layer.weights, zeros, layer.units, layer.bytes_before, layer.bytes_after)
    if not timed:
        return row
    if layer.time is None:
        return (*row, None, None, None)
    faster = "units" if layer.time.faster == "sparse" else "dense"
    return (*row, layer.time.dense.median, layer.time.sparse.median, faster)


def print_adaptation(source: Path, result: Adaptation) -> None:
    """Print the layers of a new network, those of the file that it has, and what became of their displacements."""
    shown = [layer for layer in result.layers if layer.factor is not None or layer.taken_from is None]
    rows = [
        (
            layer.name, _was(layer.type_before, layer.type), _origin(layer), layer.factor,
            _was(layer.limit_before, layer.limit_after), _was(layer.displacement_before, layer.displacement_after),
            _was(_axes(layer.dilation_before), _axes(layer.dilation_after)),
        )
        for layer in shown
    ]  # fmt: skip
    network = result.architecture.get("name") or result.architecture["factory"]
    columns = ("layer", "type", "from", "factor", "limit (px)", "max |mu| per axis (px)", "dilation")
    print_table(f"{network} with layers of {source.name}", columns, rows)
    if len(shown) < len(result.layers):
        print_line(f"and {len(result.layers) - len(shown):,} other layers, taken as they are")
    if result.left:
        note(f"layers of {source.name} that are not taken: {', '.join(result.left)}")
    for sentence in result.notes:
        note(sentence)


def _origin(layer: AdaptedLayer) -> str:
    if layer.taken_from is not None:
        return layer.taken_from
    return "new, zero" if layer.zero else "new"


def _was(before: float | str | None, after: float | str | None) -> str | None:
    """Both values, or the one where nothing changed."""
    first, second = (f"{value:.4g}" if isinstance(value, float) else value for value in (before, after))
    return second if first is None or first == second else f"{first} -> {second}"


def _axes(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def print_written(result: Conversion) -> None:
    """Print the file that was written."""
    if result.output is None:
        note("dry run: nothing was written")
        return
    print_line(f"file: {result.bytes:,} bytes")
    wrote(result.output)


def _note_skipped(skipped: Sequence[SkippedLayer]) -> None:
    for layer in skipped:
        note(f"{layer.name} stays: {layer.reason}")
