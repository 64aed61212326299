"""Rescale a checkpoint: plan, compare with the network before, and write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daukit.checkpoint import Checkpoint, write
from daukit.errors import naming
from daukit.files import CHECKPOINT_SUFFIXES, check_output
from daukit.rescale import (
    Difference,
    HeadPadding,
    LayerChange,
    Mode,
    RescaleReport,
    StridePlan,
    check_exact,
    compare_modes,
    plan_like,
    remove_pools,
    rescale_factors,
)
from daukit.results import Count, result_of


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A mode that cannot be compared.

    Attributes:
        refused: the reason.
    """

    refused: str


@dataclass(frozen=True, kw_only=True)
class BothModes:
    """The distance of each mode's network from the network before.

    Attributes:
        paper: comparison of mode paper.
        exact: comparison of mode exact.
    """

    paper: Difference | Refused
    exact: Difference | Refused

    def of(self, mode: Mode) -> Difference | Refused:
        """The comparison of one mode."""
        return self.paper if mode == "paper" else self.exact


@dataclass(frozen=True, kw_only=True)
class Rescaling:
    """Rescaled displacements, and the plan they follow from.

    Attributes:
        mode: paper scales displacements and takes pools out; exact dilates and keeps pools at stride 1.
        pools: pools taken out (paper) or kept at stride 1 (exact).
        strides: layers that no longer stride.
        layers: layers that hold weights or changed, in the network's order.
        clipped: units of the network that the old limits would have clipped.
        beyond: units of the network beyond their new limits.
        stopped_before: modules that read a whole map; they and what follows them are unchanged.
        head_position: position (y, x) of the dense predictions that holds the linear head's former answer; None
            where no linear layer became a window.
        like: the plan that --like found; None without it.
        verify: comparison of this mode with the network before; None unless asked for.
        verify_modes: comparison of both modes with the network before; None unless asked for.
        output: checkpoint written; None if none was.
        bytes_before: size of the file before.
        bytes_after: size of the checkpoint written.
    """

    mode: Mode
    pools: tuple[str, ...]
    strides: tuple[str, ...]
    layers: tuple[LayerChange, ...]
    clipped: Count
    beyond: Count
    stopped_before: tuple[str, ...]
    head_position: tuple[Count, Count] | None
    like: StridePlan | None
    verify: Difference | Refused | None
    verify_modes: BothModes | None
    output: Path | None
    bytes_before: Count | None = None
    bytes_after: Count | None = None


def rescale_checkpoint(
    checkpoint: Checkpoint,
    *,
    factors: Mapping[str, float] | None = None,
    pools: Sequence[str] = (),
    strides: Sequence[str] = (),
    like: str | None = None,
    like_options: Mapping[str, Any] | None = None,
    mode: Mode = "paper",
    head_padding: HeadPadding = "valid",
    verify: bool = False,
    model: str | None = None,
    input_size: tuple[int, int] | None = None,
    seed: int = 0,
    device: str = "cpu",
    output: Path | None = None,
    overwrite: bool = False,
    on_plan: Callable[[RescaleReport, StridePlan | None], None] | None = None,
) -> Rescaling:
    """Rescale displacements by factors of layers, by the pools and strides to remove, or by another network.

    Args:
        checkpoint: what to rescale; it is not changed.
        factors: {name of a DAU layer: factor}; needs no network.
        pools: pools to remove, as in ``remove_pools``.
        strides: layers whose stride to remove, as in ``remove_pools``.
        like: remove the pools and strides that this network lacks, as in ``plan_like``.
        like_options: options of the ``like`` network.
        mode: ``"paper"`` or ``"exact"``.
        head_padding: as in ``remove_pools``.
        verify: compare both modes with the network before, on noise, and refuse a difference that breaks the promise
            of mode ``exact``.
        model: as in ``daukit.load``.
        input_size: (height, width) of the network's input, where the file does not tell it.
        seed: of the noise.
        device: where to compare.
        output: file to write; None: none.
        overwrite: replace it if it exists.
        on_plan: called with what changes before anything is compared or written.

    Raises:
        ValueError: factors, pools or strides, and another network are not given one at a time, or factors are to be
            verified.
        CheckpointError: the checkpoint cannot be rescaled so, or the proof of mode ``exact`` fails.
        NetworkError: the network cannot be run on its input.
        OutputError: the output cannot be written.
    """
    if sum((bool(factors), bool(pools or strides), like is not None)) != 1:
        raise ValueError("give either factors, or pools and strides, or like")
    if factors and verify:
        raise ValueError("a factor moves no position that could be compared; drop verify")
    if output is not None:
        sources = [] if checkpoint.path is None else [checkpoint.path]
        check_output(output, overwrite=overwrite, sources=sources, suffixes=CHECKPOINT_SUFFIXES)
    plan, both = None, None
    with naming(checkpoint.called):
        if factors:
            rescaled, report = rescale_factors(checkpoint, factors, mode)
        else:
            if like is not None:
                plan = plan_like(checkpoint, like, like_options, model=model)
                pools, strides = plan.pools, plan.strides
            rescaled, report = remove_pools(
                checkpoint,
                pools,
                mode,
                strides=strides,
                head_padding=head_padding,
                model=model,
                input_size=input_size,
            )
    if on_plan is not None:
        on_plan(report, plan)
    if verify:
        with naming(checkpoint.called):
            compared = compare_modes(
                checkpoint,
                rescaled,
                report,
                head_padding=head_padding,
                model=model,
                input_size=input_size,
                seed=seed,
                device=device,
            )
            both = BothModes(paper=_compared(compared["paper"]), exact=_compared(compared["exact"]))
            if mode == "exact" and isinstance(both.exact, Difference):
                check_exact(both.exact)
    written = None if output is None else write(rescaled, output, overwrite=overwrite)
    size = None if output is None else checkpoint.file_size
    return _result(report, plan, both, output=output, bytes_before=size, bytes_after=written)


def _compared(difference: Difference | str) -> Difference | Refused:
    return Refused(refused=difference) if isinstance(difference, str) else difference


def _result(
    report: RescaleReport,
    plan: StridePlan | None,
    both: BothModes | None,
    *,
    output: Path | None,
    bytes_before: int | None,
    bytes_after: int | None,
) -> Rescaling:
    return result_of(
        Rescaling,
        report,
        like=plan,
        verify=None if both is None else both.of(report.mode),
        verify_modes=both,
        output=output,
        bytes_before=bytes_before,
        bytes_after=bytes_after,
    )
