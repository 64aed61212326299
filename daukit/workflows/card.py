"""The model card of a checkpoint: README.md as the Hugging Face hub shows it, from the file's header and history."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from daukit._version import __version__
from daukit.checkpoint import Checkpoint, stored_bytes
from daukit.tasks import task_name
from daukit.texts import visible
from daukit.workflows.info import FileInfo, HistoryEntry, architecture_in_words, describe_file

CARD = "README.md"
"""The card's file."""

FIGURE = "displacements.png"
"""The figure that stands beside a card, where there is one."""

_PIPELINES = {
    "classification": "image-classification", "segmentation": "image-segmentation", "deblurring": "image-to-image",
}  # fmt: skip
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~$!]|:(?=//)|(?<=www)\.)", re.IGNORECASE)


def card_of(checkpoint: Checkpoint, name: str, *, with_figure: bool = False) -> str:
    """The card of a network that lies in a folder called ``name``.

    Args:
        checkpoint: the network.
        name: what the card calls it.
        with_figure: whether ``FIGURE`` lies beside it.

    Raises:
        CheckpointError: a layer is damaged.
    """
    info = describe_file(checkpoint)
    parts = [_metadata(checkpoint), f"# {_text(name)}", _about(info, stored_bytes(checkpoint)), *_use(checkpoint, name)]
    if info.layers:
        parts += ["## Layers", _layers(info)]
    if with_figure:
        parts.append(f"![Where the units of each layer are]({FIGURE})")
    if info.preprocessing is not None:
        parts += ["## Input", _table(("", ""), _preprocessing(info.preprocessing))]
    parts += ["## How it was made", _history(info.history)]
    parts += ["## Licence", "None is stated here; whoever shares the network says so, in the block above, too."]
    parts.append(
        f"Written by daukit {__version__} from the file's header. From here on it is yours: daukit never replaces it."
    )
    return "\n\n".join(parts) + "\n"


def _metadata(checkpoint: Checkpoint) -> str:
    """The block that the hub reads. JSON texts are YAML's, too."""
    architecture = checkpoint.header.architecture
    lines = ["---", "library_name: daukit"]
    if "name" in architecture:
        lines.append(f"pipeline_tag: {_PIPELINES[task_name(architecture, None)]}")
    tags = ["daukit", "displaced-aggregation-units", "pytorch"]
    return "\n".join([*lines, f"tags: {json.dumps(tags)}", "---"])


def _about(info: FileInfo, size: int) -> str:
    cost = ""
    if info.input is not None and info.multiply_adds is not None:
        cost = f" One image of {' x '.join(map(str, info.input[1:]))} takes {info.multiply_adds:,} multiply-adds."
    if not info.layers:
        kind = "A network"
    else:
        kind = f"A network with {len(info.layers)} layers of displaced aggregation units ({info.units:,} units)"
    called = _code(architecture_in_words(info.architecture))
    return f"{kind}: `{called}`, {info.parameters:,} parameters, {size:,} bytes.{cost}"


def _use(checkpoint: Checkpoint, name: str) -> Iterator[str]:
    yield "## Use"
    if "name" in checkpoint.header.architecture:
        call = f"network = daukit.load({json.dumps(visible(name))})"
    else:
        call = f"network = daukit.load({json.dumps(visible(name))}, model=...)  # your own factory"
    yield f"```\npip install daukit\ndaukit info {shlex.quote(_code(name))}\n```"
    yield f"```python\nimport daukit\n\n{call}\n```"


def _layers(info: FileInfo) -> str:
    rows = [
        (
            e.name, f"{e.in_channels} to {e.out_channels}", f"{e.units:,}", f"{e.units_per_filter:.3g}",
            "learned" if e.sigma is None else f"{e.sigma:g}",
            "-" if e.mean_displacement is None else f"{e.mean_displacement:.2f}",
            "-" if e.max_displacement is None else f"{e.max_displacement:g}",
        )
        for e in info.layers
    ]  # fmt: skip
    columns = ("layer", "channels", "units", "per filter", "sigma, px", "mean displacement, px", "limit, px")
    return _table(columns, rows)


_INPUT = {
    "mean": "mean",
    "std": "standard deviation",
    "channel_order": "channels",
    "value_range": "pixels 0 and 255 are",
    "input_size": "height and width",
    "class_names": "classes",
}
"""Keys of the preprocessing, and what a card calls them."""


def _preprocessing(said: dict[str, Any]) -> list[tuple[str, str]]:
    return [(words, _value(said[key])) for key, words in _INPUT.items() if said.get(key)]


def _history(history: Sequence[HistoryEntry]) -> str:
    if not history:
        return "The file's history mentions nothing."
    rows = []
    for entry in history:
        arguments = ", ".join(f"{key} = {_value(value)}" for key, value in entry.arguments.items() if value is not None)
        rows.append((entry.date[:16].replace("T", " "), entry.operation, arguments, entry.version))
    return _table(("when", "operation", "arguments", "daukit"), rows)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_value(item)}" for key, item in value.items())
    return ", ".join(map(_value, value)) if isinstance(value, list | tuple) else str(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*head, *(f"| {' | '.join(map(_text, row))} |" for row in rows)])


def _text(words: str) -> str:
    """Words of a file as text: nothing in them is markup, and nothing is obeyed."""
    return _MARKS.sub(r"\\\1", visible(words))


def _code(words: str) -> str:
    """Words of a file inside backticks."""
    return visible(words).replace("`", "'")
