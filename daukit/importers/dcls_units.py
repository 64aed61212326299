"""One layer of dcls as a DAU layer, and one DAU layer as dcls has it.

A unit of dcls is a product of two bumps, one per axis, sampled on a window: triangles of half-width 1 (``v0``, ``v1``)
or ``1 + |SIG|`` (``max``), or Gaussians of ``0.27 + |SIG|`` (``gauss``). All but ``v0`` divide it by its sum on the
window plus ``EPSILON``. A triangle of half-width 1 is a DAU unit without a blur; a Gaussian is one of the general form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from daukit.errors import CheckpointError, in_words_of_caller
from daukit.importers.layers import check_window, checked_bias, dau_layer
from daukit.nn import DAUConv2d
from daukit.ops import MIN_SIGMA

Version = Literal["v0", "v1", "max", "gauss"]
SigmaAxes = Literal["equal", "mean", "split"]
Size = tuple[int, int]

EPSILON = 1e-7
LEAST_SIGMA = 0.27
NO_BLUR = 0.1
"""Below this sigma the discrete Gaussian is 1 at its centre and less than 1e-21 beside it."""

_NEGLIGIBLE = 1e-9  # a sample's share of its bump that no float32 result shows
_START = {"name": "normal", "mean": 0.0, "std": 0.5}  # how dcls begins


def layer_of_state(
    state: Mapping[str, Tensor],
    version: Version,
    window: Size,
    where: str,
    *,
    stride: int = 1,
    groups: int | None = None,
    sigma_axes: SigmaAxes = "equal",
) -> tuple[DAUConv2d, list[str]]:
    """Make the DAU layer that computes the same as a dcls layer with this state; also return notes on it.

    Args:
        state: ``weight``, ``P``, ``SIG`` in versions max and gauss, and ``bias`` if there is one.
        version: of the layer.
        window: (height, width), odd; (1, width) or (height, 1) where P has one axis.
        where: names the layer in errors.
        stride: of the layer.
        groups: of the layer; None: depthwise where a filter reads one channel.
        sigma_axes: for Gaussians whose SIG differs between axes, which daukit has no form for: ``"equal"`` refuses
            them, ``"mean"`` takes the mean of both, ``"split"`` writes each, exactly, as several units without a blur.
    """
    _check(state, version, window, where)
    weight = state["weight"]
    groups = groups if groups is not None else (weight.shape[0] if weight.shape[1] == 1 else 1)
    if groups < 1 or weight.shape[0] % groups:
        raise CheckpointError(f"{where}: {weight.shape[0]} outputs are not a multiple of {groups} groups")
    if state["P"].shape[0] == 1:
        _check_line(window, where)
    values, mu, sigma, notes = _units(state, version, window, sigma_axes, where)
    dtype = weight.dtype if weight.dtype == torch.float64 else torch.float32  # a file may hold half precision
    bias = checked_bias(state["bias"], weight, where).to(dtype) if "bias" in state else None
    layer = dau_layer(
        values.to(dtype), mu.to(dtype), MIN_SIGMA if sigma is None else sigma.to(dtype), bias, where,
        in_channels=weight.shape[1] * groups, groups=groups, stride=stride, max_displacement=float(max(window) // 2),
        window=None if sigma is None else max(window), init=_START, mu_gradient="exact",
    )  # fmt: skip
    if layer.units != weight.shape[2]:
        layer.keep_units(layer.weight != 0)
    return layer, notes


def to_dcls(layer: DAUConv2d, version: Version) -> dict[str, Tensor]:
    """Make the state of a dcls layer that computes the same as ``layer``; ``layer_of_state`` undoes it.

    The dcls layer has ``kernel_count=layer.units``, ``padding=dilated_kernel_size // 2``, and as
    ``dilated_kernel_size`` the layer's window, or ``2 * max_displacement + 1`` in the bilinear form.

    Args:
        layer: of the general form for version gauss; of the bilinear one with sigma at most 0.1 for the others.
        version: of the dcls layer.

    Returns:
        ``weight``, ``P``, ``SIG`` in versions max and gauss, and ``bias`` if there is one.

    Raises:
        ValueError: dcls has no layer that computes the same.
    """
    if layer.is_ragged or layer.dilation != (1, 1):
        raise ValueError("dcls has no ragged and no dilated layers")
    weight, mu = layer.weight.detach(), layer.mu.detach()
    if version == "gauss":
        if layer.form != "gaussian" or not isinstance(layer.sigma, Tensor) or layer.window is None:
            raise ValueError('version gauss is the general form; the layer has form "bilinear"')
        sigma = layer.sigma.detach()
        if float(sigma.min()) < LEAST_SIGMA:
            raise ValueError(f"dcls has no sigma below {LEAST_SIGMA}; the layer's smallest is {float(sigma.min()):g}")
        window = (layer.window, layer.window)
        weight = weight / _shrinkage(mu.double(), sigma.double().expand(2, *sigma.shape), window)
        sig = (sigma - LEAST_SIGMA).expand(2, *sigma.shape)
    else:
        if layer.form != "bilinear" or not isinstance(layer.sigma, float) or layer.sigma > NO_BLUR:
            raise ValueError(f"version {version} has no blur: it needs the bilinear form with sigma at most {NO_BLUR}")
        sig = torch.zeros_like(mu)
    half = layer.max_displacement if layer.window is None else layer.window // 2
    if half is None or not float(half).is_integer() or (mu.numel() and float(mu.abs().max()) > half):
        raise ValueError(f"displacements must lie in a window of whole pixels; max_displacement is {half}")
    state = {"weight": weight.to(layer.weight.dtype), "P": (mu if version == "v0" else mu.flip(0)).clone()}
    if version in ("max", "gauss"):
        state["SIG"] = sig.clone()
    if layer.bias is not None:
        state["bias"] = layer.bias.detach()
    return state


def _check(state: Mapping[str, Tensor], version: Version, window: Size, where: str) -> None:
    weight, positions, sig = state.get("weight"), state["P"], state.get("SIG")
    if weight is None or weight.dim() < 3 or not weight.numel():
        raise CheckpointError(f"{where}: there is P, but no weight (outputs, inputs, units) beside it")
    if weight.dim() > 3 or positions.shape[:1] == (3,):
        raise CheckpointError(
            f"{where}: weight {tuple(weight.shape)} and P {tuple(positions.shape)} are those of a layer of three "
            "dimensions (Dcls3d, Dcls3_1d) or of one that is dense along other axes (Dcls2_1d); daukit has no such "
            "layers, and reads Dcls1d, Dcls2d and Dcls2dK1d"
        )
    if positions.shape not in ((1, *weight.shape), (2, *weight.shape)):
        raise CheckpointError(
            f"{where}: P must be (1 or 2, *weight.shape) for weight {tuple(weight.shape)}, got {tuple(positions.shape)}"
        )
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{where}: {name} is of {str(tensor.dtype).removeprefix('torch.')}, not of float numbers"
            )
    if (sig is not None) != (version in ("max", "gauss")):
        raise CheckpointError(
            f"{where}: {'has no' if sig is None else 'has a'} SIG, so its version is not {version}: "
            f"{'v0 and v1 have none' if sig is None else 'only max and gauss have one'} "
            f"({in_words_of_caller('version=', '--dcls-version')})"
        )
    if sig is not None and sig.shape != positions.shape:
        raise CheckpointError(f"{where}: SIG {tuple(sig.shape)} is not like P {tuple(positions.shape)}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise CheckpointError(f"{where}: its tensors hold NaN or infinity")
    check_window(max(window), where)
    if any(side < 1 or side % 2 == 0 for side in window):
        raise CheckpointError(
            f"{where}: its window must have odd sides, to have a centre, got {window[0]} x {window[1]}"
        )


def _check_line(window: Size, where: str) -> None:
    """Refuse to guess which axis of the image the one axis of P is: the file of a row is that of a column."""
    if min(window) != 1:
        how = in_words_of_caller("window=(1, {0}) or ({0}, 1)", "--window 1,{0} or --window {0},1").format(max(window))
        raise CheckpointError(
            f"{where}: P has one axis, and the file does not say whether that is a row (Dcls1d; Dcls2dK1d with "
            f"flat_dim=1) or a column (Dcls2dK1d with flat_dim=0): pass {how}, height first"
        )


def _units(
    state: Mapping[str, Tensor], version: Version, window: Size, sigma_axes: SigmaAxes, where: str
) -> tuple[Tensor, Tensor, Tensor | None, list[str]]:
    """Weights, displacements, sigmas of the general form (None for units without a blur), and notes on them."""
    weight, notes = state["weight"].double(), []
    mu, widths = _positions(state["P"], version, window), _widths(state, version)
    outside = int((mu.abs() > _half(window)).any(0).sum())
    if outside:
        notes.append(f"{outside:,} of {weight.numel():,} units lie outside a window of {window[0]} x {window[1]}")
    if version == "gauss" and _is_general(widths, window, sigma_axes, where):
        exact = "(" + in_words_of_caller('sigma_axes="split"', "--sigma-axes split") + " is exact)"
        if bool((widths[0] != widths[1]).any()):
            notes.append(f"sigma is the mean of both axes, so outputs differ from those of dcls {exact}")
        if window[0] == 1 < window[1]:
            notes.append(
                f"Gaussians of a row are right for inputs of one row, as Dcls1d has them, not for images {exact}"
            )
        return _general_weight(weight, mu, widths, window), mu, widths.mean(0), notes
    if version == "gauss" or bool((widths != 1).any()):
        values, places = _split(weight, mu, widths, version, window)
        parts = values.shape[2] // weight.shape[2]
        return values, places, None, [*notes, f"each unit became up to {parts} units without a blur, exactly"]
    return *_in_window(weight, mu, version, window), None, notes


def _positions(positions: Tensor, version: Version, window: Size) -> Tensor:
    """Displacements (y, x) from the window's centre, in float64."""
    positions = positions.double()
    if positions.shape[0] == 1:
        none = torch.zeros_like(positions)
        return torch.cat([positions, none] if window[1] == 1 < window[0] else [none, positions])
    if version == "v0":
        return positions
    # dcls adds half the height to x and half the width to y: its windows are off centre unless they are square.
    off = window[0] // 2 - window[1] // 2
    return torch.stack([positions[1] - off, positions[0] + off])


