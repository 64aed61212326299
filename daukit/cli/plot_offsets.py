"""``daukit plot-offsets``: draw where a network's units sit, and write the numbers behind the drawing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli import options
from daukit.cli.report import note, print_json, print_table

if TYPE_CHECKING:
    from daukit.offsets import LayerDistributions, Rule


def plot_offsets(
    source: options.Source,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FIG", help="Figure to write: .png, .pdf or .svg.")
    ] = None,
    kind: Annotated[
        Literal["1d", "2d", "both"],
        typer.Option(help="Distances to the centre (Fig. 6), 2-D densities (Fig. 7), or both in one figure."),
    ] = "both",
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="NAME", help="Draw this layer only; repeatable. Default: all."),
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
    bins: Annotated[int, typer.Option(min=1, help="Cells across a layer's square; fewer for small layers.")] = 79,
    near: Annotated[float, typer.Option(min=0, help="A unit has not moved within this distance in pixels.")] = 0.1,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the numbers behind the curves.")] = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    device: Annotated[
        str, typer.Option("--device", help="Taken as in every command; these statistics always run on the CPU.")
    ] = "cpu",
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Draw the distributions of the displacements of a checkpoint's units, weighted by |w| (paper, section 4.3)."""
    rule, shares = _weight_filters(keep_top, keep_rel)
    if output is None and csv is None and not (json or dry_run):
        raise typer.BadParameter("name the figure to write; or pass --csv, --json or --dry-run", param_hint="--output")
    if output is not None and output == csv:
        raise typer.BadParameter("the figure and the numbers need a file each", param_hint="--csv")
    if not dry_run:
        _check_outputs(output, csv, overwrite)
    options.check_device(device)
    from daukit.offsets import displacement_distributions

    checkpoint = options.read_source(source, model, model_arg)
    names = options.choose_layers(layer, checkpoint.layer_names, source) if layer else None
    layers = displacement_distributions(checkpoint, names, rule=rule, shares=shares, bins=bins, near=near)
    if not dry_run:
        _write(layers, kind, output, csv, overwrite)
    written = {"output": output, "csv": csv}
    if json:
        paths = {key: None if dry_run or path is None else str(path) for key, path in written.items()}
        entries = [_summary(entry) for entry in layers]
        print_json({"kind": kind, "weight_filter": rule, "near": near, **paths, "layers": entries})
        return
    _print(layers, source.name, near)
    for path in filter(None, written.values()):
        note(f"dry run: {path} was not written" if dry_run else f"wrote {path}")


def _weight_filters(keep_top: str | None, keep_rel: str | None) -> tuple[Rule, list[float]]:
    if keep_top is not None and keep_rel is not None:
        raise typer.BadParameter("--keep-top and --keep-rel are two ways to filter; give one", param_hint="--keep-rel")
    if keep_rel is not None:
        return "keep-rel", options.parse_numbers(keep_rel, "--keep-rel")
    shares = options.parse_numbers("1,0.9,0.75" if keep_top is None else keep_top, "--keep-top")
    if 0 in shares:
        raise typer.BadParameter("0 would keep no unit; shares are above 0 and at most 1", param_hint="--keep-top")
    return "keep-top", shares


def _check_outputs(output: Path | None, csv: Path | None, overwrite: bool) -> None:
    from daukit.cli.figures import check_format
    from daukit.files import check_output

    if output is not None:
        check_format(output)
        check_output(output, overwrite=overwrite)
    if csv is not None:
        check_output(csv, overwrite=overwrite)


def _write(
    layers: list[LayerDistributions],
    kind: Literal["1d", "2d", "both"],
    output: Path | None,
    csv: Path | None,
    overwrite: bool,
) -> None:
    if output is not None:
        from daukit.cli.figures import save_figure
        from daukit.plots.offsets import plot_displacements

        save_figure(plot_displacements(layers, kind), output, overwrite=overwrite)
    if csv is not None:
        from daukit.files import write_atomic
        from daukit.offsets import to_csv

        kinds: tuple[Literal["1d", "2d"], ...] = ("1d", "2d") if kind == "both" else (kind,)
        write_atomic(csv, to_csv(layers, kinds).encode(), overwrite=overwrite)


def _summary(layer: LayerDistributions) -> dict[str, Any]:
    return {
        "name": layer.name,
        "units": layer.units,
        "mean_distance": layer.mean_distance,
        "quantiles": None if layer.quantiles is None else {str(q): value for q, value in layer.quantiles.items()},
        "limit": None if layer.limit is None else dict(zip("yx", layer.limit, strict=True)),
        "at_limit": None
        if layer.at_limit is None
        else {a: asdict(s) for a, s in zip("yx", layer.at_limit, strict=True)},
        "initialization_points": None if layer.points is None else layer.points.T.tolist(),
        "at_initialization": None if layer.at_points is None else asdict(layer.at_points),
        "bin_width": layer.bin_width,
        "filters": [
            {
                "share": d.weight_filter.share,
                "label": d.label,
                "units": d.units,
                "mean_distance": d.mean_distance,
            }
            for d in layer.distributions
        ],
    }


def _print(layers: list[LayerDistributions], title: str, near: float) -> None:
    columns = ["layer", "units", "mean (px)", "25% (px)", "50%", "75%", "90%", "unmoved", "of |w|", "at limit y", "x"]
    rows = []
    for layer in layers:
        quantiles = (layer.quantiles or dict.fromkeys(("25%", "50%", "75%", "90%"))).values()
        unmoved = (None, None) if layer.at_points is None else (layer.at_points.units, layer.at_points.weight)
        at_limit = (None, None) if layer.at_limit is None else tuple(share.units for share in layer.at_limit)
        shares = (None if share is None else f"{share:.1%}" for share in (*unmoved, *at_limit))
        rows.append((layer.name, layer.units, layer.mean_distance, *quantiles, *shares))
    print_table(f"{title}: distance to the centre, weighted by |w|", columns, rows)
    note(f"unmoved: within {near:g} px of an initialisation point; 25%: that share of |w| lies within this distance")
