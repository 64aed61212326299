"""``daukit plot-offsets``: draw where a network's units sit, and write the numbers behind the drawing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli import offsets_report, options
from daukit.cli.completion import complete_layer
from daukit.cli.report import note, print_json, speak, wrote
from daukit.errors import naming
from daukit.workflows.outputs import check_outputs, save_figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from daukit.checkpoint import Checkpoint
    from daukit.offsets import Rule

Kind = Literal["1d", "2d", "both", "change", "sigma"]


def plot_offsets(
    source: options.Source,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FIG", help="Figure to write: .png, .pdf or .svg.", parser=options.file_to_write
        ),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(
            help="Distances to the centre (Fig. 6), 2-D densities (Fig. 7), or both, the default; with --before what "
            "changed, the default then; sigmas (Fig. 4)."
        ),
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option(metavar="OTHER", help="Checkpoint of the same units at an earlier time, for what has changed."),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="NAME",
            autocompletion=complete_layer,
            help="Draw this layer only; repeatable. Default: all.",
        ),
    ] = None,
    keep_top: Annotated[
        str | None,
        typer.Option(
            metavar="1,0.9,...", help="Weight filters: that share of the units, by |w|. The default: 1,0.9,0.75."
        ),
    ] = None,
    keep_rel: Annotated[
        str | None,
        typer.Option(
            metavar="0,0.9,...", help="Weight filters: units with |w| of at least that share of the layer's largest."
        ),
    ] = None,
    group: Annotated[
        Literal["layer", "stage", "network"] | None,
        typer.Option(help="What to measure together. A stage is what names begin with before their first number."),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Measure the layers whose names begin so together; repeatable."),
    ] = None,
    bins: Annotated[int, typer.Option(min=1, max=2000, help="Cells across a panel; fewer for small layers.")] = 79,
    near: Annotated[float, typer.Option(min=0, help="A unit has not moved within this distance in pixels.")] = 0.1,
    csv: options.Csv = None,
    width: Annotated[
        Literal["page", "column"], typer.Option(help="A page's width, or a column's for --kind 1d, 2d and sigma.")
    ] = "page",
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw the distributions of the displacements of a checkpoint's units, weighted by |w| (paper, section 4.3)."""
    speak(json=json, quiet=quiet)
    rule, shares = _weight_filters(keep_top, keep_rel)
    drawn = _check_kind(kind, before, width)
    if group is not None and stage:
        raise typer.BadParameter(f"stages are named, so --group {group} has no say; give one", param_hint="--stage")
    if output is None and csv is None and not (json or dry_run):
        raise typer.BadParameter("name the figure to write; or pass --csv, --json or --dry-run", param_hint="--output")
    if output is None:
        options.refuse_unused("this is about the figure; name it with --output", "--width")
    if drawn == "sigma":
        options.refuse_unused("this is about displacements, not sigmas; drop it", "--near")
    check_outputs(output, csv, overwrite=overwrite, dry_run=dry_run, sources=[source, *([before] if before else [])])
    checkpoint = options.read_source(source, model, model_arg, weights)
    other = None if before is None else options.read_source(before, model, model_arg)
    names = options.choose_layers(layer, checkpoint.layer_names, source) if layer else None
    grouping = {"layers": names, "group": group or "layer", "stages": stage or []}
    choices = {**grouping, "rule": rule, "shares": shares, "bins": bins}
    with naming(str(source)):
        numbers = _measure(drawn, checkpoint, other, near, width, choices)
    if not dry_run:
        _write(numbers, output, csv, overwrite)
    asked = {"output": output, "csv": csv}
    written = {key: None if dry_run or path is None else str(path) for key, path in asked.items()}
    said = {"kind": drawn, "weight_filter": rule, "near": near, "before": None if before is None else str(before)}
    print_json("plot-offsets", {**said, **written, "layers": numbers.entries()})
    numbers.show(source.name)
    wrote(*written.values())
    if dry_run and any(asked.values()):
        note("dry run: nothing was written")


@dataclass(frozen=True)
class _Numbers:
    """What was measured, and the four ways to give it away."""

    entries: Callable[[], list[dict[str, Any]]]
    show: Callable[[str], None]
    table: Callable[[], str]
    draw: Callable[[], Figure]


