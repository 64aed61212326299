"""``daukit erf``: effective receptive fields as numbers and as a figure."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli import options
from daukit.cli.figures import check_format, save_figure
from daukit.cli.progress import progress_bar
from daukit.cli.report import note, print_json, print_table, speak, wrote
from daukit.errors import CheckpointError, DataError, OutputError
from daukit.files import check_output, write_atomic

if TYPE_CHECKING:
    from torch import Tensor, nn

    from daukit.checkpoint import Header
    from daukit.erf import Measure, ReceptiveField

START_SIZE = (64, 64)
"""Size of the first random inputs where the file does not say what its network is fed."""


def erf(
    source: options.Source,
    output: options.Output = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Module to probe; repeatable. Default: DAU layers, else convolutions.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="OTHER", help="Second checkpoint, to show side by side with FILE.")
    ] = None,
    measure: Annotated[
        Literal["absolute", "squared", "signed"], typer.Option(help="What of the input gradients is averaged.")
    ] = "absolute",
    images: Annotated[int, typer.Option(min=1, help="Number of input images.")] = 16,
    size: Annotated[
        str | None,
        typer.Option(metavar="H,W", help="Size of random inputs. Default: the network's, doubled while too small."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of IDX files: its test images, not random inputs.")
    ] = None,
    seed: options.Seed = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images x channels at once; less takes less memory.")] = 16,
    npz: Annotated[Path | None, typer.Option(metavar="OUT", help="NumPy archive to write the maps to.")] = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    compare_model: Annotated[str | None, typer.Option(metavar="NAME", help="As --model, for OTHER.")] = None,
    compare_model_arg: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="As --model-arg, for OTHER.")
    ] = None,
    device: options.Device = "cpu",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw how far each layer really sees: its effective receptive field (paper, Fig. 8)."""
    speak(json=json, quiet=quiet)
    if data is not None and size is not None:
        raise typer.BadParameter("the images of --data have their own size", param_hint="--size")
    shape = None if size is None else options.parse_size(size)
    options.check_device(device)
    _check_outputs(output, npz, overwrite)
    networks = [_read(source, model, model_arg, device, layer)]
    if compare is not None:
        networks.append(_read(compare, compare_model, compare_model_arg, device, layer, networks[0].layers))
        _check_pairs(networks)
    with progress_bar(len(networks)) as update:
        if data is None:
            inputs = _random_inputs(networks, images, shape, seed)
        else:
            inputs = [_load_inputs(network, data, images, seed, device) for network in networks]
        fields = [
            _measure(network, batch, measure, batch_size, partial(_show, update, i, network.path.name))
            for i, (network, batch) in enumerate(zip(networks, inputs, strict=True))
        ]
    _write(networks, fields, output, npz, overwrite)
    reports = [_report(network, own) for network, own in zip(networks, fields, strict=True)]
    result = {
        **reports[0], "measure": measure, "images": len(inputs[0]), "size": list(inputs[0].shape[2:]), "seed": seed,
        "data": _text(data), "output": _text(output), "npz": _text(npz),
        "compare": reports[1] if compare is not None else None,
    }  # fmt: skip
    print_json("erf", result)
    _print(reports)
    _talk(reports, result)


@dataclass(frozen=True)
class _Network:
    """A network of a file, and the names of its modules to probe."""

    path: Path
    header: Header
    module: nn.Module
    layers: list[str]


def _read(
    path: Path,
    model: str | None,
    model_arg: Sequence[str] | None,
    device: str,
    wanted: Sequence[str] | None,
    like: Sequence[str] = (),
) -> _Network:
    """Build the network; its layers are those ``wanted``, else ``like`` another's if it has them, else the default."""
    from daukit.checkpoint import build_model
    from daukit.erf import default_layers

    checkpoint = options.read_source(path, model, model_arg)
    module = build_model(checkpoint, model=model).to(device)
    names = [name for name, _ in module.named_modules() if name]
    shared = list(like) if set(like) <= set(names) else []
    layers = options.choose_layers(wanted, names, path) if wanted else shared or default_layers(module)
    if not layers:
        raise CheckpointError(f"{path}: it has neither DAU layers nor 2-D convolutions; name modules with --layer")
    return _Network(path, checkpoint.header, module, layers)


def _check_pairs(networks: Sequence[_Network]) -> None:
    first, second = networks
    if len(first.layers) != len(second.layers):
        counts = f"{first.path} has {len(first.layers)} layers and {second.path} {len(second.layers)}"
        raise typer.BadParameter(f"{counts}; name those to compare", param_hint="--layer")


def _random_inputs(networks: Sequence[_Network], images: int, shape: tuple[int, int] | None, seed: int) -> list[Tensor]:
    """Random images of one size for all networks: ``shape``, or the least that fits them all."""
    from daukit.erf import fitting_size, random_inputs

    if shape is None:
        sizes = []
        for network in networks:
            fed = network.header.preprocessing
            sizes.append(fitting_size(network.module, network.layers, fed.input_size if fed else START_SIZE, seed))
        shape = max(height for height, _ in sizes), max(width for _, width in sizes)
    return [random_inputs(network.module, images, shape, seed) for network in networks]