def _widths(state: Mapping[str, Tensor], version: Version) -> Tensor:
    """Half-widths of triangles or sigmas of Gaussians, (y, x), in float64; without a y, x stands for both."""
    if version in ("v0", "v1"):
        return torch.ones(2, *state["weight"].shape, dtype=torch.float64)
    sig = state["SIG"].double().abs().flip(0)
    return (sig if sig.shape[0] == 2 else sig.expand(2, *sig.shape[1:])) + (1 if version == "max" else LEAST_SIGMA)


def _is_general(widths: Tensor, window: Size, sigma_axes: SigmaAxes, where: str) -> bool:
    """True if Gaussians become units of the general form, False if they are split."""
    if window[0] == 1 and widths[0].equal(widths[1]):  # a row
        return sigma_axes != "split"
    split, mean = (in_words_of_caller(f'sigma_axes="{way}"', f"--sigma-axes {way}") for way in ("split", "mean"))
    if window[0] != window[1]:
        if sigma_axes != "split":
            raise CheckpointError(
                f"{where}: Gaussians on a window of {window[0]} x {window[1]}; daukit has square ones only. "
                f"{split} writes them, exactly, as several units each"
            )
        return False
    uneven = int((widths[0] != widths[1]).sum())
    if uneven and sigma_axes == "equal":
        raise CheckpointError(
            f"{where}: SIG differs between the axes in {uneven} of {widths[0].numel()} units (largest difference "
            f"{float((widths[0] - widths[1]).abs().max()):.3g} pixels), and daukit has one sigma per unit: "
            f"{mean} takes the mean, {split} writes several units for each, exactly"
        )
    return not uneven or sigma_axes == "mean"


