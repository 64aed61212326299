"""Deblurring: a blurred image becomes a sharp one (section 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daukit.datasets import Batch, Dataset, DatasetInfo
from daukit.errors import DataError
from daukit.models.srn import SRNDeblur
from daukit.models.usercode import calling, name_of
from daukit.preprocessing import Preprocessing
from daukit.results import Count, Positive
from daukit.tasks.networks import output_of, sample_of
from daukit.tasks.sums import CascadeSum
from daukit.tasks.task import Headline, Reduction

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_LEAST_ERROR = 1e-12
"""Mean squared errors below this count as it, so that a perfect image has 120 dB and not an infinite PSNR."""


@dataclass(frozen=True)
class DeblurringResult:
    """How near a network's images are to the sharp ones.

    Attributes:
        psnr: peak signal-to-noise ratio in decibels, mean over the images; at most 120 for each.
        ssim: structural similarity, within [-1, 1], mean over the images.
        loss: squared error of brightness within [0, 1], mean over the images.
        images: number of images.
    """

    psnr: Positive
    ssim: float
    loss: Positive
    images: Count


class DeblurringMetrics:
    """Sums over images of their squared error, PSNR and SSIM."""

    def __init__(self) -> None:
        self._loss, self._psnr, self._ssim, self._images = CascadeSum(), CascadeSum(), CascadeSum(), 0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch: brightness within [0, 1] and sharp pixels, uint8, both (N, C, H, W)."""
        sharp, found = targets.double() / 255, outputs.double()
        errors = (found - sharp).square().mean((1, 2, 3))
        self._loss.add(errors.tolist())
        self._psnr.add((-10 * errors.clamp(min=_LEAST_ERROR).log10()).tolist())
        self._ssim.add(structural_similarity(found, sharp).tolist())
        self._images += len(targets)

    def merge(self, other: DeblurringMetrics) -> None:
        """Count what ``other`` has counted."""
        self._loss.merge(other._loss)
        self._psnr.merge(other._psnr)
        self._ssim.merge(other._ssim)
        self._images += other._images

    def result(self) -> DeblurringResult:
        """Figures of all images so far."""
        psnr, ssim, loss = (part.total / self._images for part in (self._psnr, self._ssim, self._loss))
        return DeblurringResult(psnr=psnr, ssim=ssim, loss=loss, images=self._images)


@dataclass(frozen=True)
class Deblurring:
    """The task of networks that map a blurred image to a sharp one, both normalised alike.

    Attributes:
        preprocessing: what the network expects of its input, and what its output is read by.
    """

    headline: ClassVar[Headline] = Headline("psnr", math.inf)

    preprocessing: Preprocessing

    def loss(self, model: nn.Module, batch: Batch, *, reduction: Reduction = "mean") -> Tensor:
        """Squared error of normalised values, mean over the pixels of a scale, sum over the network's scales.

        This is the Euclidean loss of Tao et al. (2018), whose protocol section 7.1 follows, with weight 1 for every
        scale. The sharp image is reduced to a scale as the network reduces the blurred one. A network without scales
        has the one of the image.
        """
        blurred, sharp = (self.preprocessing.normalize(images) for images in (batch.images, batch.targets))
        if isinstance(model, SRNDeblur):
            with calling(model, blurred):
                found = model.forward_scales(blurred.to(next(model.parameters()).dtype))
            wanted = model.image_scales(sharp)
        else:
            found, wanted = [_image(model, blurred)], [sharp]
        errors = [(f - w).square().mean((1, 2, 3)) for f, w in zip(found, wanted, strict=True)]  # (N,) each
        losses = torch.stack(errors).sum(0)
        return losses.sum() if reduction == "sum" else losses.mean()

    def weight(self, batch: Batch) -> float:
        """Its images."""
        return len(batch)

    def guessing_loss(self, info: DatasetInfo) -> float:
        """One: about what the mean brightness has, of normalised values."""
        return 1.0

    def predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Sharp images, (N, C, H, W): brightness within [0, 1]."""
        return self.preprocessing.denormalize(_image(model, self.preprocessing.normalize(images))).clamp(0, 1)

    def metrics(self, info: DatasetInfo) -> DeblurringMetrics:
        """Metrics of a data set that have counted nothing."""
        return DeblurringMetrics()

    def check_fits(
        self,
        model: nn.Module,
        dataset: Dataset,
        device: str | torch.device,
        *,
        network: str = "the network",
        images: str = "the images",
    ) -> None:
        """Raise ``DataError`` unless ``model`` maps the images to ones of their shape, large enough to be compared."""
        sample = sample_of(dataset, model, self.preprocessing, network=network, images=images).to(device)
        if min(sample.shape[2:]) < _WINDOW:
            size = f"{sample.shape[2]}x{sample.shape[3]}"
            raise DataError(f"{images} have {size} pixels; SSIM compares windows of {_WINDOW}x{_WINDOW}")
        with torch.no_grad():
            self.predict(model, sample)


def structural_similarity(found: Tensor, sharp: Tensor) -> Tensor:
    """SSIM (Wang et al., 2004) of each pair of images (N, C, H, W) with values within [0, 1]: (N,).

    It is the mean over the channels and over all positions at which a Gaussian window of 11x11 pixels and sigma 1.5
    fits into the image.
    """
    places = torch.arange(_WINDOW, dtype=found.dtype, device=found.device) - _WINDOW // 2
    taps = (-(places**2) / (2 * _SIGMA**2)).exp()
    taps = taps / taps.sum()

    def mean(values: Tensor) -> Tensor:
        """Means over windows."""
        planes = values.flatten(0, 1)[:, None]  # (N * C, 1, H, W)
        return F.conv2d(F.conv2d(planes, taps[None, None, :, None]), taps[None, None, None])

    x, y = mean(found), mean(sharp)
    variances = mean(found * found) - x * x + mean(sharp * sharp) - y * y
    covariance = mean(found * sharp) - x * y
    similarity = (2 * x * y + _C1) * (2 * covariance + _C2) / ((x * x + y * y + _C1) * (variances + _C2))
    return similarity.reshape(len(found), -1).mean(1)


def _image(model: nn.Module, inputs: Tensor) -> Tensor:
    """The network's output for normalised images, an image of the same shape."""
    image = output_of(model, inputs)
    if not isinstance(image, Tensor) or image.shape != inputs.shape:
        shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise DataError(
            f"{name_of(model)}: deblurring needs an output like the input, {tuple(inputs.shape)}, got {shape}"
        )
    return image
