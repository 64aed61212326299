"""Initialisers of weights and displacements, and how a file names them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from daukit.limits import MAX_UNITS
from daukit.ops.checks import check_integer
from daukit.ops.geometry import DEFAULT_MAX_DISPLACEMENT

Initialization = Mapping[str, Any]

UNIFORM_EXTENT = 1.5
"""Pixels within which ``uniform_`` places units by default: those of the paper's DAU-ResNet (section 5.2)."""


@torch.no_grad()
def glorot_normal_(weight: Tensor) -> Tensor:
    """Fill ``weight`` (O, C, K) by Glorot and Bengio (2010) in place: fan in ``C K``, fan out ``O K``."""
    out_channels, in_channels, units = weight.shape
    return nn.init.normal_(weight, 0.0, math.sqrt(2 / ((in_channels + out_channels) * units)))


def grid_points(rows: int, columns: int, extent: float, scale: float = 1.0) -> Tensor:
    """Centres (y, x) of a ``rows`` x ``columns`` grid of equal cells over the pixels within ``extent``: (2, points).

    The grid covers ``[-(extent + 0.5), extent + 0.5]`` on each axis: two cells within extent 3 lie at -1.75 and 1.75.
    """
    y, x = (((torch.arange(n) + 0.5) / n - 0.5) * (2 * extent + 1) * scale for n in (rows, columns))
    return torch.stack(torch.meshgrid(y, x, indexing="ij")).flatten(1)


@torch.no_grad()
def grid_(mu: Tensor, rows: int, columns: int, extent: float, scale: float = 1.0) -> Tensor:
    """Fill ``mu`` (2, O, C, rows * columns) with the points of ``grid_points`` in place."""
    points = grid_points(rows, columns, extent, scale).to(mu)
    return mu.copy_(points[:, None, None].expand_as(mu))


@torch.no_grad()
def diagonals_(mu: Tensor, extent: float, scale: float = 1.0) -> Tensor:
    """Fill ``mu`` (2, O, C, 2) with opposite corners of the 2 x 2 grid in place, so that layers see both axes alike.

    Its diagonals take turns as the colours of a chessboard do: every output has both, and so does every input.
    """
    turn = (torch.arange(mu.shape[1])[:, None] + torch.arange(mu.shape[2])) % 2  # (O, C)
    corners = torch.tensor([[0, 3], [1, 2]])[turn]  # (O, C, 2), of the four in reading order
    return mu.copy_(grid_points(2, 2, extent, scale)[:, corners].to(mu))


@torch.no_grad()
def uniform_(mu: Tensor, low: float = -UNIFORM_EXTENT, high: float = UNIFORM_EXTENT) -> Tensor:
    """Fill ``mu`` from the uniform distribution in place; defaults of the paper's DAU-ResNet (section 5.2)."""
    return mu.uniform_(low, high)


@torch.no_grad()
def normal_(mu: Tensor, mean: float = 0.0, std: float = 0.5) -> Tensor:
    """Fill ``mu`` from the normal distribution in place; defaults of the paper's deblurring (section 7)."""
    return mu.normal_(mean, std)


INITIALIZERS: dict[str, Callable[..., Tensor]] = {
    "grid": grid_, "diagonals": diagonals_, "uniform": uniform_, "normal": normal_
}  # fmt: skip
INITIALIZER_OPTIONS = {
    "grid": {"rows", "columns", "extent", "scale"},
    "diagonals": {"extent", "scale"},
    "uniform": {"low", "high"},
    "normal": {"mean", "std"},
}
"""The options of each initialiser that ``initialization_options`` writes out."""

_LENGTHS = {"grid": ("scale",), "diagonals": ("scale",), "uniform": ("low", "high"), "normal": ("mean", "std")}
"""Options that are lengths in pixels; those with an extent have a factor of their own, ``scale``."""


