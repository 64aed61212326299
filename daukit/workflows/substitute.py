"""Put DAU layers in the place of a trained network's convolutions, or count the units that this would take."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from daukit.checkpoint import Checkpoint, build_model, from_model
from daukit.errors import CheckpointError, naming
from daukit.fitting import OnFilters
from daukit.models import record_of
from daukit.results import Count, Progress
from daukit.substitution import KernelSize, SubstitutionReport, UnitsTable, Where, substitute, units_needed
from daukit.workflows.convert import Conversion, Destination, written


@dataclass(frozen=True, kw_only=True)
class Substitution(Conversion):
    """A network whose convolutions became DAU layers.

    Attributes:
        source: always daukit.
        substitution: the layers, and those that stay.
        parameters_before: parameters of the convolutions that were replaced.
        parameters_after: parameters of the DAU layers in their place.
    """

    source: Literal["daukit"]
    substitution: SubstitutionReport
    parameters_before: Count
    parameters_after: Count


@dataclass(frozen=True, kw_only=True)
class FileUnitsTable(UnitsTable):
    """The units that a network's convolutions would need.

    Attributes:
        file: the file or folder that was read; None for a checkpoint in memory.
        source: always daukit.
        architecture: name or factory of the network with its options.
    """

    file: Path | None
    source: Literal["daukit"]
    architecture: dict[str, Any]


def substitute_layers(
    checkpoint: Checkpoint,
    destination: Destination | None = None,
    *,
    units: int | None = None,
    where: Where = None,
    kernel_size: KernelSize = None,
    sigma: float | None = None,
    fit: bool = False,
    seed: int = 0,
    model: str | None = None,
    on_progress: Progress | None = None,
) -> Substitution:
    """Replace convolutions of a checkpoint's network by DAU layers.

    Args:
        checkpoint: a network; it is not changed.
        destination: where to write; None: only describe it.
        units: units per (output, input) pair; default: as in ``daukit.substitute``.
        where: as in ``daukit.substitute``.
        kernel_size: as in ``daukit.substitute``.
        sigma: standard deviation of the units in pixels; default: as in ``daukit.substitute``.
        fit: fit the units to the trained kernels.
        seed: of the fits, and of the weights of layers that are not fitted.
        model: as in ``daukit.load``.
        on_progress: told of progress while fitting.

    Raises:
        CheckpointError: the network cannot be built, or has no convolution that can be replaced so.
        OutputError: the destination cannot be written.
    """
    if destination is not None:
        destination.check([] if checkpoint.path is None else [checkpoint.path])
    with naming(checkpoint.called):
        network = build_model(checkpoint, model=model)
        torch.manual_seed(seed)  # of the weights of new layers
        report = substitute(
            network,
            where=where,
            kernel_size=kernel_size,
            fit=fit,
            seed=seed,
            on_filters=_share_of_filters(on_progress),
            **_given(units=units, sigma=sigma),
        )
    if not report.layers:
        why = f"; {report.skipped[0].name}: {report.skipped[0].reason}" if report.skipped else ""
        raise CheckpointError(
            f"{checkpoint.called}: its network has no convolution that a DAU layer can stand for{why}"
        )
    record = record_of(network)
    assert record is not None  # build_model set it
    record.history[-1]["source"] = checkpoint.digest
    return Substitution(
        file=checkpoint.path,
        source="daukit",
        architecture=checkpoint.header.architecture,
        substitution=report,
        parameters_before=report.parameters_before,
        parameters_after=report.parameters_after,
        **written(from_model(network), destination),
    )


def tabulate_units(
    checkpoint: Checkpoint,
    *,
    where: Where = None,
    kernel_size: KernelSize = None,
    sigma: float | None = None,
    seed: int = 0,
    model: str | None = None,
    on_progress: Progress | None = None,
) -> FileUnitsTable:
    """Tabulate the units that DAU layers would need to come near to a checkpoint's trained convolutions.

    Args:
        checkpoint: a trained network.
        where: as in ``daukit.units_needed``.
        kernel_size: as in ``daukit.units_needed``.
        sigma: standard deviation of the units in pixels; default: as in ``daukit.units_needed``.
        seed: of the fits.
        model: as in ``daukit.load``.
        on_progress: told of progress.

    Raises:
        CheckpointError: the network cannot be built, or an option does not fit it.
    """
    with naming(checkpoint.called):
        table = units_needed(
            build_model(checkpoint, model=model),
            where=where,
            kernel_size=kernel_size,
            seed=seed,
            on_filters=_share_of_filters(on_progress),
            **_given(sigma=sigma),
        )
    own = {field.name: getattr(table, field.name) for field in fields(table)}
    return FileUnitsTable(**own, file=checkpoint.path, source="daukit", architecture=checkpoint.header.architecture)


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None; the others keep the defaults of the function that takes them."""
    return {name: value for name, value in options.items() if value is not None}


def _share_of_filters(on_progress: Progress | None) -> OnFilters | None:
    if on_progress is None:
        return None
    return lambda done, total: on_progress(done / total, f"{done:,} of {total:,} filters")
