"""What ``daukit erf`` says: one JSON object, tables, notes, a figure, an archive of maps."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daukit.cli.erf_networks import Network
from daukit.cli.report import note, print_table, wrote
from daukit.errors import OutputError
from daukit.files import write_atomic
from daukit.texts import visible
from daukit.workflows import outputs

if TYPE_CHECKING:
    from daukit.erf import Contour, ReceptiveField
    from daukit.plots.erf import Panel

Fields = Sequence["ReceptiveField"]

WEIGHTS = {True: "trained", False: "untrained", None: "training unknown"}
"""How a network's ``trained`` is put into words."""

_HALF = 0.5
"""Share of the influence whose radius stands above a panel."""


def check_outputs(
    output: Path | None, npz: Path | None, overwrite: bool, dry_run: bool, sources: Sequence[str | Path] = ()
) -> None:
    """Refuse before any work what could not be written after it, or would not be under that name in a dry run."""
    if npz is not None and npz.suffix != ".npz":
        raise OutputError(f"{npz}: a NumPy archive is .npz; give it that suffix")
    outputs.check_outputs(output, npz, overwrite=overwrite, dry_run=dry_run, sources=sources)


def write_outputs(
    networks: Sequence[Network],
    fields: Sequence[Fields],
    output: Path | None,
    npz: Path | None,
    overwrite: bool,
    width: Literal["page", "column"],
) -> None:
    """Write the archive and the figure that were asked for."""
    if npz is not None:
        write_atomic(npz, _archive(fields), overwrite=overwrite)
    if output is None:
        return
    from daukit.plots.erf import plot_receptive_fields
    from daukit.plots.style import COLUMN_WIDTH, TEXT_WIDTH

    inches = TEXT_WIDTH if width == "page" else COLUMN_WIDTH
    panels = [
        [_panel(title, WEIGHTS[network.trained], field) for field in own]
        for title, network, own in zip(_titles(networks), networks, fields, strict=True)
    ]
    outputs.save_figure(plot_receptive_fields(panels, _mark(fields), width=inches), output, overwrite=overwrite)


def _panel(title: str, weights: str, field: ReceptiveField) -> Panel:
    from daukit.plots.erf import Panel

    levels = {contour.mass: contour.level for contour in field.contours}
    half = next(contour for contour in field.contours if contour.mass == _HALF)
    lines = [visible(title), f"{visible(field.name)}, {weights}", f"{100 * _HALF:g} % radius: {half.radius:.1f} px"]
    if half.radius_interval is not None:
        lines.append("95 % interval: {:.1f} to {:.1f}".format(*half.radius_interval))
    return Panel("\n".join(lines), field.map.abs().numpy(), field.origin, levels)


def _mark(fields: Sequence[Fields]) -> str:
    """What the origins of the panels are."""
    centered = {field.origin == field.center for own in fields for field in own}
    if len(centered) > 1:
        return "probed position or centroid"
    return "probed position" if centered.pop() else "centroid"


def _archive(fields: Sequence[Fields]) -> bytes:
    """The maps by layer, other networks' under ``compare/``, ``compare2/`` and so on.

    numpy dates all members 1980, so bytes repeat.
    """
    import numpy as np

    prefixes = ["", "compare/", *(f"compare{i}/" for i in range(2, len(fields)))]
    maps: dict[str, Any] = {
        prefix + field.name: field.map.numpy() for prefix, own in zip(prefixes, fields, strict=False) for field in own
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **maps)
    return buffer.getvalue()


def _titles(networks: Sequence[Network]) -> list[str]:
    """The files' names, with their folders where the names alone are the same."""
    names = [network.label if network.path is None else network.path.name for network in networks]
    if len(set(names)) == len(names):
        return names
    return [n.label if n.path is None else f"{n.path.resolve().parent.name}/{n.path.name}" for n in networks]


def report(network: Network, fields: Fields) -> dict[str, Any]:
    """One network in JSON's terms."""
    return {
        "file": None if network.path is None else str(network.path),
        "network": network.label,
        "trained": network.trained,
        "images": fields[0].images,
        "layers": [_layer(field) for field in fields],
    }


