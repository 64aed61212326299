"""The numbers behind the figures as tables in CSV, one line per mark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np

from daukit.offsets.changes import LayerChanges
from daukit.offsets.distributions import Distribution, LayerDistributions
from daukit.offsets.histograms import Array
from daukit.offsets.sigmas import LayerSigmas
from daukit.texts import csv_text

Kind = Literal["1d", "2d"]

CSV_COLUMNS = ("layer", "weight_filter", "share", "kind", "distance", "y", "x", "bin_width", "density")
CHANGE_COLUMNS = (*CSV_COLUMNS, "before_y", "before_x", "after_y", "after_x")
SIGMA_COLUMNS = ("layer", "weight_filter", "share", "kind", "value", "bin_width", "density")

Row = tuple[object, ...]


class _Densities(Protocol):
    """Attributes that displacements and their changes have in common."""

    @property
    def name(self) -> str: ...
    @property
    def bin_width(self) -> float: ...
    @property
    def distance_edges(self) -> Array: ...
    @property
    def edges(self) -> Array: ...
    @property
    def distributions(self) -> Sequence[Distribution]: ...


def to_csv(layers: Sequence[LayerDistributions], kinds: Sequence[Kind] = ("1d", "2d")) -> str:
    """The curves as a table: one line per bin, at its centre, with the columns ``CSV_COLUMNS``.

    A distribution whose kept weights are all zero has no lines.
    """
    return csv_text(CSV_COLUMNS, (row for layer in layers for row in _densities(layer, kinds)))


def changes_to_csv(layers: Sequence[LayerChanges]) -> str:
    """The changes likewise, with the columns ``CHANGE_COLUMNS`` and, of kind ``flow``, the arrows of cells with weight.

    The last four columns hold, for an arrow, where the cell's units were and are on average; no filter applies to it.
    """
    return csv_text(CHANGE_COLUMNS, (row for layer in layers for row in (*_change_rows(layer), *_arrows(layer))))


def sigmas_to_csv(layers: Sequence[LayerSigmas]) -> str:
    """The curves of sigmas, with the columns ``SIGMA_COLUMNS`` and the kinds ``sigma``, ``before`` and ``change``."""
    return csv_text(SIGMA_COLUMNS, (row for layer in layers for row in _sigma_rows(layer)))


def _densities(layer: _Densities, kinds: Sequence[Kind]) -> Iterator[Row]:
    distance, centre = _centres(layer.distance_edges), _centres(layer.edges)
    for distribution in layer.distributions:
        if distribution.mean_distance is None:
            continue
        start = (layer.name, distribution.weight_filter.rule, distribution.weight_filter.share)
        if "1d" in kinds:
            for d, value in zip(distance, distribution.density.tolist(), strict=True):
                yield (*start, "1d", d, "", "", layer.bin_width, value)
        if "2d" in kinds:
            for y, row in zip(centre, distribution.density_2d.tolist(), strict=True):
                for x, value in zip(centre, row, strict=True):
                    yield (*start, "2d", "", y, x, layer.bin_width, value)


def _change_rows(layer: LayerChanges) -> Iterator[Row]:
    for row in _densities(layer, ("1d", "2d")):
        yield (*row, "", "", "", "")


def _arrows(layer: LayerChanges) -> Iterator[Row]:
    flow = layer.flow
    centre, width = _centres(flow.edges), float(flow.edges[1] - flow.edges[0])
    for i, j in np.argwhere(flow.density).tolist():
        places = (*flow.before[:, i, j].tolist(), *flow.after[:, i, j].tolist())
        yield (layer.name, "", "", "flow", "", centre[i], centre[j], width, float(flow.density[i, j]), *places)


def _sigma_rows(layer: LayerSigmas) -> Iterator[Row]:
    for kind, values in (("sigma", layer.now), ("before", layer.before), ("change", layer.change)):
        if values is None:
            continue
        width = float(values.edges[1] - values.edges[0])
        for distribution in values.distributions:
            if distribution.mean is not None:
                start = (layer.name, distribution.weight_filter.rule, distribution.weight_filter.share, kind)
                for value, density in zip(_centres(values.edges), distribution.density.tolist(), strict=True):
                    yield (*start, value, width, density)


def _centres(edges: Array) -> list[float]:
    centres: list[float] = ((edges[:-1] + edges[1:]) / 2).tolist()
    return centres
