"""``daukit rescale``: multiply displacements, or take out pools and strides and adapt every layer behind them."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import typer

from daukit.cli import devices, options
from daukit.cli.printing import print_json, speak
from daukit.cli.rescale_tables import print_outcome, print_plan

EXAMPLES = (
    "daukit rescale model.safetensors --remove-pool pool3 -o finer.safetensors",
    "daukit rescale model.safetensors --remove-pool pool3 --mode exact --verify -o finer.safetensors",
    "daukit rescale model.safetensors --factor conv3=2 --dry-run",
)


def rescale(
    source: options.Source,
    output: options.Output = None,
    factor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER=NUMBER", help="Multiply the displacements of this DAU layer by this number; repeatable."
        ),
    ] = None,
    remove_pool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Remove this pool and derive the factors of all layers behind it; repeatable."
        ),
    ] = None,
    remove_stride: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Set the stride of this layer to 1 and derive the factors of all layers behind it; repeatable.",
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="NETWORK", help="Remove the pools and strides that this other network does not have."),
    ] = None,
    like_arg: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Pass an option to the --like network; repeatable.")
    ] = None,
    mode: Annotated[
        Literal["paper", "exact"],
        typer.Option(
            help="paper scales displacements and takes pools out; exact dilates layers, keeps pools at stride 1 and "
            "so reproduces the former outputs at the former positions."
        ),
    ] = "paper",
    head_padding: Annotated[
        Literal["valid", "same"],
        typer.Option(
            help="On the finer map, let a linear head predict only where its window lies inside the map (valid), or at "
            "every position (same)."
        ),
    ] = "valid",
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare both modes with the original network on noise, before writing."),
    ] = False,
    size: options.Size = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    weights: options.Weights = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rescale displacements for feature maps of higher resolution (paper, section 4.3)."""
    speak(json=json, quiet=quiet)
    pools, strides, like_options = remove_pool or [], remove_stride or [], options.parse_values(like_arg, "--like-arg")
    if sum((bool(factor), bool(pools or strides), like is not None)) != 1:
        message = "give either --factor, or --remove-pool and --remove-stride, or --like"
        raise typer.BadParameter(message, param_hint="--factor")
    if like_options and like is None:
        raise typer.BadParameter("options of a second network need its name: --like", param_hint="--like-arg")
    if factor:
        _check_factor(verify, head_padding)
    if output is None and not dry_run:
        raise typer.BadParameter("name the file to write, or pass --dry-run", param_hint="--output")
    if not verify:
        options.refuse_unused("only --verify needs it; drop it", "--seed", "--device")
    factors, input_size = _factors(factor), None if size is None else options.parse_size(size)
    device = devices.choose(device, used=verify)
    from daukit.files import CHECKPOINT_SUFFIXES, check_output
    from daukit.workflows.rescale import rescale_checkpoint

    target = None if dry_run else output
    if target is not None:  # before a large file is read
        check_output(target, overwrite=overwrite, sources=[source], suffixes=CHECKPOINT_SUFFIXES)
    checkpoint = options.read_source(source, model, model_arg, weights)
    options.choose_layers(list(factors), checkpoint.layer_names, source)
    result = rescale_checkpoint(
        checkpoint, factors=factors, pools=pools, strides=strides, like=like, like_options=like_options, mode=mode,
        head_padding=head_padding, verify=verify, model=model, input_size=input_size, seed=seed, device=device,
        output=target, overwrite=overwrite, on_plan=print_plan,
    )  # fmt: skip
    print_json("rescale", result)
    print_outcome(result)


def _check_factor(verify: bool, head_padding: str) -> None:
    """Make it a usage error to give --factor an option that needs the network."""
    if verify:
        raise typer.BadParameter(
            "--factor changes the outputs on purpose, so there is nothing to compare; drop it", param_hint="--verify"
        )
    if head_padding != "valid":
        raise typer.BadParameter("--factor changes DAU layers only, not the head; drop it", param_hint="--head-padding")
    options.refuse_unused("--factor needs no input; drop it", "--size")


def _factors(items: list[str] | None) -> dict[str, float]:
    factors = options.parse_values(items, "--factor", "LAYER=NUMBER")
    for name, factor in factors.items():
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not (number and factor > 0 and math.isfinite(factor)):
            message = f"the factor of {name} must be a positive number, got {factor}"
            raise typer.BadParameter(message, param_hint="--factor")
    return {name: float(factor) for name, factor in factors.items()}
