"""The rule between the CUDA kernels, convolutions and transforms, on cards that need not be there."""

import pytest
import torch
from emulated import EmulatedLauncher

from daukit.ops import cuda, dispatch
from daukit.ops.contract import Needs, Tensors
from daukit.ops.cuda import availability
from daukit.ops.cuda.cost import (
    KERNELS,
    MARGIN,
    Effort,
    allowed_precision,
    backward_effort,
    cheapest,
    costs,
    costs_of,
    is_affordable,
    worth_timing,
)
from daukit.ops.filters import Window, expected_window
from daukit.ops.geometry import Geometry

NONE = Effort()


def geometry(batch=64, channels=96, size=32, **options):
    defaults = {"groups": 1, "stride": (1, 1), "dilation": (1, 1), "radius": 3, "limit": 4}
    defaults.update(options)
    return Geometry(batch=batch, in_channels=channels, out_channels=channels, in_size=(size, size), **defaults)


# Up to how many units the kernels win over convolutions: 81 taps * rate / utilisation against 0.8 of 0.8 + 6 K (3.7 K
# on 64 lanes).
@pytest.mark.parametrize(
    ("capability", "precision", "units"),
    [(90, "float32", 19), (90, "tf32", 3), (90, "half", 1), (80, "tf32", 5), (89, "tf32", 19), (100, "half", 0)],
)
def test_at_nine_by_nine_taps_convolutions_win_from_the_number_of_units_that_the_rates_say(
    capability, precision, units
):
    geo = geometry(batch=100_000)  # so many pixels that reading the kernel costs nothing
    for count, wins in ((units, False), (1.3 * (units + 1), True)):
        found = costs(geo, count, capability, precision)
        assert (found["dense"] < MARGIN * found["cuda"]) == wins


def test_a_filter_that_is_larger_than_the_image_costs_its_memory():
    large, small = (costs(geo, 4, 90, "half") for geo in (geometry(batch=64), geometry(batch=1, size=7)))
    assert large["dense"] < MARGIN * large["cuda"] and small["dense"] > MARGIN * small["cuda"]


def test_transforms_cost_the_same_however_many_units_there_are_and_win_with_large_batches():
    few, many = (costs(geometry(batch=128, channels=192), units, 90, "float32") for units in (1, 8))
    assert few["spectral"] == many["spectral"] and few["cuda"] < many["cuda"]
    # T = 36 along both axes for 32 pixels and 4 to each side: 36 * 19 frequencies, four products each.
    pairs, frequencies, windows = 192 * 192, 36 * 19, 128
    products = 4 * (windows + 9) * pairs * frequencies / 0.85
    moved = 8 * frequencies * (6 * windows * 2 * 192 + 4 * pairs) / 0.10
    assert few["spectral"] == pytest.approx(products + moved, rel=1e-12)