def _general_weight(weight: Tensor, mu: Tensor, sigma: Tensor, window: Size) -> Tensor:
    """Weights of the general form, whose Gaussians sum to one on a square window."""
    if window[0] > 1:
        return weight * _shrinkage(mu, sigma, window)
    # A line: of the square window only the middle row meets it.
    along = _samples(mu[1], sigma[1], window[1], is_gaussian=True).sum(-1)
    across = _samples(mu[0], sigma[0], window[1], is_gaussian=True).sum(-1)
    return weight * (along / (along + EPSILON)) * across


def _shrinkage(mu: Tensor, sigma: Tensor, window: Size) -> Tensor:
    """Share of a Gaussian's sum that dcls's EPSILON leaves."""
    y, x = (_samples(mu[i], sigma[i], window[i], is_gaussian=True).sum(-1) for i in (0, 1))
    return y * x / (y * x + EPSILON)


def _in_window(weight: Tensor, mu: Tensor, version: Version, window: Size) -> tuple[Tensor, Tensor]:
    """Weights and displacements of units without the part that lies outside of the window."""
    half = _half(window)
    inside = (half + 1 - mu.abs()).clamp(0, 1).prod(0)  # (O, C, K)
    if version != "v0":  # normalised on the window
        inside = torch.where(inside < 1, inside / (inside + EPSILON), inside)
    return weight * inside, mu.clamp(-half, half)


