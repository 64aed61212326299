"""``daukit convert``: import a trained file of Caffe, TensorFlow or dcls; give a network DAU layers; write a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from daukit.cli import options
from daukit.cli.convert_networks import (
    Chosen,
    Zeros,
    adapt,
    check_adaptation,
    check_task,
    check_zeros,
    convert_sparse,
    rewrite,
    substitute_layers,
    tabulate,
)
from daukit.cli.convert_tables import print_import, print_written
from daukit.cli.convert_values import count, per_layer, window_size
from daukit.cli.printing import print_json, speak

if TYPE_CHECKING:
    from daukit.workflows.convert import Destination

EXAMPLES = (
    "daukit convert foreign.caffemodel -o imported.safetensors",
    "daukit convert weights.pth --model network.py:make --substitute --where conv1 --units 4 --fit -o dau.safetensors",
    "daukit convert model.safetensors --to shallow_dau --to-arg task=segmentation -o segmentation.safetensors",
)


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="File to import: a .caffemodel, a TensorFlow checkpoint, its folder or .npz, or a state dict with "
            "dcls layers. Otherwise a daukit checkpoint, or a state dict with --model.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="OUT", help="File to write, or folder to write with --folder."),
    ] = None,
    from_: Annotated[
        Literal["caffe", "tensorflow", "dcls"] | None,
        typer.Option("--from", help="Format of SOURCE. If omitted, daukit recognises it."),
    ] = None,
    prototxt: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Caffe: the network's text file. If omitted, takes the one beside SOURCE, if there is one.",
        ),
    ] = None,
    offsets: Annotated[
        Literal["auto", "centred", "corner"],
        typer.Option(
            help="Caffe: count displacements from the centre or the corner of the window. With auto, the file "
            "decides; if it does not say, the displacements do."
        ),
    ] = "auto",
    moving_averages: Annotated[
        bool, typer.Option("--moving-averages", help="TensorFlow: take the moving averages of the variables.")
    ] = False,
    dcls_version: Annotated[
        Literal["v0", "v1", "max", "gauss"] | None,
        typer.Option(help="dcls: version of the layers. Required, because the file does not state it."),
    ] = None,
    sigma_axes: Annotated[
        Literal["equal", "mean", "split"],
        typer.Option(
            help="dcls: refuse Gaussians whose two axes differ in sigma (equal), average both sigmas (mean), or split "
            "each Gaussian into several units (split)."
        ),
    ] = "equal",
    window: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LAYER=]H[,W]",
            help="TensorFlow, dcls: size of the window, max_kernel_size in TensorFlow and dilated_kernel_size in dcls; "
            "repeatable.",
        ),
    ] = None,
    stride: Annotated[
        list[str] | None,
        typer.Option(metavar="[LAYER=]N", help="TensorFlow, dcls: stride of the layers; repeatable. If omitted, 1."),
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LAYER=]N",
            help="dcls: groups of the layers; repeatable. If omitted, depthwise where a filter reads one channel, 1 "
            "elsewhere.",
        ),
    ] = None,
    substitute: Annotated[
        bool, typer.Option("--substitute", help="Replace convolutions of the network by DAU layers.")
    ] = False,
    units: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="--substitute: units per (output, input) pair of channels. If omitted, 2."
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="--substitute, --units-table, --sparse: take only layers whose names match, such as "
            "'layer3.*.conv2'; repeatable.",
        ),
    ] = None,
    kernel_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="--substitute, --units-table, --sparse: take only N x N kernels. If omitted, takes all but 1x1, with "
            "--sparse all and linear layers.",
        ),
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(
            metavar="SIGMA",
            help="--substitute, --units-table: standard deviation of the units, in pixels. If omitted, 0.5.",
        ),
    ] = None,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit",
            help="--substitute: fit the units to the trained kernels. If omitted, the new layers must be trained.",
        ),
    ] = False,
    units_table: Annotated[
        bool,
        typer.Option(
            "--units-table", help="Only print how many units each layer needs to come near to its trained kernels."
        ),
    ] = False,
    sparse: Annotated[
        bool,
        typer.Option(
            "--sparse",
            help="Make a unit of every weight that is not zero, with the same outputs, in pruned convolutions and "
            "linear layers.",
        ),
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="T", help="--sparse: first make weights zero whose magnitude is below this threshold."
        ),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="--sparse: first make this share of each layer's weights zero."
        ),
    ] = None,
    everywhere: Annotated[
        bool, typer.Option("--global", help="--sparsity: take the smallest weights of all layers together.")
    ] = False,
    time: Annotated[
        bool, typer.Option("--time", help="--sparse: measure the time of the forward pass, of layers in both forms.")
    ] = False,
    only_faster: Annotated[
        bool,
        typer.Option("--only-faster", help="--sparse: convert only layers that are faster as units; implies --time."),
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORK",
            help="Give the layers of SOURCE that fit to this new network, and multiply displacements where its maps "
            "are finer.",
        ),
    ] = None,
    to_arg: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Pass an option to the --to network; repeatable.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="--to: file with one class name per line, for the new network."),
    ] = None,
    size: options.Size = None,
    seed: options.Seed = 0,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    folder: Annotated[
        bool,
        typer.Option(
            "--folder", help="Write a folder with config.json, model.safetensors and a model card, as on Hugging Face."
        ),
    ] = False,
    card_figure: Annotated[
        bool, typer.Option("--card-figure", help="--folder: put a figure of displacements beside the model card.")
    ] = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Import a file of another library, put DAU layers into a network, or give its layers to another network."""
    speak(json=json, quiet=quiet)
    if output is None and not dry_run and not units_table:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")
    check_task(substitute=substitute, units_table=units_table, sparse=sparse, to=to is not None)
    check_adaptation(to, model)
    if not folder:
        options.refuse_unused("only --folder writes a model card; add that, or drop this", "--card-figure")
    zeros: Zeros = {"threshold": threshold, "sparsity": sparsity, "everywhere": everywhere}
    check_zeros(zeros, timed=time or only_faster)
    input_size = None if size is None else options.parse_size(size)
    from daukit.workflows.convert import import_file, is_daukit

    target = None
    if output is not None and not (dry_run or units_table):
        target = _destination(source, output, folder=folder, figure=card_figure, overwrite=overwrite, prototxt=prototxt)
    is_network = substitute or units_table or sparse or to is not None or model is not None
    if from_ is not None or not (is_network or is_daukit(source)):
        options.refuse_unused("this is for networks, not for files of another library; drop it", *_OF_NETWORKS)
        imported = import_file(
            source,
            target,
            source=from_,
            prototxt=prototxt,
            offsets=offsets,
            moving_averages=moving_averages,
            version=dcls_version,
            sigma_axes=sigma_axes,
            window=per_layer(window, "--window", window_size, "a size like 9 or 9,5"),
            stride=per_layer(stride, "--stride", count, "a whole number above 0"),
            groups=per_layer(groups, "--groups", count, "a whole number above 0"),
        )
        print_json("convert", imported)
        print_import(source, imported)
        print_written(imported)
        return
    options.refuse_unused("this is for files of other libraries, not for networks; drop it", *_OF_FILES)
    if not (substitute or units_table or sparse or to is not None):
        rewrite(source, target, folder=folder, model=model, model_arg=model_arg, weights=weights)
        return
    checkpoint = options.read_source(source, model, model_arg, weights)
    if to is not None:
        adapt(source, checkpoint, target, to, to_arg, classes=classes, seed=seed, model=model)
        return
    chosen: Chosen = {"where": where, "kernel_size": kernel_size, "model": model}
    if units_table:
        tabulate(source, checkpoint, sigma=sigma, seed=seed, chosen=chosen)
    elif sparse:
        convert_sparse(
            source, checkpoint, target, zeros, time=time, only_faster=only_faster, size=input_size, chosen=chosen
        )
    else:
        substitute_layers(source, checkpoint, target, units=units, fit=fit, sigma=sigma, seed=seed, chosen=chosen)


_OF_NETWORKS = (
    "--substitute", "--units-table", "--sparse", "--to", "--to-arg", "--classes", "--model", "--model-arg", "--weights",
)  # fmt: skip
_OF_FILES = (
    "--prototxt", "--offsets", "--moving-averages", "--dcls-version", "--sigma-axes", "--window", "--stride",
    "--groups",
)  # fmt: skip


def _destination(
    source: Path, output: str, *, folder: bool, figure: bool, overwrite: bool, prototxt: Path | None
) -> Destination:
    """The place to write to, checked before a large file is read."""
    from daukit.workflows.convert import Destination, files_of

    path = Path(output) if folder else options.file_to_write(output)
    target = Destination(path=path, folder=folder, overwrite=overwrite, figure=figure)
    target.check(files_of(source, prototxt))
    return target
