"""Random changes: what comes out is an image that went in, mirrored and moved, as often as it should be."""

import torch

from daukit.datasets import Batch
from daukit.transforms import MirrorAndShift, epoch_generator


def changed(pixels, mirror, shift, seed=0):
    """What becomes of images, whose labels are their numbers."""
    batch = Batch(pixels, torch.arange(len(pixels)))
    result = MirrorAndShift(mirror, shift)(batch, torch.Generator().manual_seed(seed))
    assert torch.equal(result.targets, batch.targets)
    return result.images


def moved(image, dy, dx):
    """``image`` moved down and right, black coming in, by slices alone."""
    height, width = image.shape[-2:]
    result = torch.zeros_like(image)
    result[..., max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = image[
        ..., max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return result


def test_nothing_to_do_changes_nothing():
    pixels = torch.randint(256, (3, 2, 5, 7), dtype=torch.uint8)
    assert changed(pixels, mirror=False, shift=0) is pixels


def test_every_mirroring_and_shift_comes_and_nothing_else():
    image = torch.arange(1, 2 * 5 * 7 + 1, dtype=torch.uint8).reshape(2, 5, 7)
    expected = {
        (flip, dy, dx): moved(image.flip(-1) if flip else image, dy, dx)
        for flip in (False, True)
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    }
    number = 1800
    results = changed(image.expand(number, -1, -1, -1), mirror=True, shift=1)
    assert results.dtype == torch.uint8 and results.shape == (number, 2, 5, 7)
    counts = {key: int((results == value).flatten(1).all(1).sum()) for key, value in expected.items()}
    assert sum(counts.values()) == number
    # Of 18 equally likely outcomes each comes 100 times, standard deviation 9.7: six of those either way.
    assert all(abs(count - 100) < 58 for count in counts.values()), counts


def test_the_generator_decides():
    pixels = torch.randint(256, (8, 1, 6, 6), dtype=torch.uint8)
    first, again, other = (changed(pixels, mirror=True, shift=2, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_generator_of_an_epoch_is_that_of_its_number_and_the_seed():
    """The formula of all versions, so that runs of older ones go on as they began."""
    for seed, epoch in ((0, 0), (7, 3), (-4, 1)):
        expected = torch.rand(5, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
        assert torch.equal(torch.rand(5, generator=epoch_generator(seed, epoch)), expected)
    for seed in (2**62, -(2**62)):
        wrapped = (seed * 100_003 + 2 + 2**63) % 2**64 - 2**63
        assert epoch_generator(seed, 2).initial_seed() % 2**64 == wrapped % 2**64
