"""The header: what a file says of itself beside its tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from daukit._version import __version__
from daukit.errors import CheckpointError
from daukit.models.factory import Architecture
from daukit.models.structure import LAYER_KEYS, Description
from daukit.nn import INITIALIZER_OPTIONS
from daukit.nn.initialization import MAX_UNITS
from daukit.preprocessing import Preprocessing

SCHEMA = 1
METADATA_KEY = "daukit"

_HEADER_KEYS: dict[str, type | tuple[type, ...]] = {
    "architecture": dict,
    "modules": dict,
    "layers": list,
    "preprocessing": (dict, type(None)),
    "history": list,
}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_length(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0)


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_initialization(value: object) -> bool:
    """A known initialiser with all its options; a grid has some points, and not more than any layer could start on."""
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(name, str) or name not in INITIALIZER_OPTIONS:
        return False
    numbers = {key: option for key, option in value.items() if key != "name"}
    if set(numbers) != INITIALIZER_OPTIONS[name]:
        return False
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < 1e9 for n in numbers.values()):
        return False
    points = [numbers[key] for key in ("rows", "columns") if key in numbers]
    return all(map(_is_count, points)) and math.prod(points) <= MAX_UNITS


_LAYER_RULES: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(LAYER_KEYS, lambda _: True),
    **dict.fromkeys(("name", "type", "form", "mu_gradient"), _is_text),
    **dict.fromkeys(("in_channels", "out_channels", "units", "groups"), _is_count),
    **dict.fromkeys(("stride", "dilation"), _are_counts),
    **dict.fromkeys(("max_displacement", "sigma"), _is_length),
    "initialization": _is_initialization,
}
_HISTORY_RULES: dict[str, Callable[[object], bool]] = {
    "operation": _is_text,
    "arguments": _is_object,
    "date": _is_text,
    "version": _is_text,
}


@dataclass(frozen=True)
class Header:
    """What a file says of itself beside its tensors.

    Attributes:
        architecture: how to build the network: ``{"name", "config"}`` or ``{"factory", "config"}``.
        modules: {module name: type and changed attributes} where the model differs from what the factory builds.
        layers: one description per DAU layer, with its ``name``: enough to prune, plot and rescale without any class.
        preprocessing: what the network expects of its input.
        history: one entry per operation, oldest first.
        tied: {tensor name: the name of the equal tensor that the file stores for both}; ``write`` finds them.
        foreign: what others say in the file's metadata beside this header, as its format or its licence.
    """

    architecture: Architecture
    modules: dict[str, Description] = field(default_factory=dict)
    layers: list[Description] = field(default_factory=list)
    preprocessing: Preprocessing | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The JSON text of the file's metadata; keys are sorted, so equal headers are equal bytes."""
        data = {
            "schema": SCHEMA,
            "architecture": self.architecture,
            "modules": self.modules,
            "layers": self.layers,
            "preprocessing": None if self.preprocessing is None else self.preprocessing.to_json(),
            "history": self.history,
            **({"tied": self.tied} if self.tied else {}),
        }
        return json.dumps(data, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, path: Path) -> Header:
        """Read the metadata of ``path``; raise ``CheckpointError`` where it breaks the format."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{path}: its daukit header is not JSON ({error}); the file is damaged") from None
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise CheckpointError(
                f"{path}: header schema {schema!r}; this daukit ({__version__}) reads {SCHEMA}; "
                "use the version that wrote it"
            )
        for key, kind in _HEADER_KEYS.items():
            if key not in data or not isinstance(data[key], kind):
                raise CheckpointError(
                    f"{path}: header key {key!r} is missing or of the wrong type; the file is damaged"
                )
        tied = data.get("tied", {})
        if not isinstance(tied, dict) or not all(map(_is_text, tied.values())):
            raise CheckpointError(f"{path}: header key 'tied' must map names to names; the file is damaged")
        cls._check_entries(data, path)
        try:
            preprocessing = None if data["preprocessing"] is None else Preprocessing.from_json(data["preprocessing"])
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: header key 'preprocessing' is wrong: {error}") from None
        return cls(data["architecture"], data["modules"], data["layers"], preprocessing, data["history"], tied)

    @staticmethod
    def _check_entries(data: dict[str, Any], path: Path) -> None:
        """Raise ``CheckpointError`` where a module, a layer or an entry of the history is not what every one is."""
        rules: dict[str, dict[str, Callable[[object], bool]]] = {
            "modules": {"type": _is_text},
            "layers": _LAYER_RULES,
            "history": _HISTORY_RULES,
        }
        entries = {"modules": list(data["modules"].values()), "layers": data["layers"], "history": data["history"]}
        for key, items in entries.items():
            for item in items:
                wrong = [
                    n for n, ok in rules[key].items() if not (isinstance(item, dict) and n in item and ok(item[n]))
                ]
                if wrong:
                    raise CheckpointError(f"{path}: header key {key!r}: {', '.join(wrong)} missing or wrong in {item}")


def history_entry(operation: str, arguments: Mapping[str, Any], source: str | None) -> dict[str, Any]:
    """One entry of a file's history: what was done, with what, when, to which file, by which version."""
    return {
        "operation": operation,
        "arguments": dict(arguments),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": source,
        "version": __version__,
    }
