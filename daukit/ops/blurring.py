"""The blur of images and its adjoint by torch's convolutions, for the backends that are made of torch's operations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from daukit.ops.contract import Needs, Tensors
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import BlurTaps


def correlate(image: Tensor, along_y: Tensor, along_x: Tensor, geo: Geometry) -> Tensor:
    """Correlate every channel with ``along_y (x) along_x``, taps ``dilation`` apart; zero padding, same size."""
    if 0 in geo.in_size:
        return image  # torch's convolution refuses an empty one
    channels, (dy, dx), radius = image.shape[1], geo.dilation, geo.radius
    column = along_y.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
    row = along_x.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    image = F.conv2d(image, column, padding=(radius * dy, 0), dilation=(dy, 1), groups=channels)
    return F.conv2d(image, row, padding=(0, radius * dx), dilation=(1, dx), groups=channels)


def blurred_maps(input: Tensor, taps: BlurTaps, geo: Geometry, derivatives: bool) -> Tensor:
    """The maps that weights and displacements are correlated with: ``G * X`` and, for the paper's mu gradient, its two
    derivatives ``dG/dmu * X``: (maps, N, C, H, W).
    """
    maps = [correlate(input, taps.gaussian, taps.gaussian, geo)]
    if derivatives:
        maps.append(correlate(input, taps.mu, taps.gaussian, geo))
        maps.append(correlate(input, taps.gaussian, taps.mu, geo))
    return torch.stack(maps)


def through_the_blur(
    grad_blurred: Tensor | None, tensors: Tensors, taps: BlurTaps, geo: Geometry, needs: Needs
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients for input and sigma from that of the blurred input."""
    grad_input = grad_sigma = None
    if grad_blurred is not None and needs.input:
        # The blur is symmetric and its zero padding is the adjoint of the crop, so it is its own adjoint.
        grad_input = correlate(grad_blurred, taps.gaussian, taps.gaussian, geo)
    if grad_blurred is not None and needs.sigma:
        # The output is linear in the blurred map, so its sigma derivative is one dot product with that map's.
        image = tensors.input
        by_sigma = correlate(image, taps.sigma, taps.gaussian, geo) + correlate(image, taps.gaussian, taps.sigma, geo)
        grad_sigma = (grad_blurred * by_sigma).sum().reshape(tensors.sigma.shape)
    return grad_input, grad_sigma
