"""The emulator: what it computes, and what it finds in kernels that are wrong on purpose."""

from pathlib import Path

import pytest
import torch
from emulator.build import NEEDS_COMPILER
from emulator.library import Library

HERE = Path(__file__).parent / "emulator"
X = torch.arange(32.0)
pytestmark = NEEDS_COMPILER


def samples(checked=False, **macros):
    return Library("samples", macros, checked, sources=HERE)


def findings(kernel, *, grid=1, shared=128, more=()):
    """Launch a sample on ``X`` in a checked build."""
    library, out = samples(checked=True), torch.full([32], torch.nan)
    arguments = [out] if kernel in ("same_place", "divergent") else [X, out, *more]
    library.watch({"in": X, "out": out})
    library.launch(kernel, [grid], [32], shared, arguments)
    return library.report()


@pytest.mark.parametrize("fibers", [{}, {"EMULATOR_UCONTEXT": 1}], ids=["by hand", "ucontext"])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_copies_barriers_and_shuffles_do_what_a_gpu_does(fibers, order):
    library, out = samples(**fibers), torch.full([32], torch.nan)
    library.launch("reverse", [1], [32], 128, [X, out], order)
    assert torch.equal(out, X.flip(0))  # in[0] is outside, and zero
    library.launch("sum_of_warp", [1], [32], 0, [X, out], order)
    assert torch.equal(out, torch.full([32], 2 * X.sum().item()))


@pytest.mark.slow
def test_a_right_kernel_has_no_findings():
    assert findings("reverse").is_clean()
    library, total = samples(checked=True), torch.zeros(1, dtype=torch.int32)
    library.watch({"total": total})
    library.launch("count", [5], [64], 0, [total])
    assert total.item() == 320
    assert library.report().is_clean()


