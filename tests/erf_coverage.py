"""Simulates images with a known mean field, and counts how often the intervals of ``daukit erf`` hold its true areas.

``python tests/erf_coverage.py`` prints the table of docs/erf.md. Only the intervals come from daukit.
"""

import argparse
import math

import numpy as np
import torch

from daukit.erf.samples import Samples

MASSES = (0.25, 0.5, 0.75, 0.999)
AREAS = (9, 40, 400, 4000)
"""Pixels that hold half of the influence of a Gaussian field, of which 0.4 times as many hold a quarter."""
IMAGES = (8, 64)
LARGE = 1000
"""Areas from which a fifth of the trials must do."""


class Field:
    """A field of which each image shows a noisy version; ``area``: as in ``AREAS``."""

    def __init__(self, area):
        self.sigma = math.sqrt(area / (2 * math.pi * math.log(2)))
        self.size = math.ceil(9 * self.sigma) | 1
        self.rows = np.arange(self.size) - self.size // 2
        self.squares = self.rows[:, None] ** 2 + self.rows**2.0

    @property
    def mean(self):
        """The field of infinitely many images, in any unit."""
        return np.exp(-self.squares / (2 * self.sigma**2))

    def images(self, dice, number):
        """Fields (number, size, size) of images drawn at random."""
        raise NotImplementedError

    def grain(self, dice, number, length):
        """Standard normal noise (number, size, size) that is smooth over ``length`` pixels."""
        rows, columns = np.fft.fftfreq(self.size), np.fft.rfftfreq(self.size)
        blur = np.exp(-2 * (math.pi * length) ** 2 * (rows[:, None] ** 2 + columns**2))
        shape = (self.size, self.size)
        noise = np.fft.irfft2(np.fft.rfft2(dice.standard_normal((number, *shape))) * blur, s=shape)
        return noise / math.sqrt((np.fft.irfft2(blur, s=shape) ** 2).sum())


def gains(dice, number, spread):
    return np.exp(spread * dice.standard_normal((number, 1, 1)))


class Pixels(Field):
    """Every pixel of every image is an exponential variable of its own."""

    def images(self, dice, number):
        return self.mean * dice.exponential(size=(number, self.size, self.size))


class Flat(Pixels):
    """The same, but all pixels of a square are alike, so that noise alone orders them."""

    @property
    def mean(self):
        return (np.maximum(abs(self.rows[:, None]), abs(self.rows)) <= 1.5 * self.sigma).astype(float)


class Heavy(Field):
    """Pixels and gains of images are log-normal: a few of them make up most of the sum."""

    def images(self, dice, number):
        pixels = np.exp(dice.standard_normal((number, self.size, self.size)))
        return self.mean * pixels * gains(dice, number, 1.0)


class Checked(Heavy):
    """The same where every other row and column has 0.3 of the influence, as behind strides."""

    @property
    def mean(self):
        even = self.rows % 2 == 0
        return super().mean * np.where(even[:, None] & even, 1.0, 0.3)


class Blobs(Field):
    """Log-normal blobs, a third of the field's standard deviation wide, and log-normal gains."""

    def images(self, dice, number):
        blobs = np.exp(0.8 * self.grain(dice, number, max(1.0, self.sigma / 3)))
        return self.mean * blobs * gains(dice, number, 1.0)


class Gates(Field):
    """Most of the field is zero in every image, in other places each time, as behind ReLUs."""

    def images(self, dice, number):
        gates = self.grain(dice, number, max(0.7, self.sigma / 4)) > 0.5
        return self.mean * gates * gains(dice, number, 0.5)


class Signed(Field):
    """Influences of either sign, whose mean is a third of their standard deviation."""

    def images(self, dice, number):
        noise = dice.standard_normal((number, self.size, self.size))
        return self.mean * (1 + 3 * noise) * gains(dice, number, 0.5)


class Wandering(Field):
    """Fields of other widths, places and gains."""

    @property
    def mean(self):
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        mean = np.zeros_like(self.squares)
        for node, weight in zip(nodes, weights, strict=True):
            width = (self.sigma * math.exp(0.15 * node)) ** 2
            spread = width + (0.25 * self.sigma) ** 2  # of the width and of the place together
            mean += weight * width / spread * np.exp(-self.squares / (2 * spread))
        return mean

    def images(self, dice, number):
        width = self.sigma * np.exp(0.15 * dice.standard_normal((number, 1)))
        y, x = (
            np.exp(-((self.rows - 0.25 * self.sigma * dice.standard_normal((number, 1))) ** 2) / (2 * width**2))
            for _ in range(2)
        )
        return gains(dice, number, 0.5) * y[:, :, None] * x[:, None]


KINDS = {kind.__name__.lower(): kind for kind in (Pixels, Flat, Heavy, Checked, Blobs, Gates, Signed, Wandering)}


def true_areas(mean):
    """The fewest pixels that hold each mass."""
    held = np.sort(mean, axis=None)[::-1].cumsum()
    return np.array([1 + int((held < (mass - 1e-12) * held[-1]).sum()) for mass in MASSES])


def coverage(kind, area, images, trials):
    """Shares of the intervals (masses) that hold the true area, of those trials that give one; NaN where none does."""
    field = KINDS[kind](area)
    true, dice = true_areas(field.mean), np.random.default_rng((area, images))
    held, given = np.zeros((2, len(MASSES)))
    for _ in range(trials):
        samples = Samples((field.size, field.size))
        samples.add_each(torch.from_numpy(field.images(dice, images)), 0)
        intervals = samples.area_intervals(MASSES)
        given += [interval is not None for interval in intervals]
        held += [i is not None and i[0] <= area <= i[1] for i, area in zip(intervals, true, strict=True)]
    return np.divide(held, given, out=np.full(len(MASSES), math.nan), where=given > 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--areas", type=int, nargs="+", default=AREAS)
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    print("kind       images" + "".join(f"{100 * mass:8g}%" for mass in MASSES))
    for kind in options.kinds:
        for images in options.images:
            trials = [options.trials // (5 if area >= LARGE else 1) for area in options.areas]
            shares = [coverage(kind, area, images, n) for area, n in zip(options.areas, trials, strict=True)]
            least = [
                min((share for share in column if share >= 0), default=None) for column in zip(*shares, strict=True)
            ]
            told = "".join(f"{'-':>9}" if share is None else f"{100 * share:8.1f}%" for share in least)
            print(f"{kind:10}{images:7}{told}", flush=True)


if __name__ == "__main__":
    main()
