"""``daukit rescale``: displacements times a factor, or pools and strides gone and every layer behind them adapted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli import options
from daukit.cli.report import change, note, print_json, print_line, print_table, speak, wrote
from daukit.errors import naming

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint
    from daukit.rescale import Difference, HeadPadding, LayerChange, Mode, RescaleReport, StridePlan


_PROMISES = {
    "exact": "this mode promises less than 1e-6: the former outputs at the former positions",
    "paper": "this mode promises displacements that fit the finer maps, not the former outputs: train it on",
}
_NO_PROMISE = (
    "does not promise the former outputs: train the network on (daukit train --from), or take --mode exact, which "
    "keeps them at the former positions"
)


def rescale(
    source: options.Source,
    output: options.Output = None,
    factor: Annotated[
        list[str] | None, typer.Option(metavar="LAYER=NUMBER", help="Factor of one DAU layer; repeatable.")
    ] = None,
    remove_pool: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Pool to remove, factors follow from it; repeatable.")
    ] = None,
    remove_stride: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Convolution or DAU layer that shall not stride any more; repeatable."),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="NETWORK", help="Remove the pools and strides that this definition of the network lacks."),
    ] = None,
    like_arg: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the --like network; repeatable.")
    ] = None,
    mode: Annotated[
        Literal["paper", "exact"],
        typer.Option(help="paper: scale displacements, take pools out; exact: dilate, keep pools at stride 1."),
    ] = "paper",
    head_padding: Annotated[
        Literal["valid", "same"],
        typer.Option(help="Where linear heads predict: valid: within the map; same: at every position of it."),
    ] = "valid",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare networks on noise before writing, in both modes (not --factor).")
    ] = False,
    size: Annotated[
        str | None, typer.Option(metavar="H,W", help="Size of the network's input, where the file does not tell it.")
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rescale displacements for maps of higher resolution (paper, section 4.3)."""
    speak(json=json, quiet=quiet)
    removal = _Removal(
        remove_pool or [], remove_stride or [], like, options.parse_values(like_arg, "--like-arg"), mode, head_padding,
        model, None if size is None else options.parse_size(size),
    )  # fmt: skip
    _check_usage(factor, removal, verify=verify, has_output=output is not None or dry_run)
    if factor:
        options.refuse_unused("a factor needs no network; drop it", "--size")
    if not verify:
        options.refuse_unused("only --verify needs it; drop it", "--seed", "--device")
    factors = _factors(factor)
    options.check_device(device)
    from daukit.checkpoint import write
    from daukit.files import CHECKPOINT_SUFFIXES, check_output
    from daukit.rescale import rescale_factors

    if output is not None and not dry_run:
        check_output(output, overwrite=overwrite, sources=[source], suffixes=CHECKPOINT_SUFFIXES)
    before = options.read_source(source, model, model_arg, weights)
    likeness = None
    with naming(str(source)):
        if factor:
            options.choose_layers(list(factors), before.layer_names, source)
            after, report = rescale_factors(before, factors, mode)
        else:
            after, report, likeness = removal.apply(before)
    _print_plan(report, likeness)
    with naming(str(source)):
        differences = removal.differences(before, after, report, seed, device) if verify else None
    _check_exact(report, differences)
    result = _summary(report, likeness, differences)
    if output is not None and not dry_run:
        written = write(after, output, overwrite=overwrite)
        result |= {"output": str(output), "bytes_before": before.file_size, "bytes_after": written}
    print_json("rescale", result)
    _print_outcome(differences, result)


@dataclass(frozen=True)
class _Removal:
    """What the options say of pools and strides that go."""

    pools: list[str]
    strides: list[str]
    like: str | None
    like_options: dict[str, Any]
    mode: Mode
    head_padding: HeadPadding
    model: str | None
    input_size: tuple[int, int] | None

    def apply(self, before: Checkpoint) -> tuple[Checkpoint, RescaleReport, StridePlan | None]:
        """The rescaled checkpoint, its report and, with --like, what was found by it."""
        from daukit.rescale import plan_like, remove_pools

        plan = None if self.like is None else plan_like(before, self.like, self.like_options, model=self.model)
        pools, strides = (self.pools, self.strides) if plan is None else (plan.pools, plan.strides)
        after, report = remove_pools(
            before, pools, self.mode, strides=strides, head_padding=self.head_padding, model=self.model,
            input_size=self.input_size,
        )  # fmt: skip
        return after, report, plan

    def differences(
        self, before: Checkpoint, after: Checkpoint, report: RescaleReport, seed: int, device: str
    ) -> dict[Mode, Difference | str]:
        """How far both modes are from the network before."""
        from daukit.rescale import compare_modes

        return compare_modes(
            before, after, report, head_padding=self.head_padding, model=self.model, input_size=self.input_size,
            seed=seed, device=device,
        )  # fmt: skip


