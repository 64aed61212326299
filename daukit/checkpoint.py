"""One file is one model: ``save``, ``load``, and ``read``/``write``/``open`` for work on files without any model class.

The format is docs/checkpoint-format.md: a safetensors file whose one metadata key ``daukit`` holds a JSON header.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from daukit._version import __version__
from daukit.errors import CheckpointError
from daukit.files import write_atomic
from daukit.models import ModelRecord, record_of, set_record
from daukit.models.factory import Architecture, build_architecture
from daukit.models.structure import Description, apply_differences, dau_layers, describe, differences
from daukit.preprocessing import Preprocessing

SCHEMA = 1
METADATA_KEY = "daukit"

_HEADER_KEYS = {
    "schema": int, "architecture": dict, "modules": dict, "layers": list, "preprocessing": (dict, type(None)), "history": list
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file says of itself beside its tensors.

    Attributes:
        architecture: how to build the network: ``{"name", "config"}`` or ``{"factory", "config"}``.
        modules: {module name: type and changed attributes} where the model differs from what the factory builds.
        layers: one description per DAU layer, with its ``name``: enough to prune, plot and rescale without any class.
        preprocessing: what the network expects of its input.
        history: one entry per operation, oldest first.
    """

    architecture: Architecture
    modules: dict[str, Description] = field(default_factory=dict)
    layers: list[Description] = field(default_factory=list)
    preprocessing: Preprocessing | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> str:
        """The JSON text of the file's metadata; keys are sorted, so equal headers are equal bytes."""
        data = {
            "schema": SCHEMA,
            "architecture": self.architecture,
            "modules": self.modules,
            "layers": self.layers,
            "preprocessing": None if self.preprocessing is None else self.preprocessing.to_json(),
            "history": self.history,
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
            raise CheckpointError(f"{path}: header schema {schema!r}; this daukit ({__version__}) reads {SCHEMA}; use the version that wrote it")
        for key, kind in _HEADER_KEYS.items():
            if not isinstance(data.get(key), kind):
                raise CheckpointError(f"{path}: header key {key!r} is missing or of the wrong type; the file is damaged")
        try:
            preprocessing = None if data["preprocessing"] is None else Preprocessing.from_json(data["preprocessing"])
        except TypeError as error:
            raise CheckpointError(f"{path}: header key 'preprocessing' is wrong: {error}") from None
        return cls(data["architecture"], data["modules"], data["layers"], preprocessing, data["history"])


@dataclass(frozen=True)
class Checkpoint:
    """A file in memory: its header and all its tensors, with no model class.

    Attributes:
        header: what the file says of itself.
        tensors: by state-dict name.
        path: where it was read from, if anywhere.
        digest: SHA-256 of the file it was read from, for the history of what is made of it.
    """

    header: Header
    tensors: dict[str, Tensor]
    path: Path | None = None
    digest: str | None = None

    def layer(self, name: str) -> LayerUnits:
        """The units of the DAU layer called ``name``, checked.

        Raises:
            CheckpointError: there is no such layer, its tensors disagree with the header, or they hold NaN or infinity.
        """
        for description in self.header.layers:
            if description["name"] == name:
                return _layer_units(description, self.tensors, self.path)
        raise CheckpointError(f"{self.path}: there is no DAU layer {name!r}; it has {self.layer_names}")

    @property
    def layer_names(self) -> list[str]:
        """Names of the DAU layers, in the network's order."""
        return [description["name"] for description in self.header.layers]

    def derive(self, operation: str, arguments: Mapping[str, Any], **header: Any) -> Checkpoint:
        """A copy with changed header fields, a history that records ``operation``, and the same tensors by reference."""
        entry = history_entry(operation, arguments, self.digest)
        changed = replace(self.header, history=[*self.header.history, entry], **header)
        return Checkpoint(changed, dict(self.tensors))


@dataclass(frozen=True)
class LayerUnits:
    """The units of one DAU layer, flat, whether the layer is dense or ragged.

    Attributes:
        name: the layer's name.
        description: its entry in the header.
        weight: (units,).
        mu: (2, units), displacement (y, x) in dilated pixels.
        counts: (pairs,) int64, units of every (output, input) pair; pair ``p = out * inputs_per_group + in``.
    """

    name: str
    description: Description
    weight: Tensor
    mu: Tensor
    counts: Tensor

    @property
    def pair(self) -> Tensor:
        """The pair of every unit: (units,) int64."""
        return torch.repeat_interleave(torch.arange(self.counts.numel()), self.counts)

    @property
    def inputs_per_group(self) -> int:
        """Input channels that one output channel reads."""
        return int(self.description["in_channels"] // self.description["groups"])


class CheckpointFile:
    """A file opened lazily: the header at once, single tensors when asked for. Use it as a context manager.

    Attributes:
        path: the file.
        header: its header, or None for a safetensors file that daukit did not write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        _check_readable(self.path)
        try:
            self._file = safe_open(self.path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{self.path}: not a complete safetensors file ({error}); was it cut short, or is it of another kind?"
            ) from None
        text = (self._file.metadata() or {}).get(METADATA_KEY)
        self.header = None if text is None else Header.from_json(text, self.path)

    def __enter__(self) -> CheckpointFile:
        self._file.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.__exit__(kind, error, trace)

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return sorted(self._file.keys())

    def tensor(self, name: str) -> Tensor:
        """Read one tensor."""
        try:
            tensor: Tensor = self._file.get_tensor(name)
        except SafetensorError:
            raise CheckpointError(f"{self.path}: there is no tensor {name!r}") from None
        return tensor


def open(path: str | Path) -> CheckpointFile:
    """Open a safetensors file lazily: its header and its single tensors, without reading the rest."""
    return CheckpointFile(path)


def read(path: str | Path) -> Checkpoint:
    """Read a daukit file whole, without building a model.

    Raises:
        CheckpointError: the file is missing, damaged, or has no daukit header.
    """
    with open(path) as file:
        if file.header is None:
            raise CheckpointError(
                f"{file.path}: no daukit header; was it written by daukit.save()? A plain state dict needs its network "
                "named: daukit.load(path, model=...), or --model on the command line"
            )
        tensors = {name: file.tensor(name) for name in file.keys()}
    return Checkpoint(file.header, tensors, file.path, _digest(file.path))


def write(checkpoint: Checkpoint, path: str | Path, *, overwrite: bool = False) -> int:
    """Write ``checkpoint`` atomically and return the file's size in bytes.

    Raises:
        OutputError: ``path`` exists and ``overwrite`` is False, or it cannot be written; nothing is changed then.
    """
    data = safetensors.torch.save(_unshared(checkpoint.tensors), {METADATA_KEY: checkpoint.header.to_json()})
    write_atomic(Path(path), data, overwrite=overwrite)
    return len(data)


def from_model(model: nn.Module, *, architecture: Architecture | None = None) -> Checkpoint:
    """A checkpoint of ``model`` as it is now.

    Args:
        model: built by ``create_model`` or ``load``; any other needs ``architecture``.
        architecture: ``{"name": ..., "config": {...}}`` or ``{"factory": "module:function", "config": {...}}``.

    Raises:
        ValueError: nobody knows how to rebuild the model, or it differs from its factory's in a way no file can describe.
    """
    record = record_of(model)
    if architecture is not None:
        record = replace(record, architecture=architecture) if record else ModelRecord(architecture)
    if record is None:
        raise ValueError(
            "nothing says how to rebuild this model: build it with daukit.create_model(), or pass "
            'architecture={"factory": "module:function", "config": {...}}'
        )
    modules = differences(model, build_architecture(record.architecture))
    layers = [{"name": name, **(describe(layer) or {})} for name, layer in dau_layers(model).items()]
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    header = Header(record.architecture, modules, layers, record.preprocessing, list(record.history))
    return Checkpoint(header, tensors)


def save(
    model: nn.Module, path: str | Path, *, overwrite: bool = False, architecture: Architecture | None = None
) -> int:
    """Write ``model`` to one file that ``load`` rebuilds with no pickle and no class; arguments as in ``from_model``.

    Returns:
        The file's size in bytes.

    Raises:
        OutputError: ``path`` exists and ``overwrite`` is False, or it cannot be written.
        ValueError: as in ``from_model``.
    """
    return write(from_model(model, architecture=architecture), path, overwrite=overwrite)


def load(path: str | Path, *, model: str | None = None, config: Mapping[str, Any] | None = None) -> nn.Module:
    """Rebuild the model of a daukit file, or of a plain state dict whose network is named. In eval mode.

    Args:
        path: a daukit file; or a state dict (.safetensors, .pt, .pth), bare or wrapped in ``model`` or ``state_dict``,
            with or without ``module.`` prefixes. Pickles are read as data only.
        model: a name of ``daukit.models``, or ``"package.module:factory"`` or ``"file.py:factory"`` for a network of your
            own; needed where the file does not name a network of daukit's. Naming a factory runs its code.
        config: options of the factory, for plain state dicts.

    Raises:
        CheckpointError: the file is missing, damaged, not what its header says, or does not fit the network.
    """
    return build_model(read_any(path, model=model, config=config), model=model)


def read_any(path: str | Path, *, model: str | None = None, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """As ``read``, but a plain state dict is taken too when ``model`` names its network."""
    path = Path(path)
    _check_readable(path)
    if _is_pickle(path):
        tensors = _read_pickle(path)
    else:
        with open(path) as file:
            if file.header is not None:
                return read(path)
            tensors = {name: file.tensor(name) for name in file.keys()}
    if model is None:
        raise CheckpointError(f"{path}: a plain state dict does not say which network it is; name it with model=... (--model)")
    key = "factory" if ":" in model else "name"
    return _state_dict_checkpoint({key: model, "config": dict(config or {})}, tensors, path)


def build_model(checkpoint: Checkpoint, *, model: str | None = None) -> nn.Module:
    """Build the network that ``checkpoint`` describes and load its tensors, in eval mode. Arguments as in ``load``."""
    header, path = checkpoint.header, checkpoint.path
    architecture = header.architecture
    if "factory" in architecture and model is None:
        raise CheckpointError(
            f"{path}: its network comes from {architecture['factory']!r}, and a file may not choose what code runs; "
            f"if you trust it, pass model={architecture['factory']!r} (--model)"
        )
    if model is not None:
        architecture = {"factory" if ":" in model else "name": model, "config": architecture.get("config", {})}
    try:
        network = build_architecture(architecture)
        apply_differences(network, header.modules)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot build its network: {error}") from None
    _load_tensors(network, checkpoint.tensors, path)
    set_record(network, ModelRecord(architecture, header.preprocessing, list(header.history)))
    return network.eval()


def history_entry(operation: str, arguments: Mapping[str, Any], source: str | None) -> dict[str, Any]:
    """One entry of a file's history: what was done, with what, when, to which file, by which version."""
    return {
        "operation": operation,
        "arguments": dict(arguments),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": source,
        "version": __version__,
    }


def _layer_units(description: Description, tensors: dict[str, Tensor], path: Path | None) -> LayerUnits:
    name = description["name"]
    try:
        weight, mu = tensors[f"{name}.weight"], tensors[f"{name}.mu"]
        pairs = description["out_channels"] * (description["in_channels"] // description["groups"])
        counts = tensors.get(f"{name}.unit_counts", torch.full((pairs,), description["units"])).long()
    except KeyError as error:
        raise CheckpointError(f"{path}: layer {name!r}: there is no {error}; the file is damaged") from None
    if mu.shape != (2, *weight.shape) or counts.numel() != pairs or int(counts.sum()) != weight.numel():
        raise CheckpointError(
            f"{path}: layer {name!r}: weight {tuple(weight.shape)}, mu {tuple(mu.shape)} and {counts.numel()} unit counts "
            f"summing to {int(counts.sum())} do not fit {pairs} pairs; the file is damaged"
        )
    for kind, tensor in (("weight", weight), ("mu", mu)):
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise CheckpointError(f"{path}: layer {name!r}: {bad} of {tensor.numel()} values of {kind} are NaN or infinite")
    return LayerUnits(name, description, weight.flatten(), mu.reshape(2, -1), counts)


def _state_dict_checkpoint(architecture: Architecture, tensors: dict[str, Tensor], path: Path) -> Checkpoint:
    try:
        network = build_architecture(architecture)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot build its network: {error}") from None
    _load_tensors(network, tensors, path)
    described = from_model(network, architecture=architecture)
    digest = _digest(path)
    header = replace(described.header, history=[history_entry("import", {"model": architecture}, digest)])
    return Checkpoint(header, described.tensors, path, digest)


def _load_tensors(network: nn.Module, tensors: dict[str, Tensor], path: Path | None) -> None:
    try:
        result = network.load_state_dict(tensors, strict=False)
    except (RuntimeError, ValueError) as error:
        reason = str(error).replace("\n\t", " ")
        raise CheckpointError(f"{path}: its tensors do not fit the network: {reason}") from None
    if result.missing_keys or result.unexpected_keys:
        raise CheckpointError(
            f"{path}: its tensors do not fit the network: missing {sorted(result.missing_keys)}, "
            f"unexpected {sorted(result.unexpected_keys)}; is it another network, or another configuration?"
        )


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such file")
    if not path.is_file():
        raise CheckpointError(f"{path}: is not a file")


def _is_pickle(path: Path) -> bool:
    """Whether torch.save wrote it: a zip archive, or the older bare pickle, which opens with the PROTO opcode."""
    with builtins.open(path, "rb") as file:
        first = file.read(2)
    return zipfile.is_zipfile(path) or (first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: its pickle asks for code to be run, and daukit never runs code from a file; "
            "save only model.state_dict() and try again"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a complete torch file ({str(error).splitlines()[0]})") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(data, dict) and isinstance(data.get(wrapper), dict):
            data = data[wrapper]
    if not isinstance(data, dict) or not data or not all(isinstance(v, Tensor) for v in data.values()):
        raise CheckpointError(f"{path}: does not hold a state dict of tensors, bare or under 'model' or 'state_dict'")
    if all(str(key).startswith("module.") for key in data):
        data = {key.removeprefix("module."): value for key, value in data.items()}
    return dict(data)


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory, as safetensors asks."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if pointer in seen else tensor.contiguous()
        seen.add(pointer)
    return result


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with builtins.open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
