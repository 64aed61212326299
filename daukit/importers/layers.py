"""Shared by all importers: arrays become DAU layers, and layers and other tensors become a checkpoint."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from daukit.checkpoint import Checkpoint, Header, history_entry
from daukit.checkpoint.gate import MAX_DIMENSIONS
from daukit.errors import CheckpointError
from daukit.limits import MAX_CHANNELS, MAX_UNITS
from daukit.models.structure import describe
from daukit.nn import DAUConv2d, Form, Initialization
from daukit.ops import MIN_SIGMA
from daukit.preprocessing import Preprocessing
from daukit.texts import did_you_mean

Value = TypeVar("Value")
PerLayer: TypeAlias = Value | Mapping[str, Value]
"""One value for every layer, or {name: value}, where the name ``"*"`` stands for all others."""

MAX_SIGMA = 100.0
"""Far above any trained sigma: a larger one is a damaged file, and its blur would take forever."""

MAX_WINDOW = 1023
"""Far above any trained window, in pixels: a larger one is a damaged file, and work grows with it."""

_MAX_VALUES = 1 << 48

UNKNOWN_START: Initialization = {"name": "uniform"}
"""The initialiser of a layer whose file does not say its own; it has no points to plot."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of the disk, and a lack of memory, into a ``CheckpointError`` about ``path``."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise CheckpointError(f"{path}: its tensors do not fit into memory") from None
    except RuntimeError as error:
        if "memory" not in str(error):  # torch has no exception of its own for it
            raise
        raise CheckpointError(f"{path}: its tensors do not fit into memory") from None


def check_sizes(sizes: Sequence[int], where: str) -> list[int]:
    """Check the sizes of a tensor before anything multiplies them, and return them as a list."""
    if len(sizes) > MAX_DIMENSIONS:
        raise CheckpointError(f"{where}: {len(sizes)} dimensions; a tensor of weights has at most {MAX_DIMENSIONS}")
    if min(sizes, default=0) < 0 or math.prod(max(1, size) for size in sizes) > _MAX_VALUES:
        raise CheckpointError(f"{where}: no tensor has the sizes {list(sizes)}; the file is damaged")
    return list(sizes)


def check_window(side: int, where: str) -> int:
    """Check the side of a window and return it."""
    if not 1 <= side <= MAX_WINDOW:
        raise CheckpointError(f"{where}: its window must be 1 to {MAX_WINDOW} pixels wide, got {side}")
    return side


def check_any(path: Path, layers: Collection[str], others: Iterable[str]) -> None:
    """Raise ``CheckpointError`` if there is no layer among a file's tensors."""
    if not layers:
        names = sorted(others)
        found = ", ".join(names[:5]) or "nothing"
        raise CheckpointError(f"{path}: holds no layer of displaced units; found {len(names)} tensors ({found}, ...)")


def check_distinct(path: Path, names: Iterable[str]) -> None:
    """Raise ``CheckpointError`` if two tensors or layers would get one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise CheckpointError(f"{path}: two tensors or layers are called {name}")
        seen.add(name)


def dau_layer(
    weight: Tensor,
    mu: Tensor,
    sigma: Tensor | float,
    bias: Tensor | None,
    where: str,
    *,
    in_channels: int | None = None,
    **options: Any,
) -> DAUConv2d:
    """Make a layer that holds these very tensors, so that layers which share a mu hold one tensor.

    Args:
        weight: (O, C / groups, K).
        mu: (2, O, C / groups, K), displacement (y, x).
        sigma: a number for the bilinear form, or a tensor shaped like weight for the general one.
        bias: (O,), or None.
        where: names the layer in errors.
        in_channels: C; default: no groups.
        options: of ``DAUConv2d``.

    Raises:
        CheckpointError: there are more units or channels than a layer may have.
    """
    outputs, inputs, units = weight.shape
    if units > MAX_UNITS or max(outputs, in_channels or inputs) > MAX_CHANNELS:
        raise CheckpointError(
            f"{where}: {units:,} units for each of {in_channels or inputs:,} x {outputs:,} channels; there may be "
            f"{MAX_UNITS:,} and {MAX_CHANNELS:,}, so the file is damaged"
        )
    form: Form = "gaussian" if isinstance(sigma, Tensor) else "bilinear"
    with torch.device("meta"):  # shapes only: no memory, and the random state stays
        layer = DAUConv2d(
            in_channels or inputs, outputs, units, form=form, bias=bias is not None,
            sigma=0.5 if isinstance(sigma, Tensor) else sigma, **options,
        )  # fmt: skip
    tensors = {"weight": weight, "mu": mu, "bias": bias, "sigma": sigma}
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            setattr(layer, name, nn.Parameter(tensor))
    return layer


def units_of_blobs(w: Tensor, mu1: Tensor, mu2: Tensor, where: str) -> tuple[Tensor, Tensor]:
    """Turn the authors' arrays (1, C, K, O) into weight (O, C, K) and mu (2, O, C, K); their mu1 is x, mu2 is y."""
    if w.dim() != 4 or w.shape[0] != 1 or not w.numel() or not w.shape == mu1.shape == mu2.shape:
        raise CheckpointError(
            f"{where}: weights, mu1 and mu2 must all have one shape (1, inputs, units, outputs), "
            f"got {tuple(w.shape)}, {tuple(mu1.shape)} and {tuple(mu2.shape)}"
        )
    return outputs_first(w), torch.stack([outputs_first(mu2), outputs_first(mu1)])


