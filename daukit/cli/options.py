"""Options that have the same name, type and meaning in every command, and the parsing of their values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from daukit.cli.printing import note
from daukit.cli.streams import write_message
from daukit.errors import CheckpointError, naming
from daukit.texts import did_you_mean

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint

Source = Annotated[Path, typer.Argument(metavar="FILE", help="A daukit checkpoint, or a state dict with --model.")]


def file_to_write(text: str) -> Path:
    """Parse the name of an output file; one that a slash at its end makes a folder's is a usage error."""
    if text.endswith(("/", os.sep)):
        raise typer.BadParameter(f"{text} is a folder's name; name a file in it")
    return Path(text)


Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="OUT", help="Write the new checkpoint to this file.", parser=file_to_write),
]
Figure = Annotated[
    Path | None,
    typer.Option(
        "--figure", metavar="FIG", help="Draw the results to this .png, .jpg, .pdf or .svg.", parser=file_to_write
    ),
]
FigureOutput = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FIG", help="Write the figure to this .png, .jpg, .pdf or .svg.", parser=file_to_write
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="Write the numbers to this file, as a table.", parser=file_to_write),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="H,W",
        help="Height and width of the input image in pixels, or one number for both. If omitted, the network's own.",
    ),
]
Layout = Annotated[
    Literal["idx", "cifar10", "cifar100", "imagenet", "masks", "voc", "cityscapes", "blurred", "gopro", "gopro-gamma"]
    | None,
    typer.Option(
        "--layout",
        metavar="LAYOUT",  # the choices would make a line of the help that no terminal is wide enough for
        help="How the files of --data lie in their folder: idx, cifar10, cifar100, imagenet, masks, voc, cityscapes, "
        "blurred, gopro or gopro-gamma. If omitted, found by the names of the files.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Report as usual, but write nothing.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print the results as one JSON object on stdout, and nothing else there.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only the answer: the paths of files written, or the result itself.")
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Device to compute on: cpu, cuda, cuda:1, mps, or auto, which takes a GPU if there is one.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed for all random numbers.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Network of a plain state dict: a name listed by `daukit models`, package.module:factory or "
        "file.py:factory.",
    ),
]
ModelArg = Annotated[
    list[str] | None,
    typer.Option("--model-arg", metavar="KEY=VALUE", help="Pass an option to the --model factory; repeatable."),
]
Label = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        help="Call what is compared this in figures, in place of its file's name: once for each file, in order.",
    ),
]

# A plain global, as a process runs one command: the names of the parameters that stand on its command line.
_given: set[str] = set()


def remember_given(ctx: typer.Context) -> None:
    """Take note of what the command line says, and not a default."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    _given.clear()
    _given.update(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")


def refuse_wild_numbers(ctx: typer.Context) -> None:
    """Make it a usage error to give an integer beyond 64 bits, or a number whose products overflow in float32."""
    for name, value in ctx.params.items():
        refuse_wild_number(value, f"--{name.replace('_', '-')}")


def refuse_wild_number(value: object, option: str) -> None:
    """As ``refuse_wild_numbers``, for the value of one option."""
    if (isinstance(value, int) and abs(value) >= 2**63) or (isinstance(value, float) and not abs(value) <= 1e18):
        raise typer.BadParameter(f"{value} is out of all bounds; give a usual number", param_hint=option)


@contextmanager
def usage_of(option: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    """Make the library's refusal of an argument a usage error of ``option``."""
    try:
        yield
    except kind as error:
        raise typer.BadParameter(str(error).splitlines()[0], param_hint=option) from None


def is_given(name: str) -> bool:
    """Tell whether the parameter called ``name`` stands on the command line."""
    return name in _given


def refuse_unused(why: str, *names: str) -> None:
    """Make it a usage error to give options that this call has no use for.

    Args:
        why: the rule, and what to do.
        names: of the options, as ``"--dry-run"``; named as the command's parameters are, with ``_`` for ``-``.
    """
    given = [name for name in names if name.removeprefix("--").replace("-", "_") in _given]
    if given:
        raise typer.BadParameter(why, param_hint=" and ".join(given))


RENAMED = {"prune": {"--units": "--keep-units"}, "train": {"--from": "--initial-checkpoint"}}
"""Former names of options by command: {command: {former: present}}. They work, and --help is silent about them."""


def with_present_names(ctx: typer.Context, words: Sequence[str]) -> list[str]:
    """The command line with the present names of options in the place of former ones, each with a note."""
    renamed = RENAMED.get(ctx.info_name or "", {})
    end = words.index("--") if "--" in words else len(words)
    present = list(words)
    for i, word in enumerate(words[:end]):
        former, equals, value = word.partition("=")
        if former in renamed:
            present[i] = f"{renamed[former]}{equals}{value}"
            if not (ctx.resilient_parsing or {"--quiet", "-q"} & {*words}):
                write_message(f"{former} is now {renamed[former]}\n")
    return present


Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="NAME",
        help="Set of weights to take from a state dict that holds several: ema for the averaged ones, or the name of a "
        "set. If omitted, the trained ones.",
    ),
]

