"""Intervals of areas over images: by a second computation, by what must hold always, and by simulation."""

import math
import statistics

import numpy as np
import pytest
from erf_coverage import KINDS, MASSES, coverage
from hypothesis import given, settings
from hypothesis import strategies as st

from daukit.erf.intervals import T95, area_intervals

SHARES = (0.1, *MASSES, 1.0)
ARBITRARY = settings(max_examples=60)


@st.composite
def maps(draw, *, signed):
    """Maps (images, pixels) of few or many values, zeros among them, which do not all add up to zero.

    Few values are multiples of a power of two, so that sums are exact and what is equal is so in every order.
    """
    dice = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(2, 9)), draw(st.integers(1, 12))
    values = draw(st.sampled_from([dice.exponential(size=shape), dice.integers(0, 4, shape).astype(float)]))
    values *= dice.choice([1.0, 1.0, 0.0, 2.0**-30], shape) if draw(st.booleans()) else 1.0
    values *= dice.choice([1.0, -1.0], shape) if signed else 1.0
    if abs(values.sum(0)).max() < 1e-3:
        values[0, 0] += 1
    return values / 2 ** math.ceil(math.log2(abs(values).max()))


def held_by(image, order, signs, k):
    return math.fsum(signs[p] * image[p] for p in order[:k])


def ordered(by, total):
    order = sorted(range(len(by)), key=lambda p: (-abs(by[p]), p))
    return order, [-1 if (one or other) < 0 else 1 for one, other in zip(by, total, strict=True)]


def rank(images, k, mass, side):
    """log(outside / inside) less that of the mass, and ``side`` times t standard errors less; images in plain loops."""
    count, pixels = len(images), len(images[0])
    total = [math.fsum(image[p] for image in images) for p in range(pixels)]
    halves = [[math.fsum(image[p] for image in images[start::2]) for p in range(pixels)] for start in (0, 1)]
    kept, whole = [], []
    for i, image in enumerate(images):
        own, others = (total, halves[1 - i % 2]) if side == 1 else (halves[1 - i % 2], total)
        kept.append(held_by(image, *ordered(own, total), k))
        whole.append(held_by(image, *ordered(others, total), pixels))
    inside = math.fsum(kept)
    outside = math.fsum(whole) - inside
    if inside <= 1e-100:
        return math.inf
    if outside <= max(1e-12 * math.fsum(whole), 1e-100):
        return -math.inf
    parts = [(all_ - k) / outside - k / inside for k, all_ in zip(kept, whole, strict=True)]
    error = math.sqrt(count) * statistics.stdev(parts)
    return math.log(outside / inside) - side * T95[count - 2] * error - math.log((1 - mass) / mass)


@ARBITRARY
@given(maps(signed=True), st.sampled_from(MASSES))
def test_the_interval_is_that_of_plain_loops(images, mass):
    """First rank that may hold the mass, and first one from which on all do; ranks at the very edge are left out."""
    pixels = images.shape[1]
    may, must = ([rank(images.tolist(), k + 1, mass, side) for k in range(pixels)] for side in (1, -1))
    if any(abs(value) < 1e-9 for value in may + must):
        return
    (interval,) = area_intervals(images, [mass])
    if must[-1] > 0:
        assert interval is None
    else:
        last = max((k + 2 for k in range(pixels) if must[k] > 0), default=1)
        assert interval == (next(k + 1 for k in range(pixels) if may[k] <= 0), last)


@ARBITRARY
@given(maps(signed=True))
def test_the_measured_area_lies_in_its_interval(images):
    influence = np.sort(abs(images.sum(0)))[::-1].cumsum()
    for mass, interval in zip(SHARES, area_intervals(images, SHARES), strict=True):
        area = 1 + int((influence < (mass - 1e-12) * influence[-1]).sum())
        assert interval is None or interval[0] <= area <= interval[1]


@ARBITRARY
@given(maps(signed=False))
def test_influences_of_one_sign_always_have_an_interval_within_the_pixels_seen(images):
    for low, high in area_intervals(images, SHARES):
        assert 1 <= low <= high <= images.shape[1]


@ARBITRARY
@given(maps(signed=True), st.sampled_from([0.25, 2.0**40]))
def test_gains_of_all_images_change_nothing(images, gain):
    assert area_intervals(gain * images, SHARES) == area_intervals(images, SHARES)


def test_images_that_differ_by_gains_alone_know_the_area_exactly():
    field = np.arange(1.0, 31)
    gains = np.exp(np.random.default_rng(0).standard_normal((8, 1)))
    held = field[::-1].cumsum() / field.sum()
    exact = [1 + int((held < mass).sum()) for mass in MASSES]
    assert area_intervals(gains * field, MASSES) == [(area, area) for area in exact]


@pytest.mark.parametrize("freedom", [1, 2, 7, 15, 31])
def test_the_quantiles_are_students(freedom):
    """They leave 5 % outside, by Student's density and to the last of their three decimals."""
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    x = np.linspace(0, T95[freedom - 1], 20001)
    density = constant * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    assert 2 * np.trapezoid(density, x) == pytest.approx(0.95, abs=0.001 * density[-1])


def assert_holds(shares, least, trials):
    """Shares of at least ``least``, less three standard errors of a share of so many trials; NaN is of no interval."""
    lowest = least - 3 * math.sqrt(least * (1 - least) / trials)
    assert all(share >= lowest for share in shares if not math.isnan(share)), shares


@pytest.mark.parametrize("kind", ["pixels", "gates"])
def test_intervals_hold_the_areas_of_small_fields(kind):
    """A quarter of the influence lies on four pixels."""
    assert_holds(coverage(kind, 9, 8, 100), 0.9, 100)


# Fields of about so many pixels, images, and trials.
SIZES = [(9, 4, 200), (9, 16, 200), (9, 64, 200), (40, 8, 200), (400, 8, 100), (400, 64, 40), (4000, 8, 40)]


@pytest.mark.slow
@pytest.mark.parametrize(("area", "images", "trials"), [*SIZES, (4000, 64, 20)])
@pytest.mark.parametrize("kind", KINDS)
def test_nine_intervals_in_ten_hold_the_field_of_infinitely_many_images(kind, area, images, trials):
    shares = coverage(kind, area, images, trials)
    # Of fields that wander and change their width, a few images tell too little of the outermost thousandth.
    assert_holds(shares[:3] if kind == "wandering" else shares, 0.9, trials)