def _load_inputs(network: _Network, data: Path, images: int, seed: int, device: str) -> Tensor:
    """Test images drawn by ``seed``, as the network expects them."""
    import torch

    from daukit.data import load_folder

    preprocessing, pixels = network.header.preprocessing, load_folder(data, "test").images
    if preprocessing is None or len(preprocessing.mean) != pixels.shape[1]:
        raise DataError(f"{network.path}: no preprocessing for images of {pixels.shape[1]} channels, as in {data}")
    chosen = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))[:images]
    return preprocessing.normalize(pixels[chosen].to(device))


def _measure(
    network: _Network, inputs: Tensor, measure: Measure, batch_size: int, show: Callable[[int, int], None]
) -> list[ReceptiveField]:
    from daukit.erf import effective_receptive_field

    return effective_receptive_field(
        network.module, network.layers, inputs, measure, batch_size=batch_size, on_batch=show
    )


def _show(update: Callable[[float, str], None], before: int, name: str, done: int, total: int) -> None:
    update(before + done / total, name)


def _write(
    networks: Sequence[_Network],
    fields: Sequence[Sequence[ReceptiveField]],
    output: Path | None,
    npz: Path | None,
    overwrite: bool,
) -> None:
    if npz is not None:
        write_atomic(npz, _archive(fields), overwrite=overwrite)
    if output is None:
        return
    from daukit.plots.erf import Panel, plot_receptive_fields

    titles = _titles([network.path for network in networks])
    panels = [
        [
            Panel(
                f"{title}\n{field.name}", field.map.abs().numpy(), field.center or field.centroid,
                {contour.mass: contour.level for contour in field.contours},
            )
            for field in own
        ]
        for title, own in zip(titles, fields, strict=True)
    ]  # fmt: skip
    save_figure(plot_receptive_fields(panels), output, overwrite=overwrite)


def _archive(fields: Sequence[Sequence[ReceptiveField]]) -> bytes:
    """The maps by layer, the second network's under ``compare/``; numpy dates all members 1980, so bytes repeat."""
    import numpy as np

    maps: dict[str, Any] = {
        prefix + field.name: field.map.numpy()
        for prefix, own in zip(("", "compare/"), fields, strict=False)
        for field in own
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **maps)
    return buffer.getvalue()


def _titles(paths: Sequence[Path]) -> list[str]:
    """The files' names, with their folders where the names alone are the same."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [f"{path.resolve().parent.name}/{path.name}" for path in paths]


def _report(network: _Network, fields: Sequence[ReceptiveField]) -> dict[str, Any]:
    return {
        "file": str(network.path),
        "trained": True if any(entry["operation"] == "train" for entry in network.header.history) else None,
        "layers": [
            {
                "name": field.name, "center": field.center, "centroid": field.centroid, "std": field.std,
                "contours": [{"mass": c.mass, "radius": c.radius, "area": c.area} for c in field.contours],
                "border_mass": field.border_mass, "clipped": field.clipped,
            }
            for field in fields
        ],
    }  # fmt: skip


def _print(reports: Sequence[dict[str, Any]]) -> None:
    for report in reports:
        contours = [
            (layer["name"], f"{100 * c['mass']:g} %", c["radius"], c["area"])
            for layer in report["layers"]
            for c in layer["contours"]
        ]
        places = [
            (e["name"], _pair(e["center"]), _pair(e["centroid"]), _pair(e["std"]), f"{e['border_mass']:.2%}")
            for e in report["layers"]
        ]
        name = Path(report["file"]).name
        print_table(f"{name}: contours", ("layer", "influence", "radius (px)", "area (px^2)"), contours)
        columns = ("layer", "looks at (y, x)", "centroid (y, x)", "std (y, x)", "on the border")
        print_table(f"{name}: position and spread in input pixels", columns, places)


def _talk(reports: Sequence[dict[str, Any]], result: dict[str, Any]) -> None:
    """What the reader of the numbers should know, and where the files are."""
    height, width = result["size"]
    larger = f"--size {2 * height},{2 * width}" + ("" if result["data"] is None else " without --data")
    for report in reports:
        if report["trained"] is None:
            note(f"{report['file']}: its history has no training; the fields of untrained weights mean little")
        clipped = [layer["name"] for layer in report["layers"] if layer["clipped"]]
        if clipped:
            reach = f"{', '.join(clipped)} may be clipped: the contours reach the border of the {height}x{width} input"
            note(f"{report['file']}: {reach}; try {larger}")
    wrote(result["output"], result["npz"])


def _check_outputs(output: Path | None, npz: Path | None, overwrite: bool) -> None:
    if output is not None:
        check_format(output)
        check_output(output, overwrite=overwrite)
    if npz is not None:
        if npz.suffix != ".npz":
            raise OutputError(f"{npz}: a NumPy archive is .npz; give it that suffix")
        check_output(npz, overwrite=overwrite)


def _pair(values: Sequence[float] | None) -> str | None:
    return None if values is None else f"{values[0]:.2f}, {values[1]:.2f}"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
