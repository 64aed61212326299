"""Deblurring: the loss over a network's scales, and PSNR and SSIM beside torchmetrics."""

import math
import pickle

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

import daukit
from daukit.datasets import Batch, DatasetInfo
from daukit.errors import DataError
from daukit.preprocessing import Preprocessing
from daukit.tasks import Deblurring
from daukit.tasks.deblurring import structural_similarity

PLAIN = Preprocessing((0.0,) * 3, (1.0,) * 3, "rgb", (16, 16))
TASK = Deblurring(PLAIN)
INFO = DatasetInfo(0)


def pixels(number=5, channels=3, size=(23, 18), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (number, channels, *size), generator=generator).to(torch.uint8)


def noisy(sharp, seed=1):
    """Brightness within [0, 1] near ``sharp``, each image farther than the one before."""
    noise = torch.randn(sharp.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (sharp / 255 + 0.05 * torch.arange(1, len(sharp) + 1)[:, None, None, None] * noise).clamp(0, 1)


def counted(found, sharp, size=2):
    metrics = TASK.metrics(INFO)
    for part in zip(found.split(size), sharp.split(size), strict=True):
        metrics.add(*part)
    return metrics


def test_figures_are_means_over_images_of_those_of_torchmetrics():
    sharp = pixels()
    found = noisy(sharp)
    result, truth = counted(found, sharp).result(), sharp.double() / 255
    pairs = list(zip(found.split(1), truth.split(1), strict=True))
    maps = [structural_similarity_index_measure(*p, data_range=1.0, return_full_image=True)[1] for p in pairs]
    ssim = [m[..., 5:-5, 5:-5].mean().item() for m in maps]  # near borders its windows read a mirrored image
    assert math.isclose(result.ssim, sum(ssim) / 5, rel_tol=1e-9)
    psnr = [peak_signal_noise_ratio(*pair, data_range=1.0).item() for pair in pairs]
    assert math.isclose(result.psnr, sum(psnr) / 5, rel_tol=1e-6)  # it keeps 10 in single precision
    exact = [-10 * math.log10(F.mse_loss(*pair)) for pair in pairs]
    assert math.isclose(result.psnr, sum(exact) / 5, rel_tol=1e-12)
    assert math.isclose(result.loss, F.mse_loss(found, truth), rel_tol=1e-12) and result.images == 5


def test_ssim_is_one_for_equal_images_and_known_for_flat_ones():
    image = pixels(2).double() / 255
    assert torch.allclose(structural_similarity(image, image), torch.ones(2, dtype=torch.float64))
    dark, light = (torch.full((1, 1, 11, 12), value, dtype=torch.float64) for value in (0.25, 0.5))
    expected = (2 * 0.125 + 1e-4) / (0.0625 + 0.25 + 1e-4)  # no structure differs, brightness does
    assert math.isclose(structural_similarity(dark, light), expected, rel_tol=1e-9)


def test_a_perfect_image_has_a_finite_psnr():
    sharp = pixels(1)
    assert counted(sharp.double() / 255, sharp).result().psnr == 120


def test_metrics_of_parts_add_up_to_those_of_all():
    sharp = pixels()
    found = noisy(sharp)
    whole, first, second = (counted(found[part], sharp[part]) for part in (slice(5), slice(2), slice(2, 5)))
    first.merge(pickle.loads(pickle.dumps(second)))
    merged, result = first.result(), whole.result()
    assert merged.images == result.images
    assert all(math.isclose(getattr(merged, n), getattr(result, n), rel_tol=1e-14) for n in ("psnr", "ssim", "loss"))


def test_the_loss_is_the_sum_over_the_scales_of_mean_squared_errors():
    """Images of 16x32 are whole cells of three scales: the sharp ones are reduced by 4, 2 and 1."""
    torch.manual_seed(0)
    network = daukit.create_model("srn_deblur", width=2, blocks=1)
    batch = Batch(pixels(2, size=(16, 32)), pixels(2, size=(16, 32), seed=1))
    task = Deblurring(Preprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "rgb", (16, 16)))
    blurred, sharp = task.preprocessing.normalize(batch.images), task.preprocessing.normalize(batch.targets)
    expected = torch.zeros(2)
    for scale, found in zip((4, 2, 1), network.forward_scales(blurred), strict=True):
        wanted = F.interpolate(sharp, scale_factor=1 / scale, mode="bilinear") if scale > 1 else sharp
        expected += (found - wanted).square().mean((1, 2, 3))
    assert torch.allclose(task.loss(network, batch), expected.mean())
    assert torch.allclose(task.loss(network, batch, reduction="sum"), expected.sum())


def test_images_of_any_size_are_reduced_as_the_network_reduces_its_input():
    network = daukit.create_model("srn_deblur", width=1, blocks=1, in_channels=1)
    image = torch.rand(1, 1, 21, 30)
    padded = F.pad(image, (0, 2, 0, 11), mode="replicate")  # to 32x32
    quarter, half, whole = network.image_scales(image)
    assert torch.equal(whole, image)
    assert torch.allclose(half, F.interpolate(padded, (16, 16), mode="bilinear")[..., :11, :15])
    assert torch.allclose(quarter, F.interpolate(padded, (8, 8), mode="bilinear")[..., :6, :8])
    assert [x.shape for x in (quarter, half, whole)] == [x.shape for x in network.forward_scales(image)]


def test_any_network_from_image_to_image_can_be_trained_and_read():
    task = Deblurring(Preprocessing((0.5,) * 3, (0.25,) * 3, "rgb", (16, 16)))
    batch = Batch(pixels(3), pixels(3, seed=1))
    assert torch.allclose(task.predict(torch.nn.Identity(), batch.images), batch.images / 255, atol=1e-6)
    expected = 16 * F.mse_loss(batch.images / 255, batch.targets / 255)  # over std squared
    assert torch.allclose(task.loss(torch.nn.Identity(), batch), expected)


class Images:
    info = INFO

    def __init__(self, **kind):
        self._batch = Batch(pixels(1, **kind), pixels(1, **kind))

    def batch(self, _):
        return self._batch


def test_a_network_that_does_not_fit_is_refused_by_what_is_wrong():
    network = daukit.create_model("srn_deblur", width=1, blocks=1)
    TASK.check_fits(network, Images(), "cpu")
    with pytest.raises(DataError, match=r"the network takes 3 channels, the images have 1 channel$"):
        TASK.check_fits(network, Images(channels=1), "cpu")
    with pytest.raises(DataError, match="the images have 23x10 pixels; SSIM compares windows of 11x11"):
        TASK.check_fits(network, Images(size=(23, 10)), "cpu")
    with pytest.raises(DataError, match=r"an output like the input, \(1, 3, 23, 18\), got \(1, 1242\)"):
        TASK.check_fits(torch.nn.Flatten(), Images(), "cpu")
