"""``daukit erf``: effective receptive fields as numbers and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from daukit.cli import devices, options
from daukit.cli.completion import complete_layer
from daukit.cli.erf_networks import read_networks
from daukit.cli.erf_tables import print_fields
from daukit.cli.malloc import keep_freed_memory
from daukit.cli.printing import note, print_json, speak
from daukit.cli.progress import progress_bar
from daukit.distributed import here

EXAMPLES = (
    "daukit erf model.safetensors --layer conv2 --images 1 --size 24 -o fields.png",
    "daukit erf model.safetensors --compare other.safetensors --data images --images 1 --json",
    "daukit erf weights.pth --model network.py:make --data pictures --mean 0.5 --std 0.25 --size 24,32 --images 1",
)


def erf(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="A daukit checkpoint, or a state dict whose network --model names. If omitted, probes --model with "
            "its initial weights.",
        ),
    ] = None,
    output: options.FigureOutput = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Layer to probe, by its name in the network; repeatable. If omitted, probes the DAU layers, or the "
            "convolutions of a network that has none, but for those of zeros.",
            autocompletion=complete_layer,
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OTHER",
            help="Measure this network too and show it beside FILE: another file, or a network named as for "
            "--model; repeatable.",
        ),
    ] = None,
    measure: Annotated[
        Literal["absolute", "squared", "signed"],
        typer.Option(
            help="Average the absolute gradients with respect to the input, the squared ones, or the signed ones."
        ),
    ] = "absolute",
    probes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Estimate --measure squared from this many random mixtures of a layer's channels. If omitted, "
            "differentiates every channel.",
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of input images; with --until-stable, the largest number.")
    ] = 16,
    until_stable: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Stop adding images once every layer's 50 % radius is certain to within this share of it, for example "
            "0.02.",
        ),
    ] = None,
    about: Annotated[
        Literal["center", "centroid"],
        typer.Option(
            help="Origin of the figure and of the reaches: the position that the output looks at (center), or the "
            "field's centroid."
        ),
    ] = "center",
    width: Annotated[
        Literal["page", "column"],
        typer.Option(help="Set the width of the figure to that of a page or of a column in a paper."),
    ] = "page",
    size: options.Size = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="H,W",
            help="Height and width of maps that come as (N, tokens, C), if they do not follow from the network's "
            "operations.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Measure on the images of this folder: PNG and JPEG files, or the test images of a data set, without "
            "their masks or sharp pictures. If omitted, measures on noise.",
        ),
    ] = None,
    layout: options.Layout = None,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B",
            help="Subtract this mean from the pixels of --data, scaled to [0, 1]; one number per channel. If omitted, "
            "uses the mean that FILE states.",
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B",
            help="Then divide the pixels by this standard deviation; one number per channel. Requires --mean.",
        ),
    ] = None,
    seed: options.Seed = 0,
    crop: Annotated[
        bool, typer.Option(help="Compute only the part of the input that the probed outputs can see, or all of it.")
    ] = True,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of images times channels to compute at once. If omitted, as many as fit into 1 GiB, at most "
            "32.",
        ),
    ] = None,
    npz: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write the maps of influence to this NumPy archive.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Network of FILE, if FILE is a plain state dict. Without FILE, the network to probe: a name listed by "
            "`daukit models`, package.module:factory or file.py:factory.",
        ),
    ] = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    compare_model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Network of the state dicts given by --compare, as for --model: once for all of them, or once for "
            "each, in the same order.",
        ),
    ] = None,
    compare_model_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Pass an option to the networks of --compare, as for --model-arg; repeatable."
        ),
    ] = None,
    label: options.Label = None,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure and draw effective receptive fields: how far each layer really sees (paper, Fig. 8)."""
    speak(json=json, quiet=quiet)
    _check_usage(source, model, weights, measure, probes, until_stable)
    shape = None if size is None else options.parse_size(size)
    grid = None if tokens is None else options.parse_size(tokens, "--tokens")
    means, stds = _parse_statistics(data, mean, std)
    if data is None:
        options.refuse_unused("no folder is read without --data; drop it", "--layout")
    device = devices.choose(device)
    if width != "page" and output is None:
        raise typer.BadParameter(
            "it is the width of the figure; name a figure to write, or drop it", param_hint="--width"
        )
    from daukit.workflows.erf import folder_inputs, measure_fields, noise_inputs
    from daukit.workflows.erf_outputs import check_field_outputs
    from daukit.workflows.labels import check_labels

    with options.usage_of("--label"):
        check_labels(label or [], 1 + len(compare or []))
    sources = [path for path in (source, *(compare or [])) if path is not None]
    check_field_outputs(output, npz, overwrite=overwrite, dry_run=dry_run, sources=sources)
    keep_freed_memory()
    networks = read_networks(
        source, model=model, model_args=model_arg, weights=weights, compare=compare or [],
        compare_models=compare_model or [], compare_model_args=compare_model_arg, wanted=layer or [], device=device,
        seed=seed,
    )  # fmt: skip
    if data is None:
        inputs = noise_inputs(networks, images, size=shape, tokens=grid, seed=seed)
    else:
        with options.usage_of("--size"):
            inputs = folder_inputs(
                networks, data, images, layout=layout, size=shape, mean=means, std=stds, seed=seed, device=device
            )
    with progress_bar(1) as update:
        result = measure_fields(
            networks, inputs, measure=measure, about=about, tokens=grid, probes=probes, until_stable=until_stable,
            seed=seed, crop=crop, batch_size=batch_size, figure=None if dry_run else output, width=width,
            npz=None if dry_run else npz, labels=label or (), overwrite=overwrite, on_progress=update, ranks=here(),
        )  # fmt: skip
    print_json("erf", result)
    print_fields(result, answer=dry_run or (output is None and npz is None))
    if dry_run:
        note("dry run: nothing was written")


def _check_usage(
    source: Path | None,
    model: str | None,
    weights: str | None,
    measure: str,
    probes: int | None,
    until_stable: float | None,
) -> None:
    if source is None and model is None:
        raise typer.BadParameter("name a FILE, or a network with --model", param_hint="FILE")
    if source is None and weights is not None:
        raise typer.BadParameter("without a FILE there are no weights to choose", param_hint="--weights")
    if probes is not None and measure != "squared":
        raise typer.BadParameter("random mixtures estimate --measure squared only", param_hint="--probes")
    if until_stable is not None and not 0 < until_stable < 1:
        raise typer.BadParameter(f"{until_stable:g} is not a share within (0, 1)", param_hint="--until-stable")


def _parse_statistics(
    data: Path | None, mean: str | None, std: str | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel; none of either where they are not given."""
    if (mean is None) != (std is None) or (mean is not None and data is None):
        given = " and ".join(name for name, value in (("--mean", mean), ("--std", std)) if value is not None)
        raise typer.BadParameter("give --mean and --std together, and with --data", param_hint=given)
    means = () if mean is None else tuple(options.parse_numbers(mean, "--mean"))
    stds = () if std is None else tuple(options.parse_numbers(std, "--std"))
    if len(means) != len(stds) or not all(stds):
        raise typer.BadParameter("give as many numbers as for --mean, none of them 0", param_hint="--std")
    return means, stds
