"""``daukit convert`` for networks: DAU layers in the place of convolutions, and what that would take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from daukit.cli import options
from daukit.cli.progress import progress_bar
from daukit.cli.report import note, print_json, print_line, print_table
from daukit.errors import naming

if TYPE_CHECKING:
    from torch import nn

    from daukit.checkpoint import Checkpoint
    from daukit.substitution import SkippedLayer, SubstitutionReport, UnitsTable

# By the relative error of a layer's kernels, which for inputs without structure is that of its outputs.
_VERDICTS = (
    (0.02, "as good as exact: layers answer as before, but for at most two percent"),
    (0.1, "near: compare the accuracy before you use the network without training on"),
    (0.3, "rough: train on (daukit train --from) before you use the network"),
    (
        math.inf,
        "far from the trained kernels: a start for training (daukit train --from), no replacement; more --units or a "
        "smaller --sigma come nearer, and --units-table says how many it takes",
    ),
)


@dataclass(frozen=True)
class NetworkOptions:
    """What ``convert`` was asked to do with a network."""

    substitute: bool
    units_table: bool
    units: int | None
    where: list[str] | None
    kernel_size: int | None
    sigma: float | None
    fit: bool
    seed: int
    model: str | None
    model_arg: tuple[str, ...]
    weights: str | None

    @property
    def is_asked(self) -> bool:
        """Whether SOURCE is said to be a network, or is to be treated as one."""
        return self.substitute or self.units_table or self.model is not None

    def refuse(self) -> None:
        """Make it a usage error to give any of these where SOURCE is a file of another library."""
        given = {
            "--substitute": self.substitute, "--units-table": self.units_table, "--model": self.model,
            "--model-arg": self.model_arg, "--weights": self.weights,
        }  # fmt: skip
        for name, value in given.items():
            if value:
                raise typer.BadParameter("is for networks, not for files of another library", param_hint=name)

    def check(self) -> None:
        """Make it a usage error to give an option whose command is missing."""
        if self.substitute and self.units_table:
            raise typer.BadParameter("one at a time", param_hint="--substitute and --units-table")
        if self.units_table and (self.units is not None or self.fit):
            raise typer.BadParameter("the table fits every number of units", param_hint="--units and --fit")
        if not self.substitute and not self.units_table:
            given = {"--units": self.units, "--where": self.where, "--kernel-size": self.kernel_size,
                     "--sigma": self.sigma, "--fit": self.fit or None}  # fmt: skip
            for name, value in given.items():
                if value is not None:
                    raise typer.BadParameter("needs --substitute or --units-table", param_hint=name)

    def common(self) -> dict[str, Any]:
        """Options of both library functions."""
        sigma = {} if self.sigma is None else {"sigma": self.sigma}
        return {"where": self.where, "kernel_size": self.kernel_size, "seed": self.seed, **sigma}


def convert_network(source: Path, asked: NetworkOptions) -> tuple[Checkpoint | None, dict[str, Any]]:
    """Do what was asked and print it; the checkpoint to write, None for a table alone, and the result for JSON."""
    from daukit.checkpoint import build_model, from_model
    from daukit.errors import CheckpointError
    from daukit.models import record_of

    checkpoint = options.read_source(source, asked.model, asked.model_arg, asked.weights)
    result: dict[str, Any] = {"file": str(source), "source": "daukit", "architecture": checkpoint.header.architecture}
    if not asked.substitute and not asked.units_table:
        return checkpoint, result
    network = build_model(checkpoint, model=asked.model)
    if asked.units_table:
        with naming(str(source)):
            table = _needs(network, asked)
        print_json("convert", {**result, **asdict(table), "total_units": list(table.total_units)})
        _print_needs(source, table)
        return None, result
    with naming(str(source)):
        report = _substitute(network, asked)
    if not report.layers:
        raise CheckpointError(f"{source}: its network has no convolution that a DAU layer can stand for{_why(report)}")
    record = record_of(network)
    assert record is not None
    record.history[-1]["source"] = checkpoint.digest
    result |= {"substitution": asdict(report), "parameters_before": report.parameters_before,
               "parameters_after": report.parameters_after}  # fmt: skip
    _print_report(source, report)
    return from_model(network), result


def _why(report: SubstitutionReport) -> str:
    """The first of the reasons that layers were left as they are for."""
    return f"; {report.skipped[0].name}: {report.skipped[0].reason}" if report.skipped else ""


def _substitute(network: nn.Module, asked: NetworkOptions) -> SubstitutionReport:
    import torch

    from daukit.substitution import substitute

    torch.manual_seed(asked.seed)  # of the weights of new layers, where they are not fitted
    with progress_bar(1) as update:
        return substitute(
            network, 2 if asked.units is None else asked.units, **asked.common(), fit=asked.fit,
            on_filters=lambda done, total: update(done / total, f"{done:,} of {total:,} filters"),
        )  # fmt: skip


def _needs(network: nn.Module, asked: NetworkOptions) -> UnitsTable:
    from daukit.substitution import units_needed

    with progress_bar(1) as update:
        return units_needed(
            network, **asked.common(),
            on_filters=lambda done, total: update(done / total, f"{done:,} of {total:,} filters"),
        )  # fmt: skip


def _print_report(source: Path, report: SubstitutionReport) -> None:
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
    """What the relative error of a fitted layer means for whoever wants to use it."""
    return next(words for bound, words in _VERDICTS if error <= bound)


def _print_needs(source: Path, table: UnitsTable) -> None:
    rows = [
        (layer.name, "x".join(map(str, layer.kernel_size)), layer.filters, layer.filters_fitted, *layer.units)
        for layer in table.layers
    ]
    totals = ("units in all", None, sum(layer.filters for layer in table.layers), None, *table.total_units)
    errors = (f"error <= {error:g}" for error in table.errors)
    title = f"{source.name}: units per filter for a relative error, sigma {table.sigma:g}, up to {table.max_units}"
    print_table(title, ("layer", "kernel", "filters", "fitted", *errors), [*rows, totals], answer=True)
    _note_skipped(table.skipped)


def _note_skipped(skipped: Sequence[SkippedLayer]) -> None:
    for layer in skipped:
        note(f"{layer.name} stays: {layer.reason}")
