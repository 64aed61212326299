"""DAU layers of Caffe: ``DAUConvolution``, and ``GaussianConv`` of the years before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from daukit.errors import CheckpointError, in_words_of_caller
from daukit.importers.layers import (
    UNKNOWN_START,
    check_window,
    checked_bias,
    checked_sigma,
    dau_layer,
    outputs_first,
    shortest,
    units_of_blobs,
)
from daukit.importers.messages import Message
from daukit.importers.remarks import Remarks, clipped
from daukit.limits import MAX_UNITS
from daukit.nn import DAUConv2d, Initialization
from daukit.ops.kernels import blur_radius

Offsets = Literal["auto", "centred", "corner"]
UNIT_TYPES = ("DAUConvolution", "GaussianConv")


@dataclass(frozen=True)
class Settings:
    """The parameters of a layer.

    Attributes:
        grid: units (rows, columns); None: unknown.
        kernel_size: side of the window; None: unknown.
        pad: zeros around the input; None: unknown.
        border: least distance of a unit from the window's border, in pixels.
        least_sigma: least sigma.
        normalization: divisor of a Gaussian: its ``"sum"``, the sum of its ``"squares"``, or ``"none"``.
        has_bias: there is a bias.
        centred: displacements count from the window's centre, not its corner; None: unknown.
        is_dense: one filter of displaced Gaussians with a sigma each, not a blur and displaced samples.
        start: initialiser of the displacements.
    """

    grid: tuple[int, int] | None
    kernel_size: int | None
    pad: int | None
    border: float
    least_sigma: float
    normalization: Literal["sum", "squares", "none"]
    has_bias: bool
    centred: bool | None
    is_dense: bool
    start: Initialization


def settings_of(kind: str, layers: Sequence[Message], where: str) -> Settings:
    """Read the settings of a layer from its messages: first the weights file's, then the prototxt's, if any."""
    is_legacy = kind == "GaussianConv"
    field, prefix = ("convolution_param", "gmm_") if is_legacy else ("dau_conv_param", "")
    messages = [getattr(layer, field) for layer in layers]

    def get(name: str) -> Any:
        return getattr(next((m for m in messages if _sets(m, name)), messages[0]), name)

    if any(step != 1 for step in get("stride")):
        raise CheckpointError(f"{where}: stride {list(get('stride'))}; a DAU layer of Caffe has stride 1")
    if is_legacy and (get("gmm_weight_normalization") or get("gmm_discretize_mean") or get("group") != 1):
        raise CheckpointError(f"{where}: normalised weights, rounded means and groups have no counterpart in daukit")
    counts = list(get("number_gauss" if is_legacy else "number_units"))
    kernel, border = _single(get("kernel_size"), where), shortest(get(f"{prefix}component_border_bound"))
    if kernel is not None:
        check_window(kernel, where)
    if len(counts) > 2 or math.prod(counts) > MAX_UNITS:
        raise CheckpointError(f"{where}: number of units {counts[:3]}; there must be one number or (x, y)")
    grid = (counts[-1], counts[0]) if counts else None  # the file has (x, y), or one number for both
    is_normalized = get("gmm_gauss_normalization" if is_legacy else "unit_normalization")
    is_squared = get("gmm_square_gauss_normalization" if is_legacy else "square_unit_normalization")
    is_said = any(_sets(m, "use_already_centered_offsets") for m in messages) if not is_legacy else True
    return Settings(
        grid=grid,
        kernel_size=kernel,
        pad=_single(get("pad"), where),
        border=border,
        least_sigma=shortest(get(f"{prefix}sigma_lower_bound")),
        normalization=("squares" if is_squared else "sum") if is_normalized else "none",
        has_bias=bool(get("bias_term")),
        centred=(not is_legacy and get("use_already_centered_offsets")) if is_said else None,
        is_dense=is_legacy and not get("gmm_use_fast_aproximation"),
        start=_start(get("mu_filler").type, grid, kernel, border),
    )


def layer_of_blobs(
    blobs: Sequence[Tensor], settings: Settings, *, offsets: Offsets, name: str, where: str, remarks: Remarks
) -> tuple[DAUConv2d, bool]:
    """Make a layer; also say whether its displacements count from the window's corner.

    Args:
        blobs: weights, mu1 (x), mu2 (y) and sigma, then the bias, which is the sixth in ``GaussianConv``.
        settings: its parameters.
        offsets: as in ``read_caffe``.
        name: of the layer, for remarks.
        where: names the layer in errors.
        remarks: takes what was changed.
    """
    if len(blobs) < 4:
        raise CheckpointError(f"{where}: {len(blobs)} blobs; there must be weights, mu1, mu2 and sigma at least")
    weight, mu = units_of_blobs(blobs[0], blobs[1], blobs[2], where)
    if blobs[3].shape != blobs[0].shape and blobs[3].numel() != 1:
        raise CheckpointError(f"{where}: sigma {tuple(blobs[3].shape)} is not like weights {tuple(blobs[0].shape)}")
    units = _real_units(weight, settings.grid, where)
    weight, mu = weight[..., :units].contiguous(), mu[..., :units].contiguous()
    mu, is_corner = _centred(mu, settings, offsets, where)
    limit = _limit(settings, where)
    if limit is not None:
        mu = clipped(mu, limit, name, remarks)  # as Caffe does before it computes anything
    sigma: Tensor | float
    window = None
    stored = outputs_first(blobs[3])[..., :units].contiguous() if blobs[3].shape == blobs[0].shape else blobs[3]
    if settings.is_dense:
        window = settings.kernel_size
        if window is None or window % 2 == 0 or blobs[3].shape != blobs[0].shape:
            raise CheckpointError(f"{where}: dense Gaussians need an odd kernel_size (got {window}) and a sigma each")
        sigma = _raised(stored, settings, name=name, where=where, remarks=remarks)
        weight = _normalized(weight, mu, sigma, window // 2, settings)
    else:
        if bool((stored != stored.flatten()[0]).any()):
            remarks.add("sigmas of single units differ; the first counts for all, as Caffe reads it", name)
        sigma = shortest(float(_raised(blobs[3].flatten()[:1], settings, name=name, where=where, remarks=remarks)))
        weight = _normalized(weight, torch.zeros(2, 1, 1, 1), torch.tensor(sigma), blur_radius(sigma), settings)
    layer = dau_layer(
        weight, mu, sigma, _bias(blobs, settings, weight, where), where, max_displacement=limit, window=window,
        init=settings.start,
    )  # fmt: skip
    return layer, is_corner


def _raised(sigma: Tensor, settings: Settings, *, name: str, where: str, remarks: Remarks) -> Tensor:
    """Raise sigmas to the layer's bound, as Caffe does; one that is not above 0 is an error, in Caffe too."""
    least = settings.least_sigma
    if not (float(sigma.min()) > 0 and least >= 0):  # also NaN
        raise CheckpointError(
            f"{where}: sigma is {float(sigma.min()):g} and sigma_lower_bound {least:g}; a sigma must be above 0, in "
            "Caffe too: the file is damaged, or its layer never ran"
        )
    low = int((sigma < least).sum())
    if low:
        count = f"{low:,} of {sigma.numel():,}"
        remarks.add(f"{count} sigmas lay below sigma_lower_bound {least:g} and were raised to it, as Caffe does", name)
    raised = sigma.clamp_min(least)
    for value in (raised.min(), raised.max()):
        checked_sigma(float(value), where)
    return raised


