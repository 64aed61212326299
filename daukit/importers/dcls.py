"""State dicts with Dcls1d and Dcls2d layers of the dcls package, to and from DAU layers."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from daukit.checkpoint import Checkpoint
from daukit.checkpoint.file import CheckpointFile
from daukit.checkpoint.gate import check_all
from daukit.checkpoint.header import METADATA_KEY
from daukit.checkpoint.pickles import is_pickle, load_object, opens_as_pickle
from daukit.checkpoint.wrappers import choose
from daukit.errors import CheckpointError, in_words_of_caller
from daukit.importers.dcls_units import SigmaAxes, Version, layer_of_state, to_dcls
from daukit.importers.layers import PerLayer, assemble, check_names, digest_of, for_layer, reading
from daukit.nn import DAUConv2d

Size = tuple[int, int]


def read_dcls(
    path: Path,
    *,
    version: Version,
    window: PerLayer[Size],
    stride: PerLayer[int] | None = None,
    groups: PerLayer[int] | None = None,
    sigma_axes: SigmaAxes = "equal",
) -> Checkpoint:
    """Import a state dict (``.pth``, ``.pt`` or ``.safetensors``); ``name.weight`` and ``name.P`` are a DAU layer.

    The layers are those that dcls pads by half their window. Layers with the same displacements, as those of a stage
    that share ``P``, hold one tensor, which the file stores once.

    Args:
        path: the state dict, bare or wrapped in ``model`` or ``state_dict``; a pickle is read as data only.
        version: of the layers: ``"v0"``, ``"v1"``, ``"max"`` or ``"gauss"``; it says which of P's axes is which.
        window: (height, width) of ``dilated_kernel_size``, odd. Where P has one axis, the other side must be 1: a row
            (Dcls1d) has ``(1, width)``, a column (Dcls2dK1d) ``(height, 1)``.
        stride: the layers' strides.
        groups: the layers' groups; default: depthwise where a filter reads one channel, one group otherwise.
        sigma_axes: what to do with Gaussians whose SIG differs between axes, as in ``layer_of_state``.

    Raises:
        CheckpointError: a layer's tensors are missing, do not fit each other, or belong to another version.
    """
    with reading(path):
        stored, digest, notes = _read(path)
    tensors = _without_prefix(stored)
    names = [name.removesuffix("P").removesuffix(".") for name in tensors if _is_position(name)]
    shown = {name: name or "layer" for name in names}
    check_names(path, list(shown.values()), {"window": window, "stride": stride, "groups": groups})
    layers: dict[str, DAUConv2d] = {}
    same: dict[bytes, Tensor] = {}
    for name, title in shown.items():
        prefix, where = f"{name}." if name else "", f"{path}: layer {title!r}"
        state = {key: tensors.pop(prefix + key) for key in ("weight", "P", "SIG", "bias") if prefix + key in tensors}
        size = for_layer(window, title)
        if size is None:
            how = in_words_of_caller("window=", "--window")
            raise CheckpointError(f"{where}: its window is not in the file; pass {how}")
        with reading(path):  # units that are split take more memory than the file
            layer, remarks = layer_of_state(
                state, version, size, where, stride=for_layer(stride, title) or 1, groups=for_layer(groups, title),
                sigma_axes=sigma_axes,
            )  # fmt: skip
        layer.mu.data = same.setdefault(_digest(layer.mu), layer.mu.detach())
        layers[title] = layer
        notes += [f"{title}: {remark}" for remark in remarks]
    arguments = {
        "source": "dcls", "version": version, "window": window, "stride": stride, "groups": groups,
        "sigma_axes": sigma_axes, "notes": notes,
    }  # fmt: skip
    return assemble(path, digest, layers, tensors, arguments)


def is_dcls(path: Path) -> bool:
    """True if a file is a pickle, or a safetensors file with layers of dcls.

    Raises:
        CheckpointError: it is a file of daukit's.
    """
    if is_pickle(path):
        return True
    try:
        with safe_open(path, framework="pt") as file:
            if METADATA_KEY in (file.metadata() or {}):
                raise CheckpointError(f"{path}: is a daukit file already")
            return any(_is_position(name) for name in file.keys())
    except (SafetensorError, OSError):
        return False


def _is_position(name: str) -> bool:
    return name == "P" or name.endswith(".P")


def _read(path: Path) -> tuple[dict[str, Tensor], str, list[str]]:
    """The tensors, the file's SHA-256, and notes on a choice among several sets of weights."""
    with path.open("rb") as opened:
        if opens_as_pickle(opened):
            chosen = choose(load_object(opened, path), None, path)
            notes = [chosen.note] if chosen.note else []
            return check_all(chosen.tensors, path), digest_of(opened), notes
    with CheckpointFile(path) as file:
        tensors = {name: file.tensor(name) for name in file.keys()}
        # What safetensors' save_model says of tensors that it stored once: {name: the name it is stored under}.
        for name, owner in file.metadata.items():
            if name.endswith(".P") and owner in tensors:
                tensors.setdefault(name, tensors[owner])
        return dict(sorted(tensors.items())), file.digest(), []


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that DataParallel and torch.compile put before every name, in any order."""
    while prefix := next((p for p in ("module.", "_orig_mod.") if all(name.startswith(p) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        if not tensors:
            break
    return dict(tensors)


def _digest(mu: Tensor) -> bytes:
    """The same for tensors of the same shape and values."""
    data = mu.detach().contiguous()
    shape = repr((tuple(data.shape), data.dtype)).encode()
    return hashlib.sha256(shape + data.numpy().tobytes()).digest()


__all__ = ["SigmaAxes", "Version", "is_dcls", "read_dcls", "to_dcls"]
