"""``daukit erf``: effective receptive fields as numbers and as a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from daukit.cli import options
from daukit.cli.completion import complete_layer
from daukit.cli.erf_networks import Network, Pictures, is_file, needs_model, random_inputs, read_network
from daukit.cli.erf_report import check_outputs, print_reports, report, talk, write_outputs
from daukit.cli.malloc import keep_freed_memory
from daukit.cli.progress import progress_bar
from daukit.cli.report import note, print_json, speak
from daukit.errors import naming

if TYPE_CHECKING:
    from torch import Tensor

    from daukit.erf import ReceptiveField


def erf(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="A daukit checkpoint, or a state dict with --model. None: --model's initial weights."
        ),
    ] = None,
    output: options.Output = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Module to probe; repeatable. Default: DAU layers, else convolutions.", autocompletion=complete_layer
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(metavar="OTHER", help="File, or network as in --model, to show beside FILE; repeatable."),
    ] = None,
    measure: Annotated[
        Literal["absolute", "squared", "signed"], typer.Option(help="What of the input gradients is averaged.")
    ] = "absolute",
    probes: Annotated[
        int | None,
        typer.Option(min=1, help="Estimate --measure squared by this many random mixtures of a layer's channels."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Number of input images; the most, with --until-stable.")] = 16,
    until_stable: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Stop when all 50 % radii are known to this share of them, as 0.02."),
    ] = None,
    about: Annotated[
        Literal["center", "centroid"], typer.Option(help="Where the figure and the reach have their origin.")
    ] = "center",
    width: Annotated[Literal["page", "column"], typer.Option(help="Width of the figure in a paper.")] = "page",
    size: Annotated[
        str | None,
        typer.Option(metavar="H,W", help="Size of the inputs. Default: the network's; noise: doubled while too small."),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(metavar="H,W", help="Height and width of outputs (N, tokens, C), where nobody can tell."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="PNG and JPEG files, or IDX files' test images, instead of noise."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Mean of pixels in [0, 1], where the file does not say.")
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="Likewise, their standard deviation.")] = None,
    seed: options.Seed = 0,
    crop: Annotated[bool, typer.Option(help="Compute only what of the input the probed outputs can see.")] = True,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images x channels at once. Default: what fits in 1 GiB, 32 at most.")
    ] = None,
    npz: Annotated[Path | None, typer.Option(metavar="OUT", help="NumPy archive to write the maps to.")] = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    compare_model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="As --model, for state dicts of --compare in turn; one alone holds for all."),
    ] = None,
    compare_model_arg: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="As --model-arg, for every OTHER that takes options.")
    ] = None,
    device: options.Device = "cpu",
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw how far each layer really sees: its effective receptive field (paper, Fig. 8)."""
    speak(json=json, quiet=quiet)
    _check_usage(source, model, measure, probes, until_stable)
    shape = None if size is None else options.parse_size(size)
    grid = None if tokens is None else options.parse_size(tokens, "--tokens")
    pictures = _pictures(data, images, seed, shape, mean, std)
    options.check_device(device)
    if width != "page" and output is None:
        raise typer.BadParameter("it is the figure's; name one to write", param_hint="--width")
    check_outputs(output, npz, overwrite, dry_run, [*([] if source is None else [source]), *(compare or [])])
    if dry_run:
        output = npz = None
    keep_freed_memory()
    first = read_network(
        None if source is None else str(source), model, model_arg, device, seed, layer, weights=weights
    )
    networks = [first, *_others(compare, compare_model, compare_model_arg, device, seed, layer, first)]
    from daukit.erf import effective_receptive_field

    if pictures is None:
        inputs = random_inputs(networks, images, shape, seed, grid)
    else:
        inputs = [pictures.load(network, device) for network in networks]
    probe = partial(
        effective_receptive_field, measure=measure, about=about, tokens=grid, probes=probes,
        until_stable=until_stable, seed=seed, crop=crop, batch_size=batch_size,
    )  # fmt: skip
    fields = _probe_all(networks, inputs, probe)
    write_outputs(networks, fields, output, npz, overwrite, width)
    reports = [report(network, own) for network, own in zip(networks, fields, strict=True)]
    result = {
        **reports[0], "measure": measure, "probes": probes, "images_limit": len(inputs[0]),
        "until_stable": until_stable, "about": about, "tokens": grid, "size": list(inputs[0].shape[2:]), "seed": seed,
        "data": _text(data), "output": _text(output), "npz": _text(npz),
        "compare": reports[1] if compare else None, "networks": reports,
    }  # fmt: skip
    print_json("erf", result)
    print_reports(reports, answer=output is None and npz is None)
    talk(reports, result)
    if dry_run:
        note("dry run: nothing was written")