def _sets(message: Message, name: str) -> bool:
    return any(field.name == name for field, _ in message.ListFields())


def _single(values: Sequence[int], where: str) -> int | None:
    if len(set(values)) > 1:
        raise CheckpointError(f"{where}: kernel_size and pad of a DAU layer must be one number, got {list(values)}")
    return int(values[0]) if values else None


def _start(filler: str, grid: tuple[int, int] | None, kernel: int | None, border: float) -> Initialization:
    if grid is None or kernel is None or filler in ("uniform-random", "gmm_mu_bounds"):
        return UNKNOWN_START
    return {"name": "grid", "rows": grid[0], "columns": grid[1], "extent": max(0.0, (kernel - 1) / 2 - border)}


def _real_units(weight: Tensor, grid: tuple[int, int] | None, where: str) -> int:
    """Units without the dummy that makes an odd number even in the file."""
    stored = weight.shape[2]
    if grid is None:
        return stored - 1 if stored % 2 == 0 and not bool(weight[..., -1].any()) else stored
    units = math.prod(grid)
    if units < 1 or stored not in (units, units + units % 2):
        raise CheckpointError(f"{where}: {stored} units are stored, where its parameters say {units}")
    return units


def _centred(mu: Tensor, settings: Settings, offsets: Offsets, where: str) -> tuple[Tensor, bool]:
    kernel, is_centred = settings.kernel_size, settings.centred
    if offsets != "auto":
        is_centred = offsets == "centred"
    if is_centred is None:  # a centred displacement never exceeds half the window
        is_centred = kernel is None or not (float(mu.min()) >= 0 and float(mu.max()) > kernel / 2)
    if is_centred:
        return mu, False
    if kernel is None:
        raise CheckpointError(
            f"{where}: displacements from the corner need kernel_size, which the file does not tell; pass the prototxt"
        )
    # Caffe clips before it computes, so the last step of training may have led out of the window, but not by a pixel.
    low, high = float(mu.min()), float(mu.max())
    if low <= -1 or high >= kernel:
        how = in_words_of_caller('offsets="centred"', "--offsets centred")
        raise CheckpointError(
            f"{where}: displacements from {low:g} to {high:g} do not count from the corner of a window of {kernel} "
            f"pixels, which has 0 to {kernel - 1}; if they count from its centre, pass {how}"
        )
    return mu - kernel // 2, True


def _limit(settings: Settings, where: str) -> float | None:
    if settings.kernel_size is None:
        return None
    limit = settings.kernel_size // 2 - settings.border
    if not limit >= 0:
        raise CheckpointError(
            f"{where}: a border of {settings.border:g} leaves nothing of a window of {settings.kernel_size}"
        )
    return limit


def _normalized(weight: Tensor, mu: Tensor, sigma: Tensor, radius: int, settings: Settings) -> Tensor:
    """Turn weights of Caffe's Gaussians into weights of Gaussians that sum to one, as daukit has them."""
    if settings.normalization == "sum":
        return weight
    divisor = 2 * sigma.double() ** 2
    sums, squares = (torch.zeros_like(mu, dtype=torch.float64) + divisor * 0 for _ in range(2))  # (2, O, C, K)
    for x in range(-radius, radius + 1):  # pixel by pixel: all at once would take a window's memory for every unit
        g = torch.exp(-((x - mu.double()) ** 2) / divisor)
        sums += g
        squares += g**2
    factor = sums.prod(0)
    if settings.normalization == "squares":
        factor = factor / squares.prod(0)
    return (weight.double() * factor).to(weight.dtype)


def _bias(blobs: Sequence[Tensor], settings: Settings, weight: Tensor, where: str) -> Tensor | None:
    if not settings.has_bias:
        return None
    place = 5 if settings.is_dense or len(blobs) > 5 else 4
    if len(blobs) <= place:
        raise CheckpointError(f"{where}: its parameters say that it has a bias, but it has {len(blobs)} blobs")
    return checked_bias(blobs[place], weight, where)