def tensors(geo, units, dtype=torch.float32, displacement=3.5):
    shape = (geo.out_channels, geo.in_channels // geo.groups, units)
    image = torch.zeros(1, dtype=dtype).expand(geo.batch, geo.in_channels, *geo.in_size)
    mu = torch.tensor(displacement).expand(2, *shape)
    return Tensors(image, torch.zeros(1).expand(shape), mu, sigma=torch.tensor(0.5), bias=None, unit_ptr=None)


def test_by_the_rule_transforms_win_with_large_batches_and_backwards_less_often(gpu):
    def choice(batch, units, effort=NONE):
        geo = geometry(batch=batch, channels=192)
        return cheapest(costs_of(tensors(geo, units), geo, effort))

    assert [choice(batch, 2) for batch in (8, 128)] == ["cuda", "spectral"]
    # Four products beside twice the multiply-adds of the kernels.
    assert choice(128, 2, backward_effort(Needs(True, True, True, False), "gaussian")) == "cuda"
    assert choice(128, 2, backward_effort(Needs(True, False, False, False), "gaussian")) == "spectral"


def test_a_backwards_effort_is_a_product_for_the_images_and_one_for_each_map():
    everything = Needs(True, True, True, True)
    assert backward_effort(everything, "gaussian") == Effort(4, 2)
    assert backward_effort(everything, "exact") == Effort(2, 7 / 3)
    assert backward_effort(everything._replace(mu=False), "exact") == Effort(2, 4 / 3)
    assert backward_effort(Needs(True, False, False, False), "exact") == Effort(1, 1)


def test_ways_that_are_far_out_are_not_timed(gpu):
    for geo, dtype, expected in (
        (geometry(batch=128, channels=192), torch.bfloat16, ["dense", "dense, channels last", "spectral"]),
        (geometry(batch=128, channels=192), torch.float16, ["dense", "dense, channels last"]),
        (geometry(batch=128, channels=192), torch.float32, ["spectral"]),  # 81 taps without tensor cores
        (geometry(limit=2**16, size=512), torch.bfloat16, []),
        (geometry(dilation=(2, 2)), torch.bfloat16, []),
    ):
        assert worth_timing(costs_of(tensors(geo, 2, dtype), geo, NONE)) == [*KERNELS, *expected]


def test_what_would_take_too_much_memory_or_be_made_again_is_left_to_the_kernels():
    # Ragged filters are made all at once: 43 chunks of spectra for this layer.
    wide = geometry(batch=32, size=65)
    wide = Geometry(32, 2048, 256, 1, wide.in_size, (1, 1), (1, 1), 3, 4)
    assert not is_affordable(wide, ragged=True) and not is_affordable(wide, ragged=False)
    assert is_affordable(geometry(batch=128, channels=192), ragged=True)
    assert not is_affordable(geometry(limit=2**16, size=512), ragged=False)
    assert not is_affordable(geometry(dilation=(2, 2)), ragged=False)


def test_an_unknown_card_is_taken_for_the_newest_older_one():
    for capability, known in ((87, 86), (103, 100), (121, 120)):
        assert costs(geometry(), 2, capability, "half") == costs(geometry(), 2, known, "half")


def test_dilated_layers_and_empty_images_are_left_to_the_kernels(gpu):
    for geo in (geometry(dilation=(2, 2)), geometry(batch=0), geometry(size=0)):
        assert cheapest(costs_of(tensors(geo, 8, torch.bfloat16), geo, NONE)) == "cuda"


def test_the_expected_window_holds_displacements_within_the_limit_that_touch_the_image():
    assert expected_window(geometry(), 4) == Window((-4, -4), (9, 9))
    assert expected_window(geometry(size=7), 40) == Window((-6, -6), (13, 13))


def test_precision_is_what_the_caller_allowed():
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        assert allowed_precision(torch.float32) == "float32"
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        assert allowed_precision(torch.float32) == "tf32"
        assert allowed_precision(torch.float16) == allowed_precision(torch.bfloat16) == "half"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


@pytest.fixture
def gpu(monkeypatch):
    launcher = EmulatedLauncher()
    monkeypatch.setitem(cuda.LAUNCHERS, "cpu", launcher)
    monkeypatch.setattr(availability, "_failures", {})
    return launcher


def chosen(dtype, units, displacement, backend="auto", batch=64):
    """Class and name of the backend, and the dtype of its sums over channels."""
    geo = geometry(batch)
    choice = dispatch.resolve(backend, tensors(geo, units, dtype, displacement), geo)
    return type(choice.backend).__name__, choice.backend.name, choice.compute


def test_the_automatic_choice_on_a_gpu_follows_the_rule_and_computes_in_the_inputs_dtype(gpu):
    assert chosen(torch.float32, 2, 3.5) == ("Cuda", "cuda", torch.float32)
    assert chosen(torch.bfloat16, 4, 3.5) == ("Near", "dense", torch.bfloat16)
    assert chosen(torch.bfloat16, 1, 3.5) == ("Cuda", "cuda", torch.float32)
    assert chosen(torch.float32, 9, 3.5, batch=512) == ("Near", "spectral", torch.float32)
    assert chosen(torch.float16, 9, 3.5, batch=512)[1] != "spectral"


def test_the_choice_does_not_depend_on_values(gpu):
    for dtype in (torch.float32, torch.bfloat16):
        for units in (1, 2, 4, 8):
            assert chosen(dtype, units, 0.5) == chosen(dtype, units, 100.0)


def test_a_named_backend_is_never_overruled(gpu):
    assert chosen(torch.bfloat16, 8, 3.5, "cuda") == ("Cuda", "cuda", torch.float32)
    assert chosen(torch.bfloat16, 1, 3.5, "dense") == ("Dense", "dense", torch.float32)
    assert chosen(torch.bfloat16, 1, 3.5, "spectral") == ("Spectral", "spectral", torch.float32)
