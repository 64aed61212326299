"""From a model to a checkpoint and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from daukit.checkpoint.building import build_described, check_layers, take_starts
from daukit.checkpoint.contents import Checkpoint, check_values, unit_counts
from daukit.checkpoint.file import CheckpointFile, read_file, write
from daukit.checkpoint.folder import Source, locate
from daukit.checkpoint.gate import checked
from daukit.checkpoint.header import Header, history_entry
from daukit.checkpoint.masks import check_no_masks_left, with_masks_applied
from daukit.checkpoint.plain import Plain, of_file, read_parts, read_plain
from daukit.checkpoint.resolution import check_limits, how_to_adapt, other_factory, warn_of_other_factory
from daukit.checkpoint.stored import as_read, whole_names
from daukit.checkpoint.wrappers import check_one, fitting
from daukit.errors import CheckpointError, NetworkError, in_words_of_caller
from daukit.limits import in_short
from daukit.models import ModelRecord, record_of, set_record
from daukit.models.callables import Factory, check_config, check_nameable, in_words, is_in_memory, spec_of
from daukit.models.factory import accepted_options, build_architecture
from daukit.models.specs import Architecture, architecture_of
from daukit.models.structure import dau_layers, describe, differences
from daukit.nn.wrappers import unwrapped
from daukit.preprocessing import Preprocessing

_LONGEST = 500  # characters of a message's list of tensors, of which a file may have any number


def from_model(
    model: nn.Module,
    *,
    architecture: Architecture | Factory | None = None,
    preprocessing: Preprocessing | None = None,
) -> Checkpoint:
    """A checkpoint of ``model`` as it is now.

    Args:
        model: built by ``create_model`` or ``load``; any other needs ``architecture``. A compiled, averaged or
            parallel one is unwrapped.
        architecture: ``{"name": ..., "config": {...}}`` or ``{"factory": "module:function", "config": {...}}``; or the
            factory itself, in place of its name or of both.
        preprocessing: what the model expects of its input; default: what it was built or loaded with.

    Raises:
        ValueError: the model has no record of how to rebuild it, or it differs from its factory's in a way that no file
            can describe.
    """
    model = unwrapped(model, "a checkpoint")
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        raise TypeError(f"preprocessing must be a daukit Preprocessing, got {type(preprocessing).__name__}")
    record = record_of(model)
    if architecture is not None:
        architecture = in_words(architecture)
        record = replace(record, architecture=architecture) if record else ModelRecord(architecture)
    if record is None:
        raise ValueError(
            "nothing says how to rebuild this model: build it with daukit.create_model(), or pass "
            'architecture={"factory": build, "config": {...}} with the function that builds it'
        )
    modules = differences(model, build_architecture(record.architecture))
    layers = [{"name": name, **(describe(layer) or {})} for name, layer in dau_layers(model).items()]
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    fed = preprocessing or record.preprocessing
    header = Header(
        record.architecture,
        modules,
        layers=layers,
        preprocessing=fed,
        history=list(record.history),
        foreign=dict(record.metadata),
    )
    return Checkpoint(header, tensors)


def save(
    model: nn.Module,
    path: str | Path,
    *,
    overwrite: bool = False,
    architecture: Architecture | Factory | None = None,
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
    check_nameable(checkpoint.header.architecture.get("factory", ""))
    return write(checkpoint, path, overwrite=overwrite)


def load(
    path: str | Path,
    *,
    model: Factory | None = None,
    config: Mapping[str, Any] | None = None,
    weights: str | None = None,
) -> nn.Module:
    """Rebuild the model of a daukit file, or of a plain state dict whose network is named. In eval mode.

    Args:
        path: a daukit file; or a state dict as people save it (.safetensors, .pt, .pth, .bin): bare or under a name
            as ``state_dict`` or ``model``, with or without prefixes as ``module.``, in one file or in several with
            their index; or a folder with one of these and perhaps ``config.json``. Pickles are read as data only.
        model: a name of ``daukit.models``, or ``"package.module:factory"`` or ``"file.py:factory"`` for a network of
            your own, or that function itself; needed where the file does not name a network of daukit's. Naming a
            factory runs its code.
        config: options of the factory, for plain state dicts; default: those of a folder's ``config.json`` that it has.
        weights: which weights of several: ``"ema"`` for averaged ones, or the name of an entry; default: the trained.

    Raises:
        CheckpointError: the file is missing, damaged, not what its header says, or does not fit the network.
    """
    checkpoint = read_any(path, model=model, config=config, weights=weights)
    network = build_model(checkpoint, model=model)
    warn_of_other_factory(checkpoint.header, model, checkpoint.called)
    return network


def read_any(
    path: str | Path,
    *,
    model: Factory | None = None,
    config: Mapping[str, Any] | None = None,
    weights: str | None = None,
) -> Checkpoint:
    """As ``read``, but a plain state dict is taken too when ``model`` names its network; arguments as in ``load``.

    The checkpoint's ``notes`` tell of choices between weights that no argument made.
    """
    model = None if model is None else spec_of(model)
    check_config({} if config is None else config)
    source = locate(Path(path))
    if source.place:
        plain = read_parts(source.parts, source.place, weights)
    else:
        (part,) = source.parts
        pickled = read_plain(part, weights)
        if pickled is None:
            with CheckpointFile(part) as file:
                described = _described(file, source, model=model, config=config, weights=weights)
                if described is not None:
                    return described
                plain = of_file(file)
        else:
            plain = pickled
    if model is None:
        raise CheckpointError(
            f"{source.path}: a plain state dict does not say which network it is; name it with "
            + in_words_of_caller("model=...", "--model")
        )
    options = _options(model, source) if config is None else dict(config)
    checkpoint = _state_dict_checkpoint(architecture_of(model, options), plain, source.path, weights)
    if isinstance(source.said, Header):
        check_limits(checkpoint.header, source.said, source.path)
    return checkpoint


def _options(model: str, source: Source) -> dict[str, Any]:
    """The options of the network called ``model`` that a folder's ``config.json`` has."""
    if isinstance(source.said, Header) or not source.said:
        return {}
    try:
        return accepted_options(model, source.said)
    except NetworkError as error:
        raise CheckpointError(f"{source.path}: cannot build its network: {error}") from error


