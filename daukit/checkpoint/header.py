"""The header: what a file says of itself beside its tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from daukit._version import __version__
from daukit.errors import CheckpointError
from daukit.limits import Check, in_short, is_object, is_text
from daukit.models.descriptions import LEFT_OUT, Description, layer_faults, module_faults
from daukit.models.specs import Architecture
from daukit.preprocessing import Preprocessing
from daukit.texts import parse_json

SCHEMA = 2
"""The newest schema, which layers of whole pixels and trimmed ones need. Others have schema 1, which all read."""
METADATA_KEY = "daukit"

_HEADER_KEYS: dict[str, type | tuple[type, ...]] = {
    "architecture": dict,
    "modules": dict,
    "layers": list,
    "preprocessing": (dict, type(None)),
    "history": list,
}

_HISTORY_RULES: dict[str, Check] = {
    "operation": is_text,
    "arguments": is_object,
    "date": is_text,
    "version": is_text,
}


@dataclass(frozen=True)
class Header:
    """The description of a network that a file holds beside its tensors.

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

    @property
    def schema(self) -> int:
        """The oldest schema that has words for its layers."""
        return _schema_of(self.layers)

    def to_json(self) -> str:
        """The JSON text of the file's metadata; keys are sorted, so equal headers are equal bytes."""
        data = {
            "schema": self.schema,
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
        data = parse_json(text, path, what="its daukit header")
        schema = data.get("schema") if isinstance(data, dict) else None
        if not isinstance(schema, int) or isinstance(schema, bool) or not 1 <= schema <= SCHEMA:
            raise CheckpointError(
                f"{path}: header schema {in_short(schema)}; this daukit ({__version__}) reads 1 to {SCHEMA}; "
                "use the version that wrote it"
            )
        for key, kind in _HEADER_KEYS.items():
            if key not in data or not isinstance(data[key], kind):
                raise CheckpointError(
                    f"{path}: header key {key!r} is missing or of the wrong type; the file is damaged"
                )
        for fault in _faults(data):
            raise CheckpointError(f"{path}: header key {fault}; the file is damaged")
        if schema < _schema_of(data["layers"]):
            raise CheckpointError(
                f"{path}: header schema {schema} has no layers that read at whole pixels or trim; the file is damaged"
            )
        try:
            preprocessing = None if data["preprocessing"] is None else Preprocessing.from_json(data["preprocessing"])
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: header key 'preprocessing' is wrong: {error}") from None
        tied = data.get("tied", {})
        return cls(
            data["architecture"],
            modules=data["modules"],
            layers=data["layers"],
            preprocessing=preprocessing,
            history=data["history"],
            tied=tied,
        )


def _schema_of(layers: list[Description]) -> int:
    # Older readers pass over keys that they do not know, and would read between pixels or have other outputs.
    return SCHEMA if any(layer.get(key, usual) != usual for layer in layers for key, usual in LEFT_OUT.items()) else 1


def _faults(data: dict[str, Any]) -> Iterator[str]:
    """Faults in a header whose keys are all there: the key first, then the reason."""
    architecture, tied = data["architecture"], data.get("tied", {})
    wrong = [key for key in ("name", "factory", "imported") if not is_text(architecture.get(key, ""))]
    if not is_object(architecture.get("config", {})):
        wrong.append("config")
    if wrong:
        yield f"'architecture': {', '.join(wrong)} wrong in {in_short(architecture)}"
    if not isinstance(tied, dict) or not all(is_text(owner) and owner not in tied for owner in tied.values()):
        yield "'tied' must map names to names of stored tensors"
    entries = [("modules", module_faults(module), module) for module in data["modules"].values()]
    entries += [("layers", layer_faults(layer), layer) for layer in data["layers"]]
    entries += [("history", _history_faults(entry), entry) for entry in data["history"]]
    for key, wrong, entry in entries:
        if wrong:
            yield f"{key!r}: {', '.join(wrong)} missing or wrong in {in_short(entry)}"
            return
    layers = {layer["name"]: layer for layer in data["layers"]}
    if len(layers) < len(data["layers"]):
        yield f"'layers' describes a layer twice (names: {in_short([layer['name'] for layer in data['layers']])})"
    for name, module in data["modules"].items():
        yield from (f"'layers' contradicts 'modules': {reason}" for reason in _contradictions(name, module, layers))


def _history_faults(entry: object) -> list[str]:
    if not isinstance(entry, dict):
        return ["everything"]
    return [key for key, rule in _HISTORY_RULES.items() if key not in entry or not rule(entry[key])]


def _contradictions(name: str, module: Description, layers: Mapping[str, Description]) -> Iterator[str]:
    """Find where the module called ``name`` is said to be something else than the layer of that name."""
    if module["type"] == "Sequential":
        for i, child in enumerate(module["modules"]):
            yield from _contradictions(f"{name}.{i}", child, layers)
    elif (module["type"] == "DAUConv2d") != (name in layers):
        yield f"{name!r} is a {module['type']} in 'modules'"
    elif name in layers:
        layer = {**LEFT_OUT, **layers[name]}
        for key, value in module.items():
            if value != layer[key]:
                yield f"{name!r} has {key} {in_short(layer[key])} and {in_short(value)}"


def history_entry(operation: str, arguments: Mapping[str, Any], source: str | None) -> dict[str, Any]:
    """One entry of a file's history: what was done, with what, when, to which file, by which version."""
    return {
        "operation": operation,
        "arguments": dict(arguments),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": source,
        "version": __version__,
    }
