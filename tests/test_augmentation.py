"""Augmentation: what comes out is an image that went in, mirrored and moved, as often as it should be."""

import torch

from daukit.augmentation import augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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
    assert augment(pixels, mirror=False, shift=0, generator=generator()) is pixels


def test_every_mirroring_and_shift_comes_and_nothing_else():
    image = torch.arange(1, 2 * 5 * 7 + 1, dtype=torch.uint8).reshape(2, 5, 7)
    expected = {
        (flip, dy, dx): moved(image.flip(-1) if flip else image, dy, dx)
        for flip in (False, True)
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    }
    number = 1800
    results = augment(image.expand(number, -1, -1, -1), mirror=True, shift=1, generator=generator())
    assert results.dtype == torch.uint8 and results.shape == (number, 2, 5, 7)
    counts = {key: int((results == value).flatten(1).all(1).sum()) for key, value in expected.items()}
    assert sum(counts.values()) == number
    # Of 18 equally likely outcomes each comes 100 times, standard deviation 9.7: six of those either way.
    assert all(abs(count - 100) < 58 for count in counts.values()), counts


def test_the_generator_decides():
    pixels = torch.randint(256, (8, 1, 6, 6), dtype=torch.uint8)
    first, again, other = (augment(pixels, mirror=True, shift=2, generator=generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
