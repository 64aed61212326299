"""``daukit convert``: import a trained file of Caffe, TensorFlow or dcls; give a network DAU layers; write a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli import options
from daukit.cli.convert_import import ImportOptions, import_foreign
from daukit.cli.convert_network import NetworkOptions, convert_network
from daukit.cli.report import note, print_json, print_line, speak, wrote
from daukit.errors import naming

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A .caffemodel, a TensorFlow checkpoint, its folder or .npz, a state dict with dcls layers; a daukit "
            "checkpoint, or a state dict with --model.",
        ),
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="OUT", help="File to write, or a folder with --folder.")
    ] = None,
    from_: Annotated[
        Literal["caffe", "tensorflow", "dcls"] | None,
        typer.Option("--from", help="What wrote it; recognised if not given."),
    ] = None,
    prototxt: Annotated[
        Path | None, typer.Option(help="Caffe: the network's text; by default the one beside SOURCE.")
    ] = None,
    offsets: Annotated[
        Literal["auto", "centred", "corner"], typer.Option(help="Caffe: where in the window displacements count from.")
    ] = "auto",
    moving_averages: Annotated[
        bool, typer.Option("--moving-averages", help="TensorFlow: take the variables' moving averages.")
    ] = False,
    dcls_version: Annotated[
        Literal["v0", "v1", "max", "gauss"] | None, typer.Option(help="dcls: the layers' version; needed.")
    ] = None,
    sigma_axes: Annotated[
        Literal["equal", "mean", "split"],
        typer.Option(help="dcls: Gaussians with a sigma per axis are refused, averaged, or split into several units."),
    ] = "equal",
    window: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LAYER=]H[,W]",
            help="Side of the window: TensorFlow's max_kernel_size, dcls's dilated_kernel_size; repeatable.",
        ),
    ] = None,
    stride: Annotated[
        list[str] | None, typer.Option(metavar="[LAYER=]N", help="TensorFlow, dcls: the layers' stride; repeatable.")
    ] = None,
    groups: Annotated[
        list[str] | None, typer.Option(metavar="[LAYER=]N", help="dcls: the layers' groups; repeatable.")
    ] = None,
    substitute: Annotated[
        bool, typer.Option("--substitute", help="Put DAU layers in the place of the network's convolutions.")
    ] = False,
    units: Annotated[
        int | None, typer.Option(min=1, help="Substitute: units per (output, input) pair. Default: 2.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Substitute: layers by name, as 'layer3.*.conv2'; repeatable."),
    ] = None,
    kernel_size: Annotated[
        int | None, typer.Option(min=1, help="Substitute: only kernels of this size. Default: all but 1x1.")
    ] = None,
    sigma: Annotated[float | None, typer.Option(help="Substitute: standard deviation of the units.")] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Substitute: fit the units to the trained kernels.")] = False,
    units_table: Annotated[
        bool, typer.Option("--units-table", help="Only print how many units the trained kernels would need.")
    ] = False,
    seed: options.Seed = 0,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    folder: Annotated[
        bool, typer.Option("--folder", help="Write a folder with config.json and model.safetensors (Hugging Face).")
    ] = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Import a trained file of Caffe, TensorFlow or dcls, or give a network DAU layers; write a checkpoint."""
    speak(json=json, quiet=quiet)
    if output is None and not dry_run and not units_table:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")
    network = NetworkOptions(
        substitute, units_table, units, where, kernel_size, sigma, fit, seed, model, tuple(model_arg or ()), weights
    )
    network.check()
    foreign = ImportOptions(
        from_, prototxt, offsets, moving_averages, dcls_version, sigma_axes, tuple(window or ()), tuple(stride or ()),
        tuple(groups or ()),
    )  # fmt: skip
    target = None
    if output is not None and not (dry_run or units_table):
        target = Path(output) if folder else options.file_to_write(output)
    if target is not None:
        _check_target(target, folder, overwrite, _read_files(source, prototxt))
    if not (substitute or units_table):
        options.refuse_unused("only --substitute and --units-table need it; drop it", "--seed")
    if from_ is None and (_is_own(source) or network.is_asked):
        foreign.refuse()
        if units_table:
            options.refuse_unused("--units-table writes nothing; drop it", "--output", "--folder")
        if not (substitute or units_table):
            _check_new(source, folder)
        with naming(str(source)):
            checkpoint, result = convert_network(source, network)
    else:
        network.refuse()
        checkpoint, result = import_foreign(source, foreign)
    if checkpoint is not None:
        _finish(checkpoint, result, target, folder, overwrite)


def _is_own(source: Path) -> bool:
    """Whether SOURCE is a daukit file, or a folder that is not TensorFlow's."""
    from daukit.checkpoint import open
    from daukit.errors import CheckpointError

    if source.is_dir():
        return not (source / "checkpoint").is_file()
    try:
        return open(source).header is not None
    except CheckpointError:
        return False


def _check_new(source: Path, folder: bool) -> None:
    """Refuse to write again what is there: a daukit file as a file, a folder as a folder."""
    from daukit.errors import CheckpointError

    if _is_own(source) and folder == source.is_dir():
        other = "" if folder else " or --folder"
        raise CheckpointError(
            f"{source}: is a checkpoint of daukit's already, so nothing was converted; pass --substitute, --units-table"
            f"{other}"
        )


def _check_target(target: Path, folder: bool, overwrite: bool, sources: list[Path]) -> None:
    """Refuse an output that cannot be written before any work is done."""
    from daukit.files import CHECKPOINT_SUFFIXES, check_new_folder, check_output

    if folder and target.is_dir():
        for name in ("model.safetensors", "config.json"):
            check_output(target / name, overwrite=overwrite, sources=sources)
    elif folder:
        check_new_folder(target)
    else:
        check_output(target, overwrite=overwrite, sources=sources, suffixes=CHECKPOINT_SUFFIXES)


def _read_files(source: Path, prototxt: Path | None) -> list[Path]:
    """What the command reads: SOURCE, the network's text, and the files of a checkpoint that SOURCE names."""
    prefix = source.name.partition(".index")[0].partition(".data-")[0]
    kinds = (f"{prefix}.index", f"{prefix}.data-", f"{source.stem}.prototxt")
    beside = [path for path in source.parent.iterdir() if path.name.startswith(kinds)] if source.parent.is_dir() else []
    return [source, *beside, *([prototxt] if prototxt else [])]


def _finish(checkpoint: Checkpoint, result: dict[str, Any], target: Path | None, folder: bool, overwrite: bool) -> None:
    """Write the checkpoint, if there is an output, and say so."""
    from daukit.checkpoint import write, write_folder

    result["output"] = None
    if target is not None:
        size = (write_folder if folder else write)(checkpoint, target, overwrite=overwrite)
        result |= {"output": str(target), "bytes": size}
    print_json("convert", result)
    if target is None:
        note("dry run: nothing was written")
        return
    print_line(f"file: {result['bytes']:,} bytes")
    wrote(target)
