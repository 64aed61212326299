"""Tables of measured receptive fields, and notes on how to read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from daukit.cli.printing import note, print_table, wrote

if TYPE_CHECKING:
    from daukit.workflows.erf_results import MeasuredFields, NetworkFields


def print_fields(result: MeasuredFields, *, answer: bool) -> None:
    """Print the tables and the notes; the table of contours is the ``answer`` where nothing is written."""
    networks = [(entry.network, entry.weights, entry.images) for entry in result.networks]
    print_table("Networks", ("network", "weights", "images"), networks)
    _print_contours(result, answer=answer)
    _print_places(result)
    for entry in result.networks:
        _note_cautions(entry, result)
    wrote(result.output, result.npz)


def _print_contours(result: MeasuredFields, *, answer: bool) -> None:
    columns = ["layer", "influence", "radius (px)", "95 % interval", "area (px^2)", "95 % interval", "reach (px)"]
    probed = result.probes is not None
    if probed:
        columns.insert(4, "error of probes")
    rows = [
        [
            *label, layer.name, f"{100 * c.mass:g} %", c.radius, _range(c.radius_interval, ".2f"),
            *([c.radius_error] if probed else []), c.area, _range(c.area_interval, ",.0f"), c.reach,
        ]
        for label, entry in _labelled(result) for layer in entry.layers for c in layer.contours
    ]  # fmt: skip
    print_table("Contours", _first_column(result) + columns, rows, answer=answer)


def _print_places(result: MeasuredFields) -> None:
    columns = ["layer", "center (y, x)", "centroid (y, x)", "std (y, x)", "size", "size at limit", "on border"]
    rows = [
        [
            *label, layer.name, _pair(layer.center), _pair(layer.centroid), _pair(layer.std),
            _sizes(layer.size), _sizes(layer.size_limit), f"{layer.border_mass:.2%}",
        ]
        for label, entry in _labelled(result) for layer in entry.layers
    ]  # fmt: skip
    print_table(
        "Position, standard deviation and theoretical size of each field, in pixels of the input",
        _first_column(result) + columns,
        rows,
    )


def _first_column(result: MeasuredFields) -> list[str]:
    """The heading of the networks' names, which stand in a table only where there are several."""
    return ["network"] if len(result.networks) > 1 else []


def _labelled(result: MeasuredFields) -> Iterator[tuple[list[str], NetworkFields]]:
    """Every network with the cells of that column."""
    from daukit.workflows.erf_results import titles_of  # which imports torch, as the work before has done

    for label, entry in zip(titles_of(result.networks), result.networks, strict=True):
        yield [label for _ in _first_column(result)], entry


def _note_cautions(entry: NetworkFields, result: MeasuredFields) -> None:
    """Tell the reader of one network's numbers what limits them."""
    height, width = result.size
    larger = f"--size {2 * height},{2 * width}" + ("" if result.data is None else " without --data")
    name = entry.network
    if entry.trained is False:
        note(f"{name}: these are initial weights, and the fields of untrained networks mean little")
    clipped = [layer.name for layer in entry.layers if layer.clipped]
    if clipped:
        reach = f"{', '.join(clipped)} may be clipped: the contours reach the border of the {height}x{width} input"
        note(f"{name}: {reach}; try {larger}")
    for layer in entry.layers:
        if layer.layout_assumed:
            unknown = "it is unknown where its height and width are"
            note(f"{name}: {layer.name}: {unknown}; its output is taken as {layer.layout}")
    if result.until_stable is not None:
        note(f"{name}: {_stability(entry, result.until_stable, result.images_limit)}")


def _stability(entry: NetworkFields, share: float, limit: int) -> str:
    if entry.images < limit:
        return f"stable to {100 * share:g} % after {entry.images} images"
    return f"took all {entry.images} images; look at the intervals, or allow more with --images"


def _range(interval: Sequence[float] | None, form: str) -> str | None:
    return None if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def _pair(values: Sequence[float] | None) -> str | None:
    return None if values is None else f"{values[0]:.2f}, {values[1]:.2f}"


def _sizes(size: Sequence[int | None] | None) -> str | None:
    return None if size is None else " x ".join("all" if side is None else str(side) for side in size)