def _layer(field: ReceptiveField) -> dict[str, Any]:
    theory, limit = field.theory, field.limit
    return {
        "name": field.name, "center": field.center, "centroid": field.centroid, "std": field.std,
        "origin": field.origin,
        "stride": None if theory is None else theory.stride,
        "size": None if theory is None else theory.size,
        "size_limit": None if limit is None else limit.size,
        "contours": [_contour(contour) for contour in field.contours],
        "border_mass": field.border_mass, "clipped": field.clipped,
        "layout": field.layout, "layout_assumed": field.assumed,
    }  # fmt: skip


def _contour(contour: Contour) -> dict[str, Any]:
    return {
        "mass": contour.mass, "radius": contour.radius, "area": contour.area, "reach": contour.reach,
        "radius_interval": contour.radius_interval, "area_interval": contour.area_interval,
        "radius_error": contour.radius_error, "area_error": contour.area_error,
    }  # fmt: skip


def print_reports(reports: Sequence[dict[str, Any]], *, answer: bool) -> None:
    """The tables; that of the contours is the ``answer`` where nothing is written."""
    networks = [(r["network"], WEIGHTS[r["trained"]], r["images"]) for r in reports]
    print_table("networks", ("network", "weights", "images"), networks)
    several = len(reports) > 1
    columns = ["layer", "influence", "radius (px)", "95 % interval", "area (px^2)", "95 % interval", "reach (px)"]
    probed = any(c["radius_error"] is not None for r in reports for layer in r["layers"] for c in layer["contours"])
    if probed:
        columns.insert(4, "error of probes")
    rows = [
        [
            *([Path(r["network"]).name] if several else []), layer["name"], f"{100 * c['mass']:g} %", c["radius"],
            _range(c["radius_interval"], ".2f"), *([c["radius_error"]] if probed else []), c["area"],
            _range(c["area_interval"], ",.0f"), c["reach"],
        ]
        for r in reports for layer in r["layers"] for c in layer["contours"]
    ]  # fmt: skip
    first = ["network"] if several else []
    print_table("contours", first + columns, rows, answer=answer)
    places = [
        [
            *([Path(r["network"]).name] if several else []), e["name"], _pair(e["center"]), _pair(e["centroid"]),
            _pair(e["std"]), _sizes(e["size"]), _sizes(e["size_limit"]), f"{e['border_mass']:.2%}",
        ]
        for r in reports for e in r["layers"]
    ]  # fmt: skip
    columns = ["layer", "looks at (y, x)", "centroid (y, x)", "std (y, x)", "can see", "could see", "on the border"]
    print_table("position, spread and theoretical size in input pixels", first + columns, places)


def talk(reports: Sequence[dict[str, Any]], result: dict[str, Any]) -> None:
    """What the reader of the numbers should know, and where the files are."""
    height, width = result["size"]
    larger = f"--size {2 * height},{2 * width}" + ("" if result["data"] is None else " without --data")
    for entry in reports:
        name = entry["network"]
        if entry["trained"] is False:
            note(f"{name}: these are initial weights; the fields of untrained weights mean little")
        clipped = [layer["name"] for layer in entry["layers"] if layer["clipped"]]
        if clipped:
            reach = f"{', '.join(clipped)} may be clipped: the contours reach the border of the {height}x{width} input"
            note(f"{name}: {reach}; try {larger}")
        for layer in entry["layers"]:
            if layer["layout_assumed"]:
                lost = "nobody can tell where its height and width are"
                note(f"{name}: {layer['name']}: {lost}; its output was taken as {layer['layout']}")
        if result["until_stable"] is not None:
            note(f"{name}: {_stability(entry, result)}")
    wrote(result["output"], result["npz"])


def _stability(entry: dict[str, Any], result: dict[str, Any]) -> str:
    share = f"{100 * result['until_stable']:g} %"
    if entry["images"] < result["images_limit"]:
        return f"stable to {share} after {entry['images']} images"
    return f"all {entry['images']} images taken; look at the intervals, or allow more with --images"


def _range(interval: Sequence[float] | None, form: str) -> str | None:
    return None if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def _pair(values: Sequence[float] | None) -> str | None:
    return None if values is None else f"{values[0]:.2f}, {values[1]:.2f}"


def _sizes(size: Sequence[int | None] | None) -> str | None:
    return None if size is None else " x ".join("all" if side is None else str(side) for side in size)