def outputs_first(blob: Tensor) -> Tensor:
    """The authors' (1, C, K, O) as (O, C, K)."""
    return blob[0].permute(2, 0, 1).contiguous()


def checked_bias(bias: Tensor, weight: Tensor, where: str) -> Tensor:
    """Check the size of a bias and return it as (O,)."""
    if bias.numel() != weight.shape[0]:
        raise CheckpointError(f"{where}: {bias.numel()} biases for {weight.shape[0]} outputs")
    return bias.flatten()


def checked_sigma(sigma: float, where: str) -> float:
    """Check a layer's sigma and return it."""
    if not MIN_SIGMA <= sigma < MAX_SIGMA:  # also NaN
        raise CheckpointError(
            f"{where}: sigma is {sigma:g}; it must be a number of pixels from {MIN_SIGMA} to {MAX_SIGMA}"
        )
    return shortest(sigma)


def shortest(value: float) -> float:
    """A float32 number by its shortest digits: 0.35, where the file's bits are 0.3499999940395355."""
    return float(str(np.float32(value)))


def for_layer(option: PerLayer[Value] | None, name: str) -> Value | None:
    """The value of an option for the layer ``name``; None if it says nothing of it."""
    if not isinstance(option, Mapping):
        return option
    return option.get(name, option.get("*"))


def check_names(path: Path, names: list[str], options: Mapping[str, Any]) -> None:
    """Raise ``CheckpointError`` if an option names a layer that the file does not have."""
    for option, values in options.items():
        for name in values if isinstance(values, Mapping) else ():
            if name != "*" and name not in names:
                hint = did_you_mean(name, names)
                raise CheckpointError(f"{path}: {option}: there is no DAU layer {name!r}{hint} (layers: {names})")


def assemble(
    path: Path,
    digest: str,
    layers: Mapping[str, DAUConv2d],
    others: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
    *,
    preprocessing: Preprocessing | None = None,
) -> Checkpoint:
    """Make a checkpoint of layers whose network daukit does not know.

    Args:
        path: the source.
        digest: its SHA-256.
        layers: DAU layers by name.
        others: all other tensors.
        arguments: of the history's entry; ``arguments["source"]`` is the source's format.
        preprocessing: what the network expects of its input, where the source tells.

    Raises:
        CheckpointError: there is no DAU layer, two tensors have one name, or values are NaN or infinite.
    """
    check_any(path, layers, others)
    tensors = dict(others)
    for name, layer in layers.items():
        for key, tensor in layer.state_dict().items():
            if f"{name}.{key}" in tensors:
                raise CheckpointError(f"{path}: two tensors are called {name}.{key}")
            tensors[f"{name}.{key}"] = tensor.detach()
    check_finite(path, tensors)
    described = [{"name": name, **(describe(layer) or {})} for name, layer in layers.items()]
    header = Header({"imported": arguments["source"]}, {}, described, preprocessing)
    return recorded(Checkpoint(header, tensors), path, digest, arguments)


def recorded(checkpoint: Checkpoint, path: Path, digest: str, arguments: Mapping[str, Any]) -> Checkpoint:
    """Add the import of ``path``, whose SHA-256 is ``digest``, to the history of ``checkpoint``."""
    header = checkpoint.header
    header.history.append(history_entry("import", {k: v for k, v in arguments.items() if v}, digest))
    return Checkpoint(header, checkpoint.tensors, path, digest)


def digest_of(file: BinaryIO) -> str:
    """SHA-256 of an open file, as hexadecimal digits; it is read from its beginning."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise ``CheckpointError`` if a tensor holds NaN or infinity."""
    for name, tensor in tensors.items():
        bad = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
        if bad:
            raise CheckpointError(f"{path}: {bad} of {tensor.numel()} values of {name} are NaN or infinite")
