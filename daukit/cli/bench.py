"""``daukit bench``: times of layers and networks beside their peers."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from daukit.cli import devices, options
from daukit.cli.bench_tables import print_backends, print_commands, print_data, print_gpu, print_peers, print_sparse
from daukit.cli.printing import speak
from daukit.cli.progress import progress_bar

EXAMPLES = (
    "daukit bench --shape 1,16,16,32 --no-networks",
    "daukit bench --sparse --shape 1,16,16,32 --no-networks",
    "daukit bench --data images --rounds 3",
)


def bench(
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="N,C,O,H",
            help="Layer to time: batch size, input channels, output channels, and height, which is also the width. "
            "Repeatable. If omitted, times several typical layers.",
        ),
    ] = None,
    displacement: Annotated[
        float,
        typer.Option(min=0, max=1000, metavar="PX", help="Limit of the layers' displacements, uniform within it."),
    ] = 4.0,
    networks: Annotated[bool, typer.Option(help="Also time networks and measure the paper's gamma (Eq. 17).")] = True,
    peers: Annotated[bool, typer.Option("--peers", help="Also time the dcls package; this takes minutes.")] = False,
    backends: Annotated[
        bool, typer.Option("--backends", help="Time only the two CPU backends, dense and native.")
    ] = False,
    sparse: Annotated[
        bool,
        typer.Option(
            "--sparse",
            help="Time only convolutions and networks with random zeros, beside dense ones and, where they are "
            "installed, onnxruntime and openvino.",
        ),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --sparse: time only small layers and networks, at two densities.")
    ] = False,
    commands: Annotated[
        bool, typer.Option("--commands", help="Time only whole commands, on the shallow network (110,976 units).")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Time only what a training on these images does: reading, random changes, steps and the loop.",
        ),
    ] = None,
    layout: options.Layout = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --data: the network that learns. If omitted, shallow_dau.")
    ] = None,
    model_arg: options.ModelArg = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="With --data: number of images per step.")] = 32,
    crop_size: Annotated[
        str | None,
        typer.Option(metavar="H,W", help="With --data: size of random parts, if the network segments or deblurs."),
    ] = None,
    device: options.Device = "cpu",
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="On a GPU: first time each way of computing the DAU layers, use the fastest, and keep what was "
            "measured for later processes on this card.",
        ),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, metavar="N", help="Number of threads. If omitted, torch chooses.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=3, metavar="N", help="Number of rounds. Each task runs once per round.")
    ] = 9,
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Time DAU layers and networks beside 3x3 and 9x9 convolutions, interleaved in one run.

    With --device cuda, time them at several precisions, check the results, and print rates beside the GPU's limits, the
    host's time, and which way was chosen for each layer and why.
    """
    speak(json=json, quiet=quiet)
    shapes = [_parse_shape(text) for text in shape or ()]
    device = device if device == "cpu" else devices.choose(device)
    _check_usage(device, backends=backends, sparse=sparse, commands=commands, data=data is not None, tune=tune)
    if data is not None:
        crop = None if crop_size is None else options.parse_size(crop_size, "--crop-size")
        how = {"model": model, "config": options.parse_values(model_arg, "--model-arg"), "layout": layout, "crop": crop}
        _time_data(data, threads, tuned=tune, batch_size=batch_size, device=device, rounds=rounds, seed=seed, **how)
        return
    if device != "cpu":
        from daukit.workflows.bench_gpu import time_on_gpu

        with progress_bar(1) as update:
            on_gpu = time_on_gpu(
                device, shapes, networks=networks, tuned=tune, rounds=rounds, seed=seed, on_progress=update
            )
        print_gpu(on_gpu)
        return
    import torch

    from daukit.workflows.bench import time_backends, time_commands, time_peers
    from daukit.workflows.bench_sparse import time_sparse

    if threads:
        torch.set_num_threads(threads)
    if commands:
        print_commands(time_commands(rounds=rounds, seed=seed))
    elif backends:
        with progress_bar(1) as update:
            of_backends = time_backends(rounds=rounds, seed=seed, on_progress=update)
        print_backends(of_backends)
    elif sparse:
        with progress_bar(1) as update:
            of_sparse = time_sparse(
                shapes, networks=networks, quick=quick, rounds=rounds, seed=seed, on_progress=update
            )
        print_sparse(of_sparse)
    else:
        with progress_bar(1) as update:
            of_peers = time_peers(
                shapes,
                displacement=displacement,
                networks=networks,
                dcls=peers,
                rounds=rounds,
                seed=seed,
                on_progress=update,
            )
        print_peers(of_peers)


def _time_data(data: Path, threads: int | None, *, tuned: bool, **how: Any) -> None:
    """Time what a training on a folder of images does."""
    import torch

    import daukit
    from daukit.workflows.bench_data import time_data

    if threads:
        torch.set_num_threads(threads)
    with progress_bar(1) as update:
        try:
            with daukit.tune(save=True) if tuned else nullcontext():
                result = time_data(data, on_progress=update, **how)
        except (TypeError, ValueError) as error:
            raise typer.BadParameter(str(error).splitlines()[0], param_hint="--model") from None
    print_data(result)


def _check_usage(device: str, *, backends: bool, sparse: bool, commands: bool, data: bool, tune: bool) -> None:
    """Refuse the options that what is timed has no use for."""
    chosen = {"--backends": backends, "--sparse": sparse, "--commands": commands, "--data": data}
    given = [name for name, wanted in chosen.items() if wanted]
    if len(given) > 1:
        raise typer.BadParameter("give one of them", param_hint=" and ".join(given))
    if tune and device == "cpu":
        why = "on the CPU there is nothing to choose by measurement; add --device cuda, or drop it"
        raise typer.BadParameter(why, param_hint="--tune")
    if data:
        of_others = ("--shape", "--displacement", "--networks", "--peers", "--quick")
        options.refuse_unused("--data times one network; drop it", *of_others)
        return
    of_data = ("--layout", "--model", "--model-arg", "--batch-size", "--crop-size")
    options.refuse_unused("only --data needs it; drop it", *of_data)
    if device != "cpu":
        why = "this is about the CPU, where --device cpu times it; drop it"
        of_cpu = ("--displacement", "--peers", "--backends", "--sparse", "--quick", "--commands", "--threads")
        options.refuse_unused(why, *of_cpu)
    if backends:
        why = "--backends has layers of its own; drop it"
        options.refuse_unused(why, "--shape", "--displacement", "--networks", "--peers")
    if commands:
        why = "--commands times whole processes on one network; drop it"
        options.refuse_unused(why, "--shape", "--displacement", "--networks", "--peers", "--threads")
    if sparse:
        options.refuse_unused("dcls is not sparse; drop it, or --sparse", "--peers")
        options.refuse_unused("--sparse times convolutions; drop it", "--displacement")
    else:
        options.refuse_unused("it makes --sparse quick; add that, or drop this", "--quick")


def _parse_shape(text: str) -> tuple[int, int, int, int]:
    from daukit.limits import MAX_CHANNELS

    parts = text.split(",")
    if len(parts) != 4 or not all(options.is_count(part, MAX_CHANNELS) for part in parts):
        raise typer.BadParameter(f"{text!r} is not a shape like 8,96,96,32", param_hint="--shape")
    batch, inputs, outputs, size = map(int, parts)
    return batch, inputs, outputs, size
