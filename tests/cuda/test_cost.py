"""The rule between the dense path and the CUDA kernels, on cards that need not be there."""

import pytest
import torch
from emulated import EmulatedLauncher

from daukit.ops import cuda, dispatch
from daukit.ops.contract import Tensors
from daukit.ops.cuda import availability, cost
from daukit.ops.cuda.cost import allowed_precision, dense_is_cheaper, expected_box, touched_box
from daukit.ops.geometry import Geometry


def geometry(batch=64, channels=96, size=32, **options):
    defaults = {"groups": 1, "stride": (1, 1), "dilation": (1, 1), "radius": 3, "limit": 4}
    defaults.update(options)
    return Geometry(batch=batch, in_channels=channels, out_channels=channels, in_size=(size, size), **defaults)


# Up to how many units the kernels win: 81 taps * rate / utilisation against 0.8 of 0.8 + 6 K (3.7 K on 64 lanes).
@pytest.mark.parametrize(
    ("capability", "precision", "units"),
    [(90, "float32", 19), (90, "tf32", 3), (90, "half", 1), (80, "tf32", 5), (89, "tf32", 19), (100, "half", 0)],
)
def test_at_nine_by_nine_taps_the_dense_path_wins_from_the_number_of_units_that_the_rates_say(
    capability, precision, units
):
    geo = geometry(batch=100_000)  # so many pixels that reading the kernel costs nothing
    assert not dense_is_cheaper(geo, units, (9, 9), capability, precision)
    assert dense_is_cheaper(geo, 1.3 * (units + 1), (9, 9), capability, precision)


def test_a_kernel_that_is_larger_than_the_image_costs_its_memory():
    assert dense_is_cheaper(geometry(batch=64), 4, (9, 9), 90, "half")
    assert not dense_is_cheaper(geometry(batch=1, size=7), 4, (9, 9), 90, "half")


def test_an_unknown_card_is_taken_for_the_newest_older_one():
    for capability, known in ((87, 86), (103, 100), (121, 120)):
        for units in range(1, 30):
            assert dense_is_cheaper(geometry(), units, (9, 9), capability, "half") == dense_is_cheaper(
                geometry(), units, (9, 9), known, "half"
            )


def test_boxes_hold_every_tap_that_is_touched():
    mu = torch.tensor([[-1.25, 0.0, 2.0], [0.5, 0.5, 0.5]]).reshape(2, 1, 1, 3)
    assert touched_box(geometry(), mu) == (
        6,
        2,
    )  # rows -2 to 3, columns 0 and 1
    assert touched_box(geometry(size=2), 100 * mu) == (3, 2)
    assert touched_box(geometry(size=2), mu / 0) == (3, 3)
    assert expected_box(geometry(limit=4)) == (9, 9)
    assert expected_box(geometry(limit=40, size=7)) == (13, 13)


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
    monkeypatch.setattr(availability, "_failures", [])
    return launcher


def chosen(dtype, units, displacement, backend="auto"):
    """Name of the backend, and the dtype of its sums over channels."""
    image, weight = torch.zeros(64, 96, 32, 32, dtype=dtype), torch.zeros(96, 96, units)
    mu = displacement * torch.ones(2, 96, 96, units)
    mu[:, 0, 0, 0] = -displacement
    tensors = Tensors(image, weight, mu, sigma=torch.tensor(0.5), bias=None, unit_ptr=None)
    choice = dispatch.resolve(backend, tensors, geometry())
    return choice.backend.name, choice.compute


def test_the_automatic_choice_on_a_gpu_follows_the_rule_and_computes_in_the_inputs_dtype(gpu):
    assert chosen(torch.float32, 2, 3.5) == ("cuda", torch.float32)
    assert chosen(torch.bfloat16, 4, 3.5) == ("dense", torch.bfloat16)
    assert chosen(torch.bfloat16, 1, 3.5) == ("cuda", torch.float32)
    # Units that all lie within three taps make a small kernel, whatever their limit is.
    assert chosen(torch.bfloat16, 1, 0.5) == ("dense", torch.bfloat16)


def test_displacements_are_not_read_in_float32(gpu, monkeypatch):
    def read(*_):
        raise AssertionError("mu was read")

    monkeypatch.setattr(cost, "touched_box", read)
    assert chosen(torch.float32, 2, 0.5)[0] == "cuda"


def test_a_named_backend_is_never_overruled(gpu):
    assert chosen(torch.bfloat16, 8, 3.5, "cuda") == ("cuda", torch.float32)
    assert chosen(torch.bfloat16, 1, 3.5, "dense") == ("dense", torch.float32)
