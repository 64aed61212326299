"""Every access of the kernels: no race, nothing out of bounds, nothing read that was not written, no bank conflict."""

import pytest
import torch
from cases import Case
from emulator.build import NEEDS_COMPILER
from kernels import Kernels, Sizes, Tile
from test_kernels import SMALL, TILES, run

pytestmark = [NEEDS_COMPILER, pytest.mark.slow]  # every access is looked at, which takes its time

CASES = [
    Case("blocks", batch=2, in_channels=5, out_channels=6, size=(9, 37), displacement=3.0),
    Case("far_groups", batch=3, in_channels=4, out_channels=6, groups=2, size=(7, 6), displacement=8.0),
    Case("ragged", units=3, ragged=True, size=(11, 10)),
    Case("strided_dilated", size=(11, 13), options={"stride": (2, 1), "dilation": (3, 2)}),
    Case("strided", size=(12, 16), options={"stride": 2}),
]
ALL_KERNELS = {
    *("dau_plan_forward", "dau_blur", "dau_forward", "dau_sum_splits", "dau_far_forward", "dau_unstride"),
    *("dau_plan_backward", "dau_backward", "dau_sum_gradients", "dau_far_backward", "dau_far_gradients"),
    "dau_blur_adjoint",
}


def check(case, mu_gradient, **how):
    """The reports of all launches, in which nothing is wrong."""
    kernels = Kernels(**how, checked=True)
    run(case, kernels, mu_gradient)
    for kernel, report in kernels.reports:
        assert report.is_clean(), f"{kernel}: {report}"
    return kernels.reports


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_access_races_or_leaves_its_memory_or_reads_what_is_not_written(case, mu_gradient):
    reports = check(case, mu_gradient, tile=SMALL, splits=2, order=2)
    assert {kernel for kernel, _ in reports} == ALL_KERNELS | ({"dau_transpose_pointers"} if case.ragged else set())


@pytest.mark.parametrize("order", [0, 1, 2])
def test_copies_that_are_done_when_they_are_asked_for_race_with_nothing_either(order):
    check(CASES[0], "gaussian", tile=SMALL, macros={"DAU_ASYNC_COPIES": 0}, order=order)


def costs(case, mu_gradient, tile):
    """The cost of the aggregation kernels' requests: their only loads of shared memory are units' taps."""
    reports = check(case, mu_gradient, tile=tile)
    return [report.cost for kernel, report in reports if kernel in ("dau_forward", "dau_backward")]


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("tile", TILES.values(), ids=TILES.keys())
def test_reads_of_windows_have_no_bank_conflict_for_any_displacement(tile, mu_gradient):
    case = Case("displacements", batch=1, in_channels=3, out_channels=4, units=5, size=(16, 35), displacement=3.0)
    for cost in costs(case, mu_gradient, tile):
        assert cost["shared_load"] == 1
        assert cost["shared_store"] <= 1.25
        # A request copies four rows of eight words, which may begin anywhere: at most two sectors each.
        assert cost["copy_load"] <= 8


@pytest.mark.parametrize("kernel", ["dau_far_forward", "dau_far_backward", "dau_far_gradients"])
def test_where_no_unit_is_far_the_kernels_for_far_units_ask_for_the_count_only(kernel):
    library, far = Kernels(checked=True).library("far", DAU_STORAGE=0), torch.zeros(1, dtype=torch.int32)
    library.watch({"far": far})
    # All other pointers are null.
    library.launch(kernel, [3], [64], 64, [Sizes(), far, *[None] * 9])
    report = library.report()
    assert report.is_clean() and report.cost == {"global_load": 1}


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("halo", [2, 8])
@pytest.mark.parametrize("tile", TILES.values(), ids=TILES.keys())
def test_full_blocks_and_other_halos_are_as_clean(tile, halo, mu_gradient):
    case = Case("full", batch=2, in_channels=4, out_channels=17, units=3, size=(19, 35), displacement=float(halo))
    one_stage = {**vars(tile), "warps": 16, "halo": halo, "channels": 1}
    assert all(cost["shared_load"] == 1 for cost in costs(case, mu_gradient, Tile(**one_stage)))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_three_stages_are_as_clean_in_every_order(order):
    case = Case("stages", batch=2, in_channels=7, out_channels=6, size=(9, 37), displacement=3.0)
    check(case, "gaussian", tile=Tile(4, 4, 4, channels=3, stages=3), order=order)