@pytest.mark.parametrize(
    ("kernel", "counter", "words"),
    [
        ("reverse_without_barrier", "races", "shared memory"),
        pytest.param("reverse_without_wait", "uninitialised", "shared memory", marks=pytest.mark.slow),
        pytest.param("refill_too_early", "races", "write to shared memory", marks=pytest.mark.slow),
        pytest.param("past_the_end", "out_of_bounds", "unknown memory", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_kernel_is_found(kernel, counter, words):
    if kernel == "past_the_end":
        # One word more than the kernel is told of, so that nothing else is overwritten.
        memory = torch.zeros(33)
        library = samples(checked=True)
        library.watch({"in": X, "out": memory[:32]})
        library.launch(kernel, [1], [32], 0, [X, memory])
        report = library.report()
    else:
        report = findings(kernel)
    assert getattr(report, counter) > 0
    assert words in report.findings


def test_blocks_that_write_to_one_place_race_and_launches_do_not():
    assert findings("same_place").is_clean()
    assert findings("same_place", grid=2).races == 32
    library, out = samples(checked=True), torch.zeros(32)
    library.watch({"out": out})
    for _ in range(2):
        library.launch("same_place", [1], [32], 0, [out])
    assert library.report().is_clean()


def test_what_a_kernel_should_fill_and_does_not_is_counted():
    library, out = samples(checked=True), torch.zeros(40)
    library.watch({"out": out}, written=["out"])
    library.launch("same_place", [1], [32], 0, [out])
    assert library.report().unwritten == 8 * 2  # floats of two grains


def test_a_wait_that_is_forgotten_leaves_nan_in_the_plain_build():
    out = torch.zeros(32)
    samples().launch("reverse_without_wait", [1], [32], 128, [X, out])
    assert out.isnan().all()


def test_shared_memory_beyond_what_was_asked_for_is_out_of_bounds():
    assert findings("reverse_without_barrier", shared=64).out_of_bounds > 0


@pytest.mark.parametrize(
    ("words", "wavefronts", "sectors"), [(1, 1, 4), (2, 2, 8), (4, 4, 16), (32, 32, 32), (33, 1, 32)]
)
def test_bank_conflicts_and_sectors_are_counted(words, wavefronts, sectors):
    library, image, out = samples(checked=True), torch.zeros(32 * words), torch.zeros(32)
    library.watch({"in": image, "out": out})
    library.launch("read_apart", [1], [32], 4 * 32 * words, [image, out, words])
    cost = library.report().cost
    # torch aligns memory to 64 bytes, so 32 words take 4 sectors.
    assert (cost["shared_load"], cost["global_load"]) == (wavefronts, sectors)
    assert (cost["shared_store"], cost["global_store"]) == (1, 4)


@pytest.mark.parametrize(
    ("kernel", "grid", "block", "shared", "message"),
    [
        ("divergent", [1], [32], 0, "divergent: divergent barrier: a thread waits at .*samples.cu:44"),
        ("two_barriers", [1], [32], 0, r"divergent __syncthreads: \S*samples.cu:49 and \S*samples.cu:52"),
        ("two_shuffles", [1], [32], 0, r"divergent shuffle: \S*samples.cu:59 and \S*samples.cu:59$"),
        ("two_masks", [1], [32], 0, "divergent shuffle: .*for lanes ffffffff and ffff0000"),
        ("own_mask", [1], [32], 0, "a lane outside its own mask at"),
        ("other_half", [1], [32], 0, "a shuffle from a lane that gives nothing at"),
        ("from_who_has_left", [1], [32], 0, "a shuffle from a lane that gives nothing at"),
        ("nothing", [1], [32], 0, "nothing: no kernel called nothing"),
        ("divergent", [1], [1025], 0, "a block has 1 to 1024 threads, not 1025"),
        ("divergent", [0], [32], 0, "a grid has 1 to"),
        ("divergent", [1], [32], 1 << 20, "1048576 bytes of shared memory are too many"),
    ],
)
def test_an_impossible_launch_is_refused_by_name(kernel, grid, block, shared, message):
    with pytest.raises(RuntimeError, match=message):
        samples().launch(kernel, grid, block, shared, [torch.zeros(32)])


def test_halves_of_a_warp_meet_each_on_its_own():
    out = torch.zeros(32)
    samples().launch("halves", [1], [32], 0, [out])
    lanes = torch.arange(32)
    assert torch.equal(out, torch.where(lanes < 16, lanes ^ 1, lanes ^ 3).float())


def test_what_is_not_aligned_as_a_gpu_needs_it_is_found():
    library, out = samples(checked=True), torch.zeros(32)
    library.watch({"out": out})
    library.launch("four_at_once", [1], [32], 0, [out, 4])
    assert library.report().is_clean()
    with pytest.raises(RuntimeError, match=r"four_at_once: misaligned: .* at \S*storage.cuh"):
        library.launch("four_at_once", [1], [32], 0, [out, 2])


@pytest.mark.parametrize(("storage", "dtype"), [(1, torch.float16), (2, torch.bfloat16)], ids=["half", "bfloat16"])
def test_conversions_are_those_of_torch_for_every_half_and_round_to_nearest_even(storage, dtype):
    stored = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(dtype)
    # Values between neighbours: a quarter, a half (the even one wins) and three quarters of the way, and far outside.
    wide = stored.float()
    gap = (
        torch.nextafter(wide, wide + 1) - wide if dtype == torch.float32 else (wide.abs() * torch.finfo(dtype).eps / 4)
    )
    values = torch.cat([wide, wide + gap, wide + 2 * gap, wide - gap, wide * 1.5, wide * 1e-3, wide * 3e5])
    values = torch.cat(
        [values, torch.tensor([torch.inf, -torch.inf, torch.nan, 65519.99, 65520, 1e-8, 2.0**-25, 2.0**-24])]
    )
    values = torch.cat([values, values.new_zeros(-len(values) % 128)])
    stored = torch.cat([stored, stored.new_zeros(len(values) - len(stored))])
    widened, narrowed = torch.zeros(len(values)), torch.zeros(len(values), dtype=dtype)
    arguments = [stored, values, widened, narrowed]
    samples(DAU_STORAGE=storage).launch("convert", [len(values) // 128], [128], 0, arguments)
    assert torch.equal(widened.nan_to_num(7), stored.float().nan_to_num(7))
    expected = values.to(dtype)
    assert torch.equal(narrowed.isnan(), expected.isnan())
    numbers = ~expected.isnan()
    assert torch.equal(narrowed[numbers].view(torch.int16), expected[numbers].view(torch.int16))
