"""``daukit rescale``: displacements times a factor, or pools taken out and every layer behind them adapted."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli import options
from daukit.cli.report import note, print_json, print_table

if TYPE_CHECKING:
    from daukit.rescale import Difference, RescaleReport


def rescale(
    source: options.Source,
    output: options.Output = None,
    factor: Annotated[
        list[str] | None, typer.Option(metavar="LAYER=NUMBER", help="Factor of one DAU layer; repeatable.")
    ] = None,
    remove_pool: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Pool to remove, factors follow from it; repeatable.")
    ] = None,
    mode: Annotated[
        Literal["paper", "exact"],
        typer.Option(help="paper: scale displacements, take pools out; exact: dilate, keep pools at stride 1."),
    ] = "paper",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare both networks on noise before writing (with --remove-pool).")
    ] = False,
    size: Annotated[
        str | None, typer.Option(metavar="H,W", help="Size of the network's input, where the file does not tell it.")
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Rescale displacements for maps of higher resolution (paper, section 4.3)."""
    if bool(factor) == bool(remove_pool):
        raise typer.BadParameter("give either --factor or --remove-pool", param_hint="--factor")
    if verify and not remove_pool:
        raise typer.BadParameter("outputs are compared where --remove-pool names the pools", param_hint="--verify")
    if output is None and not dry_run:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")
    factors, input_size = _factors(factor), None if size is None else options.parse_size(size)
    options.check_device(device)
    from daukit.checkpoint import write
    from daukit.files import check_output
    from daukit.rescale import compare, remove_pools, rescale_factors

    if output is not None and not dry_run:
        check_output(output, overwrite=overwrite)
    before = options.read_source(source, model, model_arg)
    if remove_pool:
        after, report = remove_pools(before, remove_pool, mode, model=model, input_size=input_size)
    else:
        options.choose_layers(list(factors), before.layer_names, source)
        after, report = rescale_factors(before, factors, mode)
    difference = None
    if verify:
        difference = compare(before, after, report.pools, model=model, input_size=input_size, seed=seed, device=device)
        _check_exact(report, difference)
    result = _summary(report, difference)
    if output is not None and not dry_run:
        size_before = source.stat().st_size
        size_after = write(after, output, overwrite=overwrite)
        result |= {"output": str(output), "bytes_before": size_before, "bytes_after": size_after}
    if json:
        print_json(result)
    else:
        _print(report, difference, result)


def _factors(items: list[str] | None) -> dict[str, float]:
    factors = options.parse_values(items, "--factor")
    for name, factor in factors.items():
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not (number and factor > 0 and math.isfinite(factor)):
            message = f"the factor of {name} must be a positive number, got {factor}"
            raise typer.BadParameter(message, param_hint="--factor")
    return {name: float(factor) for name, factor in factors.items()}


def _check_exact(report: RescaleReport, difference: Difference) -> None:
    """Refuse to write a file that breaks mode exact's promise."""
    from daukit.errors import DaukitError
    from daukit.rescale import EXACT_LIMIT

    if report.mode == "exact" and (not difference.relative <= EXACT_LIMIT or difference.missing):
        raise DaukitError(
            f"the rescaled network differs by {difference.relative:.2g} of the largest output and lacks "
            f"{difference.missing} positions, where mode exact allows {EXACT_LIMIT:g} and none; nothing was written"
        )


def _summary(report: RescaleReport, difference: Difference | None) -> dict[str, Any]:
    return {
        "mode": report.mode,
        "pools": list(report.pools),
        "layers": [asdict(layer) for layer in report.layers],
        "clipped": report.clipped,
        "stopped_before": list(report.stopped_before),
        "verify": None if difference is None else asdict(difference),
        "output": None,
    }


def _print(report: RescaleReport, difference: Difference | None, result: dict[str, Any]) -> None:
    rows = [
        (
            layer.name, layer.type, layer.factor, _change(layer.limit_before, layer.limit_after),
            _change(layer.displacement_before, layer.displacement_after),
            _change(_spread(layer.dilation_before), _spread(layer.dilation_after)), layer.clipped,
        )
        for layer in report.layers
    ]  # fmt: skip
    columns = ("layer", "type", "factor", "limit (px)", "max |mu| per axis (px)", "dilation", "over old limit")
    print_table(f"Rescaled, mode {report.mode}", columns, rows)
    if report.pools:
        note(f"{', '.join(report.pools)}: {'taken out' if report.mode == 'paper' else 'kept at stride 1'}")
    note(f"displacements over the layers' old limits, which would have clipped them: {report.clipped:,}")
    for name in report.stopped_before:
        note(
            f"stopped before {name}, which reads a whole map: it and what follows are unchanged"
            + (", and equality ends at its input" if report.mode == "exact" else "")
        )
    if difference is not None:
        height, width = difference.input_size
        note(
            f"largest difference at {difference.positions:,} common positions ({difference.missing:,} missing), noise "
            f"of {height} x {width}: {difference.relative:.2g} of the largest output"
        )
    if result["output"] is None:
        note("dry run: nothing was written")
        return
    note(f"{result['output']}: {result['bytes_before']:,} -> {result['bytes_after']:,} bytes")


def _spread(dilation: tuple[int, int]) -> str:
    return str(dilation[0]) if dilation[0] == dilation[1] else f"{dilation[0]}x{dilation[1]}"


def _change(before: float | str | None, after: float | str | None) -> str | None:
    """Both values, or the one where nothing changed."""
    first, second = (f"{value:.4g}" if isinstance(value, float) else value for value in (before, after))
    return first if first == second else f"{first} -> {second}"