def grid_shape(units: int | tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a grid of ``units``: an integer becomes the squarest grid with rows <= columns."""
    if not isinstance(units, int):
        shape = units if isinstance(units, tuple) else ()
        if len(shape) != 2 or not all(isinstance(n, int) for n in shape):
            raise TypeError(f"units must be an integer or (rows, columns), got {units!r}")
    if math.prod(units if isinstance(units, tuple) else (units,)) > MAX_UNITS:
        raise ValueError(f"units must be at most {MAX_UNITS:,}, got {units}")
    if isinstance(units, int):
        rows = max((r for r in range(1, math.isqrt(max(units, 0)) + 1) if units % r == 0), default=0)
        units = (rows, units // rows if rows else 0)
    if min(units) < 1:
        raise ValueError(f"units must be positive, got {units}")
    return units[0], units[1]


def initialization_options(init: str | Initialization, rows: int, columns: int, limit: float | None) -> dict[str, Any]:
    """The initialiser's name with all its options written out, so that a file can name the starting points."""
    if not isinstance(init, (str, Mapping)):
        raise TypeError(f"init must be a name or a mapping with a name and options, got {type(init).__name__}")
    options = {"name": init} if isinstance(init, str) else dict(init)
    name = options.get("name")
    if name not in INITIALIZERS:
        raise ValueError(f"init must name one of {sorted(INITIALIZERS)}, got {name!r}")
    square = {"extent": max(0.0, (DEFAULT_MAX_DISPLACEMENT if limit is None else limit) - 1), "scale": 1.0}
    defaults: dict[str, dict[str, Any]] = {
        "grid": {"rows": rows, "columns": columns, **square},
        "diagonals": square,
        "uniform": {"low": -UNIFORM_EXTENT, "high": UNIFORM_EXTENT},
        "normal": {"mean": 0.0, "std": 0.5},
    }
    unknown = set(options) - {"name"} - set(defaults[name])
    if unknown:
        raise ValueError(f"init {name!r} has no option {sorted(unknown)}; it has {sorted(defaults[name])}")
    complete = {**defaults[name], **options}
    _check_start(complete, rows * columns)
    return complete


def _check_start(options: Initialization, units: int) -> None:
    """Refuse values that no initialiser can fill ``units`` per pair with, also where nothing is filled yet."""
    name = options["name"]
    for key, value in options.items():
        kinds = int if key in ("rows", "columns") else int | float
        if key != "name" and (isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value)):
            expected = "an integer" if kinds is int else "a finite number"
            raise ValueError(f"{key} of init {name!r} must be {expected}, got {value!r}")
    if name in ("grid", "diagonals") and not (options["extent"] >= 0 and options["scale"] > 0):
        given = f"{options['extent']} and {options['scale']}"
        raise ValueError(f"init {name!r} needs an extent of at least 0 and a positive scale, got {given}")
    if name == "grid":
        rows, columns = options["rows"], options["columns"]
        if min(rows, columns) < 1 or rows * columns != units:
            raise ValueError(f"init 'grid' of {rows} x {columns} points is not for {units} units per pair")
    if name == "diagonals" and units != 2:
        raise ValueError(f"init 'diagonals' is for two units per pair, got {units}; others start on the 'grid'")
    if name == "uniform" and options["low"] > options["high"]:
        raise ValueError(f"low of init 'uniform' must be at most its high, got {options['low']} and {options['high']}")
    if name == "normal" and options["std"] < 0:
        raise ValueError(f"std of init 'normal' must be at least 0, got {options['std']}")


def starts_of_layers(
    init: str | Initialization, units: Sequence[int], limit: float | None, factors: Sequence[float]
) -> list[dict[str, Any]]:
    """The initialiser's options for each layer of a network: ``init``, times the layer's factor.

    ``"diagonals"`` is for layers of two units; others of the network start on the grid of its extent.

    Raises:
        ValueError: as ``initialization_options``, or ``"diagonals"`` is for none of the layers.
    """
    starts = [init] * len(units)
    if init == "diagonals" or (isinstance(init, Mapping) and init.get("name") == "diagonals"):
        if 2 not in units:
            raise ValueError(f"init 'diagonals' is for layers of two units per pair, and these have {list(units)}")
        on_grid = {**({} if isinstance(init, str) else init), "name": "grid"}
        starts = [init if count == 2 else on_grid for count in units]
    return [
        scaled_options(initialization_options(start, *grid_shape(count), limit), float(factor))
        for start, count, factor in zip(starts, units, factors, strict=True)
    ]


def scaled_options(options: Initialization, factor: float) -> dict[str, Any]:
    """The options of an initialiser, all written out, with starting points times ``factor``."""
    lengths = _LENGTHS[options["name"]]
    return {key: value * factor if key in lengths else value for key, value in options.items()}


def filter_window(window: int | None, limit: float | None, sigma: float) -> int:
    """The side of the general form's filters: as given, or the least that holds the limit and 3 sigma."""
    if window is None:
        window = 2 * math.ceil((DEFAULT_MAX_DISPLACEMENT if limit is None else limit) + 3 * sigma) + 1
    check_integer("window", window)
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be a positive odd number, got {window}")
    return window