def _described(
    file: CheckpointFile, source: Source, model: str | None, config: Mapping[str, Any] | None, weights: str | None
) -> Checkpoint | None:
    """The checkpoint in a file with daukit's header, in itself or beside it, or None for a plain state dict."""
    check_one(file.path, weights)
    if file.header is not None:
        if config:
            how = in_words_of_caller(f"config={dict(config)}", "--model-arg")
            advice = f"drop {how}, or make another network of it by {how_to_adapt()}"
            raise CheckpointError(f"{file.path}: carries its network's options; {advice}")
        return replace(read_file(file), notes=other_factory(file.header, model, file.path))
    if not isinstance(source.said, Header) or model is not None:
        return None
    whole = whole_names(source.said)
    tensors = {name: as_read(file.tensor(name), name, whole) for name in file.keys()}
    tensors |= {name: tensors[owner] for name, owner in source.said.tied.items() if owner in tensors}
    header = replace(source.said, foreign=file.foreign)
    return Checkpoint(header, tensors, file.path, file.digest(), file_size=file.size)


def build_model(checkpoint: Checkpoint, *, model: Factory | None = None) -> nn.Module:
    """Build the network that ``checkpoint`` describes and load its tensors, in eval mode. Arguments as in ``load``."""
    model = None if model is None else spec_of(model)
    header, path = checkpoint.header, checkpoint.called
    architecture = header.architecture
    if is_in_memory(architecture.get("factory", "")):
        model = None  # the network itself was given
    elif "factory" in architecture and model is None:
        raise CheckpointError(
            f"{path}: its network comes from {architecture['factory']!r}, and a file may not choose what code runs; "
            "if you trust it, pass "
            + in_words_of_caller(f"model={architecture['factory']!r}", f"--model {architecture['factory']}")
        )
    if model is not None:
        architecture = architecture_of(model, architecture.get("config"))
    if not {"name", "factory"} & set(architecture):
        raise CheckpointError(
            f"{path}: holds the layers of a {architecture.get('imported', 'nameless')} file, not a whole network; name "
            "one that has them with " + in_words_of_caller("model=...", "--model")
        )
    network = build_described(architecture, header.modules, path)
    _load_tensors(network, checkpoint.tensors, path)
    check_layers(network, header, path)
    take_starts(network, header)
    record = ModelRecord(architecture, header.preprocessing, list(header.history), dict(header.foreign))
    set_record(network, record)
    return network.eval()


