"""From a model to a checkpoint and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from daukit.checkpoint.file import CheckpointFile, check_readable, file_digest, read, write
from daukit.checkpoint.folder import model_file, read_config
from daukit.checkpoint.header import Header, history_entry
from daukit.checkpoint.memory import Checkpoint
from daukit.checkpoint.pickles import is_pickle, read_pickle
from daukit.errors import CheckpointError, NetworkError
from daukit.models import ModelRecord, record_of, set_record
from daukit.models.factory import Architecture, accepted_options, build_architecture
from daukit.models.structure import apply_differences, dau_layers, describe, differences
from daukit.preprocessing import Preprocessing


def from_model(
    model: nn.Module, *, architecture: Architecture | None = None, preprocessing: Preprocessing | None = None
) -> Checkpoint:
    """A checkpoint of ``model`` as it is now.

    Args:
        model: built by ``create_model`` or ``load``; any other needs ``architecture``.
        architecture: ``{"name": ..., "config": {...}}`` or ``{"factory": "module:function", "config": {...}}``.
        preprocessing: what the model expects of its input; default: what it was built or loaded with.

    Raises:
        ValueError: nobody knows how to rebuild the model, or it differs from its factory's in a way that no file can
            describe.
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
    fed = preprocessing or record.preprocessing
    return Checkpoint(Header(record.architecture, modules, layers, fed, list(record.history)), tensors)


def save(
    model: nn.Module,
    path: str | Path,
    *,
    overwrite: bool = False,
    architecture: Architecture | None = None,
    preprocessing: Preprocessing | None = None,
) -> int:
    """Write ``model`` to one file that ``load`` rebuilds with no pickle and no class; arguments as in ``from_model``.

    Returns:
        The file's size in bytes.

    Raises:
        OutputError: ``path`` exists and ``overwrite`` is False, or it cannot be written.
        ValueError: as in ``from_model``.
    """
    checkpoint = from_model(model, architecture=architecture, preprocessing=preprocessing)
    return write(checkpoint, path, overwrite=overwrite)


def load(path: str | Path, *, model: str | None = None, config: Mapping[str, Any] | None = None) -> nn.Module:
    """Rebuild the model of a daukit file, or of a plain state dict whose network is named. In eval mode.

    Args:
        path: a daukit file; or a state dict (.safetensors, .pt, .pth), bare or wrapped in ``model`` or ``state_dict``,
            with or without ``module.`` prefixes; or a folder with ``model.safetensors`` and perhaps ``config.json``.
            Pickles are read as data only.
        model: a name of ``daukit.models``, or ``"package.module:factory"`` or ``"file.py:factory"`` for a network of
            your own; needed where the file does not name a network of daukit's. Naming a factory runs its code.
        config: options of the factory, for plain state dicts; default: those of a folder's ``config.json`` that it has.

    Raises:
        CheckpointError: the file is missing, damaged, not what its header says, or does not fit the network.
    """
    return build_model(read_any(path, model=model, config=config), model=model)


def read_any(path: str | Path, *, model: str | None = None, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """As ``read``, but a plain state dict is taken too when ``model`` names its network; arguments as in ``load``."""
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, model, config)
    check_readable(path)
    if is_pickle(path):
        tensors = read_pickle(path)
    else:
        with CheckpointFile(path) as file:
            if file.header is not None and config:
                raise CheckpointError(
                    f"{path}: carries its network's options; drop config={dict(config)} (--model-arg)"
                )
            if file.header is not None:
                return read(path)
            tensors = {name: file.tensor(name) for name in file.keys()}
    if model is None:
        raise CheckpointError(
            f"{path}: a plain state dict does not say which network it is; name it with model=... (--model)"
        )
    if all(name.startswith("module.") for name in tensors):  # what DataParallel puts before every name
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    key = "factory" if ":" in model else "name"
    return _state_dict_checkpoint({key: model, "config": dict(config or {})}, tensors, path)


def _read_folder(folder: Path, model: str | None, config: Mapping[str, Any] | None) -> Checkpoint:
    """As ``read_any``, with what ``config.json`` says where ``model.safetensors`` says nothing."""
    path, said = model_file(folder), read_config(folder)
    with CheckpointFile(path) as file:
        if file.header is None and isinstance(said, Header) and model is None:
            stored = {name: file.tensor(name) for name in file.keys()}
            stored |= {name: stored[owner] for name, owner in said.tied.items() if owner in stored}
            return Checkpoint(said, stored, path, file_digest(path))
        if file.header is None and not isinstance(said, Header) and model is not None and config is None:
            config = accepted_options(model, said)
    return read_any(path, model=model, config=config)


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
    if not {"name", "factory"} & set(architecture):
        raise CheckpointError(
            f"{path}: holds the layers of a {architecture.get('imported', 'nameless')} file, not a whole network; name "
            "one that has them with model=... (--model)"
        )
    try:
        network = build_architecture(architecture)
        # New modules have no memory yet either, however large the file says they are.
        with torch.device("meta"):
            apply_differences(network, header.modules)
    except (NetworkError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: cannot build its network: {reason}") from error
    _load_tensors(network, checkpoint.tensors, path)
    set_record(network, ModelRecord(architecture, header.preprocessing, list(header.history)))
    return network.eval()


def _state_dict_checkpoint(architecture: Architecture, tensors: dict[str, Tensor], path: Path) -> Checkpoint:
    try:
        network = build_architecture(architecture)
    except (NetworkError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot build its network: {error}") from error
    _load_tensors(network, tensors, path)
    described = from_model(network, architecture=architecture)
    digest = file_digest(path)
    header = replace(described.header, history=[history_entry("import", {"model": architecture}, digest)])
    return Checkpoint(header, described.tensors, path, digest)


def _load_tensors(network: nn.Module, tensors: dict[str, Tensor], path: Path | None) -> None:
    tensors = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise CheckpointError(f"{path}: {bad} of {tensor.numel()} values of {name} are NaN or infinite")
    double = any(tensor.dtype == torch.float64 for tensor in tensors.values())
    own = network.state_dict()
    for name, tensor in tensors.items():
        # The network gets tensors of its own, in the precision that it was built for, or in the file's double one.
        dtype = own[name].dtype if name in own else tensor.dtype
        tensors[name] = tensor.to(torch.float64 if double and tensor.is_floating_point() else dtype, copy=True)
    try:
        result = network.load_state_dict(tensors, strict=False, assign=True)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).replace("\n\t", " ")
        raise CheckpointError(f"{path}: its tensors do not fit the network: {reason}") from None
    if result.missing_keys or result.unexpected_keys:
        raise CheckpointError(
            f"{path}: its tensors do not fit the network: missing {sorted(result.missing_keys)}, "
            f"unexpected {sorted(result.unexpected_keys)}; is it another network, or another configuration?"
        )
