"""TensorFlow checkpoints of the DAU plugin, and ``.npz`` files of their variables."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from daukit.checkpoint import Checkpoint
from daukit.checkpoint.file import check_readable
from daukit.errors import CheckpointError
from daukit.importers.layers import (
    UNKNOWN_START,
    PerLayer,
    assemble,
    check_names,
    checked_bias,
    checked_sigma,
    dau_layer,
    for_layer,
    outputs_first,
    units_of_blobs,
)
from daukit.importers.tensorflow_bundle import index_path, is_index, read_bundle
from daukit.nn import DAUConv2d

Size = tuple[int, int]

BORDER = 0.01
"""How near to the window's border the plugin lets a unit come, in pixels."""

_AVERAGE = "ExponentialMovingAverage"
_OBJECT = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOTS = {_AVERAGE, "Adam", "Adam_1", "Adagrad", "Adadelta", "Adadelta_1", "Ftrl", "Ftrl_1", "Momentum", "RMSProp"}
_COUNTERS = re.compile(r"(global_step|save_counter|beta[12]_power(_\d+)?)$")
# What numpy and zipfile raise on damaged archives.
_DAMAGE = (
    ValueError, TypeError, AttributeError, KeyError, OSError, EOFError, MemoryError, OverflowError, RuntimeError,
    SyntaxError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
_UNITS = ("weights", "mu1", "mu2", "sigma")


def read_tensorflow(
    path: Path,
    *,
    window: PerLayer[Size] | None = None,
    stride: PerLayer[int] | None = None,
    moving_averages: bool = False,
) -> Checkpoint:
    """Import a checkpoint's or an ``.npz`` file's variables; a scope with weights, mu1, mu2 and sigma is a DAU layer.

    Names are the variables' with ``.`` for ``/``; kernels of plain convolutions become (O, I, H, W). The optimiser's
    variables are left out.

    Args:
        path: a checkpoint, by its prefix or any of its files, or a ``.npz`` file.
        window: the plugin's ``max_kernel_size``, which the file does not hold: displacements are clipped as the
            plugin clips them. A sigma per unit needs it.
        stride: the layers' ``strides``.
        moving_averages: take a variable's moving average where the file has one.
    """
    path = index_path(path) if path.suffix != ".npz" else path
    stored = _read_npz(path) if path.suffix == ".npz" else _read_index(path)
    has_averages = any(name.endswith(_AVERAGE) for name in stored)
    variables = _variables(stored, moving_averages)
    scopes = sorted({name.rpartition("/")[0] for name in variables if name.rpartition("/")[2] in ("mu1", "mu2")})
    names = {scope: scope.replace("/", ".") or "layer" for scope in scopes}
    check_names(path, list(names.values()), {"window": window, "stride": stride})
    layers, unlimited = {}, []
    for scope, name in names.items():
        size = for_layer(window, name)
        layers[name] = _layer(path, scope, variables, size, for_layer(stride, name) or 1)
        if size is None:
            unlimited.append(name)
    others = {name.replace("/", "."): _plain(name, tensor) for name, tensor in variables.items()}
    note = "max_kernel_size is not in the file: displacements are as stored, not clipped, without limit; pass --window"
    notes = [f"{', '.join(unlimited)}: {note}"] if unlimited else []
    if moving_averages and not has_averages:
        notes.append("the file has no moving averages; the variables themselves are taken")
    arguments = {
        "source": "tensorflow",
        "window": window,
        "stride": stride,
        "moving_averages": moving_averages,
        "notes": notes,
    }
    return assemble(path, layers, others, arguments)


def is_npz(path: Path) -> bool:
    """Whether ``path`` is an archive of numpy arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            return bool(archive.namelist()) and all(name.endswith(".npy") for name in archive.namelist())
    except _DAMAGE:
        return False


def _read_npz(path: Path) -> dict[str, Tensor]:
    check_readable(path)
    try:
        with path.open("rb") as data, np.load(data, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype.kind in "fiub"}
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: not a whole .npz file of numbers: {reason}") from None


def _read_index(path: Path) -> dict[str, Tensor]:
    check_readable(path)
    if not is_index(path):
        raise CheckpointError(f"{path}: not a whole index of a TensorFlow checkpoint")
    return read_bundle(path)


def _variables(stored: Mapping[str, Tensor], moving_averages: bool) -> dict[str, Tensor]:
    """The model's own variables: no slots of optimisers, no counters; moving averages in their places if asked for."""
    named = {name.removesuffix(_OBJECT).removesuffix(":0"): tensor for name, tensor in stored.items()}
    variables = {}
    for name, tensor in named.items():
        parent, _, last = name.rpartition("/")
        is_slot = last in _SLOTS or parent in named or "/.OPTIMIZER_SLOT/" in name
        if is_slot or _COUNTERS.search(name):
            continue
        average = named.get(f"{name}/{_AVERAGE}") if moving_averages else None
        variables[name] = tensor if average is None else average
    return variables


def _layer(path: Path, scope: str, variables: dict[str, Tensor], size: Size | None, stride: int) -> DAUConv2d:
    """Take a layer's variables out of ``variables`` and build it."""
    where = f"{path}: layer {scope!r}"
    prefix = f"{scope}/" if scope else ""
    missing = [name for name in _UNITS if prefix + name not in variables]
    if missing:
        raise CheckpointError(f"{where}: there is no {' and no '.join(missing)}; a DAU layer has {', '.join(_UNITS)}")
    weights, mu1, mu2, sigmas = (variables.pop(prefix + name).float() for name in _UNITS)
    weight, mu = units_of_blobs(weights, mu1, mu2, where)
    units = weight.shape[2]
    if units % 2 == 0 and not bool(weight[..., -1].any()):  # the dummy that makes an odd number even
        units -= 1
    if sigmas.shape not in ((1,), weights.shape):
        raise CheckpointError(
            f"{where}: sigma must hold one number or be like weights {tuple(weights.shape)}, got {tuple(sigmas.shape)}"
        )
    biases = [variables.pop(prefix + name) for name in ("biases", "bias") if prefix + name in variables]
    bias = checked_bias(biases[0].float(), weight, where) if biases else None
    own = outputs_first(sigmas)[..., :units].contiguous() if sigmas.dim() == 4 else sigmas
    least, is_dense = checked_sigma(float(own.min()), where), bool(own.min() < own.max())
    options = _limits(size, is_dense, where)
    limit = options["max_displacement"]
    mu = mu[..., :units].contiguous()
    if limit is not None and not is_dense:
        mu = mu.clamp(-limit, limit)
    return dau_layer(
        weight[..., :units].contiguous(), mu, own if is_dense else least, bias, stride=stride, **options
    )  # fmt: skip


def _limits(size: Size | None, is_dense: bool, where: str) -> dict[str, Any]:
    """What follows from the plugin's ``max_kernel_size``: one number for both axes."""
    if size is None and is_dense:
        raise CheckpointError(f"{where}: sigma differs between units; pass the filters' window (--window)")
    if size is None:
        return {"max_displacement": None, "window": None, "init": UNKNOWN_START}
    if size[0] != size[1] or (is_dense and size[0] % 2 == 0):
        raise CheckpointError(f"{where}: its window must be square{' and odd' if is_dense else ''}, got {size}")
    half = size[0] // 2
    limit = max(0.0, half - BORDER)
    start = {"name": "grid", "extent": max(0.0, half - 1)}
    return {"max_displacement": limit, "window": size[0] if is_dense else None, "init": start}


def _plain(name: str, tensor: Tensor) -> Tensor:
    is_kernel = name.rpartition("/")[2] in ("weights", "kernel") and tensor.dim() == 4
    return tensor.permute(3, 2, 0, 1).contiguous() if is_kernel else tensor