def _probe_all(
    networks: Sequence[Network], inputs: Sequence[Tensor], probe: Callable[..., list[ReceptiveField]]
) -> list[list[ReceptiveField]]:
    """The fields of every network, with a progress bar."""
    fields = []
    with progress_bar(len(networks)) as update:
        for i, (network, images) in enumerate(zip(networks, inputs, strict=True)):
            show = partial(_show, update, i, Path(network.label).name)
            with naming(network.label):
                fields.append(probe(network.module, network.layers, images, on_batch=show))
    return fields


def _show(update: Callable[[float, str], None], before: int, name: str, done: int, total: int) -> None:
    update(before + done / total, name)


def _check_usage(
    source: Path | None, model: str | None, measure: str, probes: int | None, until_stable: float | None
) -> None:
    if source is None and model is None:
        raise typer.BadParameter("name a FILE, or a network with --model", param_hint="FILE")
    if probes is not None and measure != "squared":
        raise typer.BadParameter("random mixtures estimate --measure squared only", param_hint="--probes")
    if until_stable is not None and not 0 < until_stable < 1:
        raise typer.BadParameter(f"{until_stable:g} is not a share within (0, 1)", param_hint="--until-stable")


def _pictures(
    data: Path | None, images: int, seed: int, shape: tuple[int, int] | None, mean: str | None, std: str | None
) -> Pictures | None:
    if (mean is None) != (std is None) or (mean is not None and data is None):
        raise typer.BadParameter("--mean and --std go together, with --data", param_hint="--mean")
    means = () if mean is None else tuple(options.parse_numbers(mean, "--mean"))
    stds = () if std is None else tuple(options.parse_numbers(std, "--std"))
    if len(means) != len(stds) or not all(stds):
        raise typer.BadParameter("as many numbers as --mean has, and none of them 0", param_hint="--std")
    return None if data is None else Pictures(data, images, seed, shape, means, stds)


def _others(
    compare: Sequence[str] | None,
    models: Sequence[str] | None,
    model_args: Sequence[str] | None,
    device: str,
    seed: int,
    wanted: Sequence[str] | None,
    first: Network,
) -> list[Network]:
    """The networks to compare with, whose layers stand beside the first one's."""
    networks: list[Network] = []
    nameless = [text for text in compare or () if is_file(text) and needs_model(Path(text))]
    if not (nameless or [text for text in compare or () if not is_file(text)]):
        options.refuse_unused("no network of --compare takes options; drop it", "--compare-model-arg")
    if models and not (nameless and len(models) in (1, len(nameless))):
        many = f"{len(models)} networks for {len(nameless)} files of --compare that do not name theirs"
        raise typer.BadParameter(f"{many}; give one for all, or one for each", param_hint="--compare-model")
    named: list[str | None] = list(models or ()) or [None]
    turn = iter(named if len(named) > 1 else named * len(nameless))
    for text in compare or ():
        path, model = (text, None) if is_file(text) else (None, text)
        if text in nameless:
            model = next(turn)
        args = model_args if model is not None else None
        network = read_network(path, model, args, device, seed, wanted, first.layers, "--compare-model-arg")
        if len(network.layers) != len(first.layers):
            counts = f"{first.label} has {len(first.layers)} layers and {network.label} {len(network.layers)}"
            raise typer.BadParameter(f"{counts}; name those to compare", param_hint="--layer")
        networks.append(network)
    return networks


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