def _half(window: Size) -> Tensor:
    """Pixels between the window's centre and its last, (y, x): (2, 1, 1, 1)."""
    return torch.tensor([float(side // 2) for side in window], dtype=torch.float64).reshape(2, 1, 1, 1)


def _split(weight: Tensor, mu: Tensor, widths: Tensor, version: Version, window: Size) -> tuple[Tensor, Tensor]:
    """Units of any bump as several units without a blur: (O, C, K * parts) and (2, O, C, K * parts).

    A unit without a blur, between two pixels, is any pair of samples there. So a row of samples is half as many units
    as it has samples, and a window is the product of a column and a row.
    """
    samples = [_samples(mu[i], widths[i], window[i], is_gaussian=version == "gauss") for i in (0, 1)]
    total = (samples[0].sum(-1) * samples[1].sum(-1))[..., None, None]
    (wy, y), (wx, x) = (_pairs(s, side // 2) for s, side in zip(samples, window, strict=True))
    values = wy[..., :, None] * wx[..., None, :] * (weight[..., None, None] / (total + EPSILON))
    places = torch.broadcast_tensors(y[..., :, None], x[..., None, :])  # (O, C, K, parts of y, parts of x)
    return values.flatten(2), torch.stack(places).flatten(3)


def _samples(mu: Tensor, widths: Tensor, side: int, *, is_gaussian: bool) -> Tensor:
    """A bump's values on the pixels of one axis: (O, C, K, side)."""
    distance = torch.arange(side, dtype=torch.float64) - side // 2 - mu[..., None]
    if is_gaussian:
        return torch.exp(-0.5 * (distance / widths[..., None]) ** 2)
    return (widths[..., None] - distance.abs()).relu()


def _pairs(samples: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """Weights and displacements of the units that have these samples along one axis: (O, C, K, parts) each."""
    samples = torch.where(samples < _NEGLIGIBLE * samples.sum(-1, keepdim=True), 0.0, samples)
    first = (samples > 0).int().argmax(-1, keepdim=True)  # (O, C, K, 1)
    count = int(((samples > 0).sum(-1)).max())
    parts = max(1, (count + 1) // 2)
    place = first + torch.arange(2 * parts)
    padded = torch.nn.functional.pad(samples, (0, 2 * parts))
    low, high = padded.gather(-1, place).unflatten(-1, (parts, 2)).unbind(-1)
    weight = low + high
    between = torch.where(weight > 0, high / weight, 0.0)
    at = place[..., ::2].clamp(max=samples.shape[-1] - 1) - half
    return weight, at + between
