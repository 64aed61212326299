"""``daukit plot-offsets``: draw where a network's units sit or how they moved, and write the numbers behind that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from daukit.cli import options
from daukit.cli.completion import complete_layer
from daukit.cli.offsets_tables import print_moves, print_offsets
from daukit.cli.printing import note, print_json, speak, wrote
from daukit.errors import naming
from daukit.workflows.outputs import check_outputs

if TYPE_CHECKING:
    from daukit.offsets import FilterRule

Kind = Literal["1d", "2d", "both", "change", "sigma"]
Width = Literal["page", "column"]

EXAMPLES = (
    "daukit plot-offsets model.safetensors -o offsets.svg",
    "daukit plot-offsets model.safetensors --before other.safetensors --layer conv2 -o moves.svg",
    "daukit plot-offsets --log model.jsonl --log other.jsonl -o learning.svg",
)

_OF_CHECKPOINTS = (
    "--kind", "--before", "--keep-top", "--keep-rel", "--group", "--stage", "--bins", "--near", "--model",
    "--model-arg", "--weights",
)  # fmt: skip
"""Options that logs have no use for."""


def plot_offsets(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="A daukit checkpoint, or a state dict with --model.", show_default="none, with --log"
        ),
    ] = None,
    output: options.FigureOutput = None,
    log: Annotated[
        list[Path] | None,
        typer.Option(
            "--log",
            metavar="RUN",
            help="In place of FILE, draw how far units moved over the epochs of the training that wrote this .jsonl "
            "file; repeatable, to compare trainings.",
        ),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(
            help="Draw the units' distances to the filter's centre (1d, Fig. 6), their density in the plane (2d, "
            "Fig. 7), both, how they moved since --before (change), or their sigmas (sigma, Fig. 4). If omitted, draws "
            "both; with --before, draws the change."
        ),
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option(
            metavar="OTHER",
            help="Compare with this earlier checkpoint of the same network, for example the untrained one.",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="NAME",
            autocompletion=complete_layer,
            help="Draw only this layer; repeatable. If omitted, draws all layers.",
        ),
    ] = None,
    keep_top: Annotated[
        str | None,
        typer.Option(
            metavar="1,0.9,...",
            help="For each share, draw only that share of the units, those of largest |w|. If omitted, 1,0.9,0.75.",
        ),
    ] = None,
    keep_rel: Annotated[
        str | None,
        typer.Option(
            metavar="0,0.9,...",
            help="For each share, draw only the units whose |w| is at least that share of the layer's largest |w|.",
        ),
    ] = None,
    group: Annotated[
        Literal["layer", "stage", "network"] | None,
        typer.Option(
            help="Draw each layer on its own (layer), the layers of each stage together (stage), or all layers "
            "together (network). The layers of a stage have the same name up to the first number. If omitted, layer."
        ),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Draw together the layers whose names begin with NAME, and leave out the others; repeatable.",
        ),
    ] = None,
    bins: Annotated[
        int,
        typer.Option(
            min=1,
            max=2000,
            metavar="N",
            help="Number of cells along each side of a panel. Fewer are clearer for a layer with few units.",
        ),
    ] = 79,
    near: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="PIXELS",
            help="Count a unit as unmoved if it lies within this distance of its starting point.",
        ),
    ] = 0.1,
    label: options.Label = None,
    csv: options.Csv = None,
    width: Annotated[
        Width,
        typer.Option(
            help="Set the width of the figure to that of a page, or of a column (only for --kind 1d, 2d and sigma)."
        ),
    ] = "page",
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw where a checkpoint's units sit or how they moved, weighted by |w| (paper, section 4.3)."""
    speak(json=json, quiet=quiet)
    if log:
        _check_logs(log, source)
        _check_named(output, csv, needed=not (json or dry_run))
        _plot_logs(log, layer, width, label or [], output, csv, overwrite=overwrite, dry_run=dry_run)
        return
    options.refuse_unused("a figure of a checkpoint names none; drop it, or compare trainings with --log", "--label")
    source = _check_source(source)
    rule, shares = _weight_filters(keep_top, keep_rel)
    drawn = _check_kind(kind, before, width)
    if group is not None and stage:
        raise typer.BadParameter(
            f"--stage names the groups, so --group {group} has no effect; give one", param_hint="--stage"
        )
    _check_named(output, csv, needed=not (json or dry_run))
    if drawn == "sigma":
        options.refuse_unused("this is about displacements, not sigmas; drop it", "--near")
    check_outputs(output, csv, overwrite=overwrite, dry_run=dry_run, sources=[source, before])
    from daukit.workflows import offsets

    checkpoint = options.read_source(source, model, model_arg, weights)
    other = None if before is None else options.read_source(before, model, model_arg)
    names = options.choose_layers(layer, checkpoint.layer_names, source) if layer else None
    with naming(str(source)):
        result = offsets.plot_offsets(
            checkpoint, kind=drawn, before=other, layers=names, group=group or "layer", stages=stage or [], rule=rule,
            shares=shares, bins=bins, near=near, width=width, output=None if dry_run else output,
            csv=None if dry_run else csv, overwrite=overwrite,
        )  # fmt: skip
    print_json("plot-offsets", result)
    print_offsets(result, source.name)
    wrote(result.output, result.csv)
    if dry_run and (output or csv):
        note("dry run: nothing was written")


