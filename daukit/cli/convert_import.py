"""``daukit convert`` for trained files of other libraries: options in, a checkpoint and what to say of it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from daukit.cli.report import note, print_line, print_table
from daukit.errors import naming

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint

PerLayer = dict[str, Any] | None


@dataclass(frozen=True)
class ImportOptions:
    """What ``convert`` was told of a file of another library."""

    source: Literal["caffe", "tensorflow", "dcls"] | None
    prototxt: Path | None
    offsets: Literal["auto", "centred", "corner"]
    moving_averages: bool
    dcls_version: Literal["v0", "v1", "max", "gauss"] | None
    sigma_axes: Literal["equal", "mean", "split"]
    window: tuple[str, ...]
    stride: tuple[str, ...]
    groups: tuple[str, ...]

    def refuse(self) -> None:
        """Make it a usage error to give any of these where SOURCE is a network."""
        given = {
            "--prototxt": self.prototxt, "--offsets": self.offsets != "auto", "--dcls-version": self.dcls_version,
            "--moving-averages": self.moving_averages, "--sigma-axes": self.sigma_axes != "equal",
            "--window": self.window, "--stride": self.stride, "--groups": self.groups,
        }  # fmt: skip
        for name, value in given.items():
            if value:
                raise typer.BadParameter("is for files of other libraries, not for networks", param_hint=name)

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``import_checkpoint``; a wrong value is a usage error."""
        return {
            "source": self.source,
            "prototxt": self.prototxt,
            "offsets": self.offsets,
            "moving_averages": self.moving_averages,
            "version": self.dcls_version,
            "sigma_axes": self.sigma_axes,
            "window": _per_layer(self.window, "--window", _size),
            "stride": _per_layer(self.stride, "--stride", _count),
            "groups": _per_layer(self.groups, "--groups", _count),
        }


def import_foreign(source: Path, asked: ImportOptions) -> tuple[Checkpoint, dict[str, Any]]:
    """Import SOURCE and print what it holds; the checkpoint to write, and the result for JSON."""
    arguments = asked.arguments()
    from daukit.importers import import_checkpoint

    with naming(str(source)):
        checkpoint = import_checkpoint(source, **arguments)
    summary = _summary(checkpoint, source)
    for sentence in summary["notes"]:
        note(sentence)
    _print_imported(source, summary)
    return checkpoint, summary


def _print_imported(source: Path, result: dict[str, Any]) -> None:
    rows = [
        (
            e["name"], f"{e['in_channels']} -> {e['out_channels']}", e["units"], e["form"],
            "per unit" if e["sigma"] is None else e["sigma"], e["max_displacement"], e["largest_displacement"],
        )
        for e in result["layers"]
    ]  # fmt: skip
    columns = ("layer", "channels", "units", "form", "sigma", "limit (px)", "max |mu| (px)")
    network = result["architecture"].get("name", "layers of a network that daukit does not know")
    print_table(f"{source.name}, {result['source']}: {network}", columns, rows)
    print_line(f"{result['units']:,} units, {result['other_tensors']:,} other tensors")


def _summary(checkpoint: Checkpoint, source: Path) -> dict[str, Any]:
    import torch

    header = checkpoint.header
    arguments = header.history[-1]["arguments"]
    layers = []
    for name in checkpoint.layer_names:
        layer = checkpoint.layer(name)
        spread = torch.tensor(layer.description["dilation"])[:, None]
        distances = (spread * layer.mu).double().norm(dim=0)  # input pixels
        largest = float(distances.max()) if layer.weight.numel() else None
        layers.append({**layer.description, "units": layer.weight.numel(), "largest_displacement": largest})
    own = tuple(f"{name}." for name in checkpoint.layer_names)
    return {
        "file": str(source),
        "source": arguments["source"],
        "architecture": header.architecture,
        "layers": layers,
        "units": sum(layer["units"] for layer in layers),
        "other_tensors": sum(not name.startswith(own) for name in checkpoint.tensors),
        "preprocessing": None if header.preprocessing is None else header.preprocessing.to_json(),
        "notes": arguments.get("notes", []),
    }


def _per_layer(items: Sequence[str], option: str, parse: Callable[[str], Any]) -> PerLayer:
    """``LAYER=VALUE`` items by layer, and a ``VALUE`` for all others under ``"*"``; a wrong one is a usage error."""
    values = {}
    for item in items:
        name, _, text = item.rpartition("=")
        try:
            values[name or "*"] = parse(text)
        except ValueError:
            kind = "a size like 9 or 9,5" if parse is _size else "a whole number above 0"
            raise typer.BadParameter(f"{text!r} is not {kind}", param_hint=option) from None
    return values or None


def _size(text: str) -> tuple[int, int]:
    sides = [_count(part) for part in text.split(",")]
    if len(sides) > 2:
        raise ValueError
    return sides[0], sides[-1]


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value