def _measure(
    kind: Kind,
    checkpoint: Checkpoint,
    before: Checkpoint | None,
    near: float,
    width: Literal["page", "column"],
    choices: dict[str, Any],
) -> _Numbers:
    """Measure what ``kind`` draws; ``choices`` are those that all measures share. matplotlib waits for ``draw``."""
    from daukit import offsets

    report = offsets_report
    if kind == "sigma":
        sigmas = offsets.sigma_distributions(checkpoint, before=before, **choices)
        return _Numbers(
            lambda: [report.sigma_entry(layer) for layer in sigmas],
            lambda title: report.print_sigmas(sigmas, title),
            lambda: offsets.sigmas_to_csv(sigmas),
            lambda: _draw(kind, sigmas, width),
        )
    if kind == "change":
        assert before is not None  # _check_kind
        changes = offsets.displacement_changes(checkpoint, before, near=near, **choices)
        return _Numbers(
            lambda: [report.change_entry(layer) for layer in changes],
            lambda title: report.print_changes(changes, title, near),
            lambda: offsets.changes_to_csv(changes),
            lambda: _draw(kind, changes, width),
        )
    layers = offsets.displacement_distributions(checkpoint, near=near, **choices)
    kinds: tuple[Literal["1d", "2d"], ...] = ("1d", "2d") if kind == "both" else (kind,)
    return _Numbers(
        lambda: [report.displacement_entry(layer) for layer in layers],
        lambda title: report.print_displacements(layers, title, near),
        lambda: offsets.to_csv(layers, kinds),
        lambda: _draw(kind, layers, width),
    )


def _draw(kind: Kind, measured: Any, width: Literal["page", "column"]) -> Figure:
    from daukit.plots.style import COLUMN_WIDTH, TEXT_WIDTH
    from daukit.texts import visible

    measured = [replace(layer, name=visible(layer.name)) for layer in measured]
    inches = TEXT_WIDTH if width == "page" else COLUMN_WIDTH
    if kind == "sigma":
        from daukit.plots.sigmas import plot_sigmas

        return plot_sigmas(measured, width=inches)
    if kind == "change":
        from daukit.plots.changes import plot_changes

        return plot_changes(measured)
    from daukit.plots.offsets import plot_displacements

    return plot_displacements(measured, kind, width=inches)


def _check_kind(kind: Kind | None, before: Path | None, width: Literal["page", "column"]) -> Kind:
    """The kind to draw; a usage error where it does not go with the other options."""
    drawn = kind or ("both" if before is None else "change")
    if drawn == "change" and before is None:
        raise typer.BadParameter("a change needs a second checkpoint: --before OTHER", param_hint="--kind")
    if drawn in ("1d", "2d", "both") and before is not None:
        raise typer.BadParameter(f"--kind {drawn} draws one file; give --kind change or sigma", param_hint="--before")
    if drawn in ("both", "change") and width == "column":
        raise typer.BadParameter(f"--kind {drawn} needs a page; a column holds 1d, 2d and sigma", param_hint="--width")
    return drawn


def _weight_filters(keep_top: str | None, keep_rel: str | None) -> tuple[Rule, list[float]]:
    if keep_top is not None and keep_rel is not None:
        raise typer.BadParameter("--keep-top and --keep-rel are two ways to filter; give one", param_hint="--keep-rel")
    if keep_rel is not None:
        return "keep-rel", options.parse_numbers(keep_rel, "--keep-rel")
    shares = options.parse_numbers("1,0.9,0.75" if keep_top is None else keep_top, "--keep-top")
    if 0 in shares:
        raise typer.BadParameter("0 would keep no unit; shares are above 0 and at most 1", param_hint="--keep-top")
    return "keep-top", shares


def _write(numbers: _Numbers, output: Path | None, csv: Path | None, overwrite: bool) -> None:
    if output is not None:
        save_figure(numbers.draw(), output, overwrite=overwrite)
    if csv is not None:
        from daukit.files import write_atomic

        write_atomic(csv, numbers.table().encode(), overwrite=overwrite)