def _check_named(output: Path | None, csv: Path | None, *, needed: bool) -> None:
    """Make it a usage error to name no file where one is ``needed``, or to shape a figure that is not drawn."""
    if output is None and csv is None and needed:
        raise typer.BadParameter("name the figure to write; or pass --csv, --json or --dry-run", param_hint="--output")
    if output is None:
        options.refuse_unused("this is about the figure; name it with --output", "--width", "--label")


def _check_source(source: Path | None) -> Path:
    """The checkpoint to draw; a usage error where there is none, or where a log stands in its place."""
    if source is None:
        raise typer.BadParameter("name the checkpoint to draw, or the log of a training with --log", param_hint="FILE")
    if source.suffix == ".jsonl":
        raise typer.BadParameter(f"{source} is the log of a training; give it as --log {source}", param_hint="FILE")
    return source


def _check_logs(logs: list[Path], source: Path | None) -> None:
    """Make it a usage error to give what logs have no use for, or too many logs."""
    from daukit.workflows.moves import check_logs

    if source is not None:
        raise typer.BadParameter(f"--log is drawn without a checkpoint; drop {source}", param_hint="FILE")
    for path in logs:
        if path.suffix == ".safetensors":
            log = f"its training's log, perhaps {path.with_suffix('.jsonl').name}"
            raise typer.BadParameter(
                f"{path} is no log; drop --log to draw its units, or give {log}", param_hint="--log"
            )
    options.refuse_unused("--log draws what a training wrote of its units; drop this", *_OF_CHECKPOINTS)
    with options.usage_of("--log"):
        check_logs(logs)


def _plot_logs(
    logs: list[Path],
    layers: list[str] | None,
    width: Width,
    labels: list[str],
    output: Path | None,
    csv: Path | None,
    *,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Draw how far units moved in some trainings."""
    check_outputs(output, csv, overwrite=overwrite, dry_run=dry_run, sources=logs)
    from daukit.workflows import moves

    with options.usage_of("--label"):
        moves.check_labelled(labels, len(logs))
    result = moves.plot_moves(
        logs, layers=layers, width=width, labels=labels, output=None if dry_run else output,
        csv=None if dry_run else csv, overwrite=overwrite,
    )  # fmt: skip
    print_json("plot-offsets", result)
    print_moves(result)
    wrote(result.output, result.csv)
    if dry_run and (output or csv):
        note("dry run: nothing was written")


def _check_kind(kind: Kind | None, before: Path | None, width: Width) -> Kind:
    """The kind to draw; a usage error where it does not go with the other options."""
    drawn = kind or ("both" if before is None else "change")
    if drawn == "change" and before is None:
        raise typer.BadParameter("a change needs a second checkpoint: --before OTHER", param_hint="--kind")
    if drawn in ("1d", "2d", "both") and before is not None:
        raise typer.BadParameter(f"--kind {drawn} draws one file; give --kind change or sigma", param_hint="--before")
    if drawn in ("both", "change") and width == "column":
        raise typer.BadParameter(
            f"--kind {drawn} does not fit into a column; 1d, 2d and sigma do", param_hint="--width"
        )
    return drawn


def _weight_filters(keep_top: str | None, keep_rel: str | None) -> tuple[FilterRule, list[float]]:
    if keep_top is not None and keep_rel is not None:
        raise typer.BadParameter("--keep-top and --keep-rel are two ways to filter; give one", param_hint="--keep-rel")
    if keep_rel is not None:
        return "keep-rel", options.parse_numbers(keep_rel, "--keep-rel")
    shares = options.parse_numbers("1,0.9,0.75" if keep_top is None else keep_top, "--keep-top")
    if 0 in shares:
        raise typer.BadParameter("0 would keep no unit; shares are above 0 and at most 1", param_hint="--keep-top")
    return "keep-top", shares
