"""The operator in plain torch: slow, obvious, and right in any dtype. Every other backend is compared with this one.

One unit is handled at a time, by the formulas of docs/math.md. The forward is differentiable by autograd; the backward
is written by hand, and the tests prove that the two agree.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from daukit.ops.contract import Backend, Gradients, Needs, Tensors
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import blur_taps
from daukit.ops.units import unit_list


class Reference(Backend):
    """The formulas, one unit at a time."""

    name = "reference"

    def forward(self, tensors: Tensors, geo: Geometry, *, compute: torch.dtype) -> Tensor:
        """``out[n, o, p] = bias[o] + sum_c sum_u weight[o, c, u] * B~[n, c, s p + d mu[:, o, c, u]]`` (Eq. 13-14)."""
        g = blur_taps(tensors.sigma, geo.radius).gaussian
        blurred = _correlate(tensors.input, torch.outer(g, g), geo)  # (N, C, H, W)
        units = unit_list(tensors.weight, tensors.mu, tensors.unit_ptr)
        outputs = [blurred.new_zeros(geo.batch, *geo.out_size) for _ in range(geo.out_channels)]
        for u, (out, channel) in enumerate(_channels(units.pair, geo)):
            outputs[out] = outputs[out] + units.weight[u] * _read(blurred[:, channel], units.mu[:, u], geo)
        output = torch.stack(outputs, dim=1)  # (N, O, OH, OW)
        return output if tensors.bias is None else output + tensors.bias[:, None, None]

    def backward(
        self,
        grad_output: Tensor,
        tensors: Tensors,
        geo: Geometry,
        *,
        mu_gradient: str,
        needs: Needs,
        compute: torch.dtype,
    ) -> Gradients:
        """All gradients, whatever ``needs`` asks for (Eq. 15, 16, 8 and the adjoint of the forward)."""
        input, weight, mu, sigma, _, unit_ptr = tensors
        taps = blur_taps(sigma, geo.radius)
        g = taps.gaussian
        blurred = _correlate(input, torch.outer(g, g), geo)
        blurred_mu = (_correlate(input, torch.outer(taps.mu, g), geo), _correlate(input, torch.outer(g, taps.mu), geo))
        blurred_sigma = _correlate(input, torch.outer(taps.sigma, g) + torch.outer(g, taps.sigma), geo)
        units = unit_list(weight, mu, unit_ptr)

        grad_blurred = torch.zeros_like(blurred)
        grad_weight = torch.zeros_like(units.weight)
        grad_mu = torch.zeros_like(units.mu)
        grad_sigma = sigma.new_zeros(())
        for u, (out, channel) in enumerate(_channels(units.pair, geo)):
            error, w, at = grad_output[:, out], units.weight[u], units.mu[:, u]
            grad_weight[u] = (error * _read(blurred[:, channel], at, geo)).sum()
            for axis in (0, 1):
                if mu_gradient == "gaussian":
                    slope = _read(blurred_mu[axis][:, channel], at, geo)
                else:
                    slope = _read_slope(blurred[:, channel], at, axis, geo)
                grad_mu[axis, u] = w * (error * slope).sum()
            grad_sigma = grad_sigma + w * (error * _read(blurred_sigma[:, channel], at, geo)).sum()
            _add_adjoint(grad_blurred[:, channel], w * error, at, geo)
        # The blur is symmetric and its zero padding is the adjoint of the crop, so it is its own adjoint.
        grad_input = _correlate(grad_blurred, torch.outer(g, g), geo)
        return Gradients(
            grad_input, grad_weight.reshape(weight.shape), grad_mu.reshape(mu.shape), grad_sigma.reshape(sigma.shape)
        )


def _channels(pair: Tensor, geo: Geometry) -> list[tuple[int, int]]:
    """(output channel, input channel) of every unit."""
    inputs = geo.in_channels // geo.groups
    outputs = geo.out_channels // geo.groups
    return [(p // inputs, p // inputs // outputs * inputs + p % inputs) for p in pair.tolist()]


def _correlate(image: Tensor, kernel: Tensor, geo: Geometry) -> Tensor:
    """Correlate every channel with one kernel whose taps lie ``dilation`` apart; zero padding, same size."""
    batch, channels, height, width = image.shape
    if 0 in geo.in_size:
        return image * kernel.sum()  # as empty as the image; torch's convolution refuses it
    padding = (geo.radius * geo.dilation[0], geo.radius * geo.dilation[1])
    flat = image.reshape(batch * channels, 1, height, width)
    return F.conv2d(flat, kernel[None, None], padding=padding, dilation=geo.dilation).reshape(image.shape)


def _cell(mu: Tensor) -> list[tuple[int, int, Tensor, Tensor]]:
    """The bilinear cell of one displacement (Eq. 14): (tap y, tap x, weight along y, weight along x), four times."""
    floor_y, floor_x = (int(m) for m in mu.detach().floor().tolist())
    fy, fx = mu[0] - floor_y, mu[1] - floor_x
    return [(floor_y + j, floor_x + i, fy if j else 1 - fy, fx if i else 1 - fx) for j in (0, 1) for i in (0, 1)]


@functools.lru_cache(maxsize=1024)
def _indices(tap: int, axis: int, geo: Geometry) -> tuple[Tensor, Tensor]:
    """Along one axis, what an integer tap reads at every output position: clamped index, and 1 inside the image."""
    size = geo.in_size[axis]
    with torch.inference_mode(False):  # the next call may want gradients
        at = geo.stride[axis] * torch.arange(geo.out_size[axis]) + geo.dilation[axis] * tap
        return at.clamp(0, size - 1), (at >= 0) & (at < size)


def _tap(image: Tensor, ty: int, tx: int, geo: Geometry) -> Tensor:
    """Read ``image`` (N, H, W) at ``s p + d (ty, tx)``, zero outside: (N, OH, OW)."""
    (rows, row_ok), (columns, column_ok) = _indices(ty, 0, geo), _indices(tx, 1, geo)
    inside = (row_ok[:, None] & column_ok).to(image.device, image.dtype)
    return image[:, rows.to(image.device)[:, None], columns.to(image.device)] * inside


def _read(image: Tensor, mu: Tensor, geo: Geometry) -> Tensor:
    """Read ``image`` (N, H, W) at ``s p + d mu`` by bilinear interpolation: (N, OH, OW)."""
    return torch.stack([ay * ax * _tap(image, ty, tx, geo) for ty, tx, ay, ax in _cell(mu)]).sum(0)


def _read_slope(image: Tensor, mu: Tensor, axis: int, geo: Geometry) -> Tensor:
    """Derivative of ``_read`` by ``mu[axis]``; at an integer the right-hand one."""
    total = torch.zeros(image.shape[0], *geo.out_size, dtype=image.dtype, device=image.device)
    first = int(mu[axis].floor())
    for ty, tx, ay, ax in _cell(mu):
        along, across = ((ty, ax), (tx, ay))[axis]
        total = total + (1 if along > first else -1) * across * _tap(image, ty, tx, geo)
    return total


def _add_adjoint(grad_image: Tensor, error: Tensor, mu: Tensor, geo: Geometry) -> None:
    """Add to ``grad_image`` (N, H, W) the adjoint of ``_read``: scatter ``error`` to the four taps it came from."""
    for ty, tx, ay, ax in _cell(mu):
        (rows, row_ok), (columns, column_ok) = _indices(ty, 0, geo), _indices(tx, 1, geo)
        rows, columns = rows[row_ok].to(error.device), columns[column_ok].to(error.device)
        part = error[:, row_ok.to(error.device)][:, :, column_ok.to(error.device)]
        grad_image[:, rows[:, None], columns] += ay * ax * part
