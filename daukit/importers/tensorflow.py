"""TensorFlow checkpoints of the DAU plugin, and ``.npz`` files of their variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from daukit.checkpoint import Checkpoint
from daukit.errors import CheckpointError, in_words_of_caller
from daukit.importers.layers import (
    UNKNOWN_START,
    PerLayer,
    assemble,
    check_any,
    check_distinct,
    check_names,
    check_window,
    checked_bias,
    checked_sigma,
    dau_layer,
    for_layer,
    outputs_first,
    reading,
    units_of_blobs,
)
from daukit.importers.npz import Archive, is_npz
from daukit.importers.remarks import Remarks, clipped, single_precision
from daukit.importers.tensorflow_bundle import Bundle, index_path, is_index, newest_checkpoint
from daukit.nn import DAUConv2d

Size = tuple[int, int]

BORDER = 0.01
"""Least distance that the plugin leaves between a unit and the window's border, in pixels."""

_AVERAGE = "ExponentialMovingAverage"
_OBJECT = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOTS = {_AVERAGE, "Adam", "Adam_1", "Adagrad", "Adadelta", "Adadelta_1", "Ftrl", "Ftrl_1", "Momentum", "RMSProp"}
_COUNTERS = re.compile(r"(global_step|save_counter|beta[12]_power(_\d+)?)$")
_UNITS = ("weights", "mu1", "mu2", "sigma")