_NUMBERS = re.compile(r"[-+.\deE]+(\s*,\s*[-+.\deE]+)+")


def parse_values(items: Sequence[str] | None, option: str, form: str = "KEY=VALUE") -> dict[str, Any]:
    """Parse ``KEY=VALUE`` items; one that has not this ``form`` is a usage error.

    Values are JSON where they can be, lists where they are numbers with commas in between, and text otherwise.
    """
    from daukit.errors import CheckpointError
    from daukit.texts import parse_json

    values = {}
    for item in items or ():
        key, equals, text = item.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{item!r} is not {form}", param_hint=option)
        values[key] = text
        with suppress(CheckpointError):  # it is no JSON
            values[key] = parse_json(f"[{text}]" if _NUMBERS.fullmatch(text) else text, None)
    return values


def parse_numbers(text: str, option: str, low: float = 0.0, high: float = 1.0) -> list[float]:
    """Parse ``0,0.1,0.5``; a number outside [low, high] or no number at all is a usage error."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers like 0,0.1,0.5", param_hint=option) from None
    for number in numbers:
        if not low <= number <= high:
            raise typer.BadParameter(f"{number:g} is not within [{low:g}, {high:g}]", param_hint=option)
    return numbers


def parse_size(text: str, option: str = "--size") -> tuple[int, int]:
    """Parse ``128`` or ``96,128`` as (height, width); anything else is a usage error."""
    from daukit.limits import MAX_SIZE

    parts = text.split(",")
    if len(parts) > 2 or not all(is_count(part, MAX_SIZE) for part in parts):
        message = f"{text!r} is not a size like 128 or 96,128, of at most {MAX_SIZE:,} pixels"
        raise typer.BadParameter(message, param_hint=option)
    return int(parts[0]), int(parts[-1])


def is_count(text: str, most: int) -> bool:
    """True if a text is a whole number within [1, most]."""
    digits = text.strip()
    return digits.isdecimal() and len(digits) < 20 and 0 < int(digits) <= most


def choose_layers(wanted: Sequence[str] | None, names: Sequence[str], path: Path) -> list[str]:
    """The layers asked for (all of ``names`` by default); an unknown one is an error that names its nearest match."""
    from daukit.errors import CheckpointError

    for name in wanted or ():
        if name not in names:
            hint, listed = did_you_mean(name, names), ", ".join(names)
            raise CheckpointError(f"{path}: there is no layer {name!r}{hint} (layers: {listed})")
    return list(wanted or names)


def needs_model(path: Path) -> bool:
    """Check that the network of a file must be given: it is no daukit file of one of daukit's own networks."""
    from daukit.checkpoint import CheckpointFile

    try:
        with CheckpointFile(path) as file:
            return file.header is None or "name" not in file.header.architecture
    except CheckpointError:  # a pickle, a folder, or something that is an error as soon as it is read
        return True


def read_source(
    source: Path, model: str | None, model_args: Sequence[str] | None, weights: str | None = None
) -> Checkpoint:
    """Read the command's FILE, a daukit file or a state dict whose network ``--model`` names; tell of its notes."""
    from daukit.checkpoint import read_any
    from daukit.checkpoint.building import check_told

    # None, not {}: without options of its own the network takes those that the file's folder tells.
    config = parse_values(model_args, "--model-arg") or None
    checkpoint = read_any(source, model=model, config=config, weights=weights)
    _check_network(checkpoint, model)
    check_told(checkpoint.header, checkpoint.called)
    for sentence in checkpoint.notes:
        note(sentence)
    return checkpoint


def _check_network(checkpoint: Checkpoint, model: str | None) -> None:
    """Refuse a ``--model`` that a file which names its network has no use for."""
    from daukit.errors import CheckpointError

    name = checkpoint.header.architecture.get("name")
    if model is not None and name is not None and model != name:
        advice = "drop --model, or make another network of it by daukit convert --to"
        raise CheckpointError(f"{checkpoint.called}: holds the network {name}, not {model}; {advice}")


@contextmanager
def building(model: str, config: Mapping[str, Any], option: str) -> Iterator[None]:
    """Around the construction of ``model``: make wrong values in ``config``, which ``option`` gave, usage errors."""
    from daukit.models.arguments import check_options

    try:
        with naming(model):
            check_options(model, config)
            yield
    except TypeError as error:
        raise typer.BadParameter(str(error).splitlines()[0], param_hint=option) from None