def _check_usage(factor: list[str] | None, removal: _Removal, *, verify: bool, has_output: bool) -> None:
    ways = [bool(factor), bool(removal.pools or removal.strides), removal.like is not None]
    if sum(ways) != 1:
        message = "give either --factor, or --remove-pool and --remove-stride, or --like"
        raise typer.BadParameter(message, param_hint="--factor")
    if removal.like_options and removal.like is None:
        raise typer.BadParameter("options of a second network need its name: --like", param_hint="--like-arg")
    if factor and verify:
        raise typer.BadParameter("a factor moves no position that could be compared; drop it", param_hint="--verify")
    if factor and removal.head_padding != "valid":
        raise typer.BadParameter("a factor changes DAU layers only, no head; drop it", param_hint="--head-padding")
    if not has_output:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")


def _factors(items: list[str] | None) -> dict[str, float]:
    factors = options.parse_values(items, "--factor")
    for name, factor in factors.items():
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not (number and factor > 0 and math.isfinite(factor)):
            message = f"the factor of {name} must be a positive number, got {factor}"
            raise typer.BadParameter(message, param_hint="--factor")
    return {name: float(factor) for name, factor in factors.items()}


def _check_exact(report: RescaleReport, differences: dict[Mode, Difference | str] | None) -> None:
    """Refuse to write a file that breaks mode exact's promise."""
    from daukit.errors import DaukitError
    from daukit.rescale import EXACT_LIMIT

    difference = None if differences is None else differences[report.mode]
    if report.mode != "exact" or difference is None or isinstance(difference, str):
        return
    if not difference.is_exact:
        raise DaukitError(
            f"the rescaled network differs by {difference.relative:.2g} of the largest output and lacks "
            f"{difference.missing} positions, where mode exact allows {EXACT_LIMIT:g} and none; nothing was written"
        )


def _summary(
    report: RescaleReport, likeness: StridePlan | None, differences: dict[Mode, Difference | str] | None
) -> dict[str, Any]:
    verified = {
        mode: {"refused": difference} if isinstance(difference, str) else asdict(difference)
        for mode, difference in (differences or {}).items()
    }
    return {
        "mode": report.mode,
        "pools": list(report.pools),
        "strides": list(report.strides),
        "layers": [asdict(layer) for layer in report.layers],
        "clipped": report.clipped,
        "beyond": report.beyond,
        "stopped_before": list(report.stopped_before),
        "head_position": report.head_position,
        "like": None if likeness is None else asdict(likeness),
        "verify": verified.get(report.mode),
        "verify_modes": verified or None,
        "output": None,
    }


def _print_plan(report: RescaleReport, likeness: StridePlan | None) -> None:
    """The plan as a table, and what it does to limits: before anything is compared or written."""
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
            f"factors of {len(likeness.checked)} modules are those of the two networks' accumulated strides"
            + (f"; the second one lacks {', '.join(likeness.missing)}" if likeness.missing else "")
        )
    if report.pools:
        yield f"{', '.join(report.pools)}: {'taken out' if report.mode == 'paper' else 'kept at stride 1'}"
    if report.strides:
        yield f"{', '.join(report.strides)}: stride 1"
    yield f"displacements over the layers' old limits, which would have clipped them: {report.clipped:,}"
    if report.beyond:
        yield (
            f"displacements over the new limits, as they were over the old ones: {report.beyond:,}; kept here, but "
            "project_displacements (training) will clip them"
        )
    for name in report.stopped_before:
        yield (
            f"stopped before {name}, which reads a whole map: it and what follows are unchanged"
            + (", and equality ends at its input" if report.mode == "exact" else "")
        )
    if report.gates:
        reads = "the whole finer map" if report.mode == "paper" else "the former positions of the finer map"
        yield f"{', '.join(report.gates)}: pooled for a gate, reads {reads}"
    if report.proof is not None:
        yield (
            f"run on noise of {_axes(report.proof.input_size)}: {report.proof.relative:.2g} of the largest output "
            "apart from the network before at its positions"
        )
    elif report.mode == "exact" and (report.pools or report.strides):
        yield (
            "not checked by running it: the file does not tell its input's size, and none of the usual ones will do; "
            "give --size H,W"
        )
    if report.head_position not in (None, (0, 0)):
        yield (
            f"what the linear head said before lies at position {report.head_position} of its predictions; evaluate "
            "and train read (0, 0), as --head-padding valid has it"
        )


def _print_outcome(differences: dict[Mode, Difference | str] | None, result: dict[str, Any]) -> None:
    for mode, difference in (differences or {}).items():
        if isinstance(difference, str):
            note(f"mode {mode} cannot be compared: {difference}")
            continue
        height, width = difference.input_size
        note(
            f"mode {mode}: largest difference at {difference.positions:,} common positions ({difference.missing:,} "
            f"missing), noise of {height} x {width}: {difference.relative:.2g} of the largest output; {_PROMISES[mode]}"
        )
    if result["mode"] == "paper" and (result["pools"] or result["strides"]):
        note(f"mode paper {_NO_PROMISE}")
    if result["output"] is None:
        note("dry run: nothing was written")
        return
    print_line(f"file: {change(result['bytes_before'], result['bytes_after'], 'bytes')}")
    wrote(result["output"])


def _axes(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def _change(before: float | str | None, after: float | str | None) -> str | None:
    """Both values, or the one where nothing changed."""
    first, second = (f"{value:.4g}" if isinstance(value, float) else value for value in (before, after))
    return first if first == second else f"{first} -> {second}"