def _state_dict_checkpoint(architecture: Architecture, plain: Plain, path: Path, weights: str | None) -> Checkpoint:
    network = build_described(architecture, {}, path)
    own = set(network.state_dict())
    tensors, masks = with_masks_applied(plain.tensors, own, path)
    tensors = fitting(tensors, own)
    check_no_masks_left(tensors, own, path)
    _load_tensors(network, tensors, path)
    described = from_model(network, architecture=architecture)
    arguments: dict[str, Any] = {"model": architecture}
    if plain.entry and (weights or plain.notes):
        arguments["weights"] = plain.entry
    notes = plain.notes
    if masks:
        arguments["masks"] = masks
        notes = (*notes, f"{path}: {masks:,} masks of torch.nn.utils.prune were applied to their weights")
    entry = history_entry("import", arguments, plain.digest)
    header = replace(described.header, history=[entry], foreign=plain.metadata)
    return Checkpoint(header, described.tensors, path=path, digest=plain.digest, notes=notes, file_size=plain.size)


def _load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    double = any(tensor.dtype == torch.float64 for tensor in tensors.values())
    own, layers = network.state_dict(), dau_layers(network)
    whole = {f"{name}.mu" for name, layer in layers.items() if layer.whole_pixels}
    tensors = {name: as_read(tensor, name, whole) for name, tensor in tensors.items()}
    # The network gets tensors of its own, in the precision that it was built for, or in the file's double one.
    taken = {name: _taken(tensor, own.get(name), name, double, path) for name, tensor in tensors.items()}
    for name, layer in layers.items():
        if f"{name}.unit_counts" in taken:
            unit_counts(taken[f"{name}.unit_counts"], layer.pairs, name, path)
        for kind in ("weight", "mu", "sigma"):
            if f"{name}.{kind}" in taken:
                check_values(taken[f"{name}.{kind}"], kind, name, path)
    try:
        result = network.load_state_dict(taken, strict=False, assign=True)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).replace("\n\t", " ").replace("\n", " ")
        raise CheckpointError(f"{path}: its tensors do not fit the network: {reason[:_LONGEST]}") from None
    if result.missing_keys or result.unexpected_keys:
        missing, unexpected = (in_short(sorted(k), _LONGEST) for k in (result.missing_keys, result.unexpected_keys))
        raise CheckpointError(
            f"{path}: its tensors do not fit the network: missing {missing}, unexpected {unexpected}; is it another "
            f"network, or another configuration? {how_to_adapt()} takes what fits, and scales displacements"
        )


def _taken(tensor: Tensor, own: Tensor | None, name: str, double: bool, path: Path | str) -> Tensor:
    """A copy of a file's tensor in the type that it has in the network, if nothing is lost or made up by that."""
    tensor = checked(tensor, name, path)
    wrong = ~torch.isfinite(tensor) if tensor.is_floating_point() else torch.zeros(0, dtype=torch.bool)
    if own is not None and not own.is_meta and own.shape == wrong.shape:
        wrong &= tensor != own.cpu()  # a mask may hold infinities, as the network makes it
    bad = int(wrong.sum())
    if bad:
        raise CheckpointError(f"{path}: {bad} of {tensor.numel()} values of {name} are NaN or infinite")
    dtype = tensor.dtype if own is None else own.dtype
    if double and dtype.is_floating_point:
        dtype = torch.float64
    taken = tensor.to(dtype, copy=True)
    # A counter that was averaged as a float is one still; weights that were stored as integers are not the weights.
    same = dtype.is_floating_point == tensor.dtype.is_floating_point
    if not same and (dtype.is_floating_point or not torch.equal(taken.to(tensor.dtype), tensor)):
        raise CheckpointError(
            f"{path}: {name} is stored as {tensor.dtype}, and the network has {dtype} there; store it as that, with "
            "the scale of quantised values multiplied in"
        )
    return taken