def is_tensorflow(path: Path) -> bool:
    """True if there is a checkpoint of this name, a folder with the newest of several, or an ``.npz`` file."""
    return (path / "checkpoint").is_file() or is_index(index_path(path)) or is_npz(path)


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
        path: a checkpoint, by its prefix or any of its files, or a folder whose ``checkpoint`` file names the newest
            one in it; or a ``.npz`` file.
        window: the plugin's ``max_kernel_size``, which the file does not hold: displacements are clipped as the
            plugin clips them. A sigma per unit needs it.
        stride: the layers' ``strides``.
        moving_averages: take a variable's moving average where the file has one.
    """
    with reading(path), _opened(path) as stored:
        path, named = stored.path, _own_names(stored, moving_averages)
        scopes = sorted({name.rpartition("/")[0] for name in named if name.rpartition("/")[2] in ("mu1", "mu2")})
        names = {scope: _dotted(scope) or "layer" for scope in scopes}
        check_names(path, list(names.values()), {"window": window, "stride": stride})
        check_any(path, scopes, map(_dotted, named))
        for scope in scopes:
            _check_units(path, scope, named)
        check_distinct(path, map(_dotted, named))
        variables = {name: stored.read(key) for name, key in named.items()}
    layers, remarks = {}, Remarks()
    for scope, name in names.items():
        layers[name] = _layer(
            variables,
            scope=scope,
            name=name,
            size=for_layer(window, name),
            stride=for_layer(stride, name),
            where=f"{path}: layer {scope!r}",
            remarks=remarks,
        )
    others = {_dotted(name): _plain(name, tensor) for name, tensor in variables.items()}
    notes = remarks.sentences()
    if moving_averages and not any(key.endswith(_AVERAGE) for key in stored.names):
        notes.append("the file has no moving averages; the variables themselves are taken")
    if stored.left_out:
        notes.append(f"left out, as their type is none that daukit keeps: {', '.join(stored.left_out)}")
    arguments = {
        "source": "tensorflow",
        "window": window,
        "stride": stride,
        "moving_averages": moving_averages,
        "notes": notes,
    }
    return assemble(path, stored.digest, layers, others, arguments)


def _opened(path: Path) -> Archive | Bundle:
    """Open an archive, a checkpoint, or the newest checkpoint of a folder."""
    if path.is_dir():
        return Bundle(newest_checkpoint(path))
    if path.suffix == ".npz" or is_npz(path):
        return Archive(path)
    return Bundle(index_path(path))


def _own_names(stored: Archive | Bundle, moving_averages: bool) -> dict[str, str]:
    """The model's own variables, and the name under which the file has each.

    No slots of optimisers, no counters; moving averages in the places of their variables if asked for.
    """
    check_distinct(stored.path, map(_short, stored.names))
    named, own = {_short(key): key for key in stored.names}, {}
    for name, key in named.items():
        parent, _, last = name.rpartition("/")
        if last in _SLOTS or parent in named or "/.OPTIMIZER_SLOT/" in name or _COUNTERS.search(name):
            continue
        own[name] = named.get(f"{name}/{_AVERAGE}", key) if moving_averages else key
    return own


def _short(name: str) -> str:
    return name.removesuffix(_OBJECT).removesuffix(":0")


def _dotted(name: str) -> str:
    return name.replace("/", ".")


def _check_units(path: Path, scope: str, named: Mapping[str, str]) -> None:
    missing = [name for name in _UNITS if _inside(scope, name) not in named]
    if missing:
        raise CheckpointError(
            f"{path}: layer {scope!r}: there is no {' and no '.join(missing)}; a DAU layer has {', '.join(_UNITS)}"
        )


def _inside(scope: str, name: str) -> str:
    return f"{scope}/{name}" if scope else name


def _layer(
    variables: dict[str, Tensor],
    *,
    scope: str,
    name: str,
    size: Size | None,
    stride: int | None,
    where: str,
    remarks: Remarks,
) -> DAUConv2d:
    """Take a layer's variables out of ``variables`` and build it."""
    keys = [key for key in (*_UNITS, "biases", "bias") if _inside(scope, key) in variables]
    if {"biases", "bias"} <= set(keys):
        raise CheckpointError(f"{where}: there are both biases and bias; a DAU layer has one of them")
    own = {key: single_precision(variables.pop(_inside(scope, key)), key, name, where, remarks) for key in keys}
    weight, mu = units_of_blobs(own["weights"], own["mu1"], own["mu2"], where)
    units = weight.shape[2]
    if units % 2 == 0 and not bool(weight[..., -1].any()):  # the dummy that makes an odd number even
        units -= 1
    sigma = own["sigma"]
    if sigma.shape not in ((1,), own["weights"].shape):
        shapes = f"weights {tuple(own['weights'].shape)}, got {tuple(sigma.shape)}"
        raise CheckpointError(f"{where}: sigma must hold one number or be like {shapes}")
    bias = own.get("biases", own.get("bias"))
    if sigma.dim() == 4:
        sigma = outputs_first(sigma)[..., :units].contiguous()
    least, _ = (checked_sigma(float(value), where) for value in (sigma.min(), sigma.max()))
    is_dense = bool(sigma.min() < sigma.max())
    options = _limits(size, is_dense, where)
    mu = mu[..., :units].contiguous()
    if size is None:
        how = in_words_of_caller("window=", "--window")
        remarks.add(
            f"max_kernel_size is not in the file: displacements are as stored, not clipped, without limit; pass {how}",
            name,
        )
    elif not is_dense:
        mu = clipped(mu, options["max_displacement"], name, remarks)
    bias = None if bias is None else checked_bias(bias, weight, where)
    return dau_layer(
        weight[..., :units].contiguous(), mu, sigma if is_dense else least, bias, where,
        stride=1 if stride is None else stride, **options,
    )  # fmt: skip


def _limits(size: Size | None, is_dense: bool, where: str) -> dict[str, Any]:
    """Options of the layer that follow from the plugin's ``max_kernel_size``, one number for both axes."""
    if size is None and is_dense:
        how = in_words_of_caller("window=", "--window")
        raise CheckpointError(f"{where}: sigma differs between units; pass the filters' window ({how})")
    if size is None:
        return {"max_displacement": None, "window": None, "init": UNKNOWN_START}
    check_window(max(size), where)
    if size[0] != size[1] or (is_dense and size[0] % 2 == 0):
        raise CheckpointError(f"{where}: its window must be square{' and odd' if is_dense else ''}, got {size}")
    half = size[0] // 2
    limit = max(0.0, half - BORDER)
    start = {"name": "grid", "extent": max(0.0, half - 1)}
    return {"max_displacement": limit, "window": size[0] if is_dense else None, "init": start}


def _plain(name: str, tensor: Tensor) -> Tensor:
    is_kernel = name.rpartition("/")[2] in ("weights", "kernel") and tensor.dim() == 4
    return tensor.permute(3, 2, 0, 1).contiguous() if is_kernel else tensor
