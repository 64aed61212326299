"""The C++ kernels: every operator case, every instruction set, random sizes, threads, and bad input."""

import ctypes
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from bounds import EPS, LEAVES, truth_and_bounds
from cases import CASES, UNBLURRED, Case
from hypothesis import given, settings
from hypothesis import strategies as st

from daukit import ops
from daukit.ops import backend, dau_conv2d, library

# Without a compiler there is no library, and nothing here to test; CI makes sure that there is one.
pytestmark = pytest.mark.skipif(ops.backends()["native"] != "available", reason=ops.backends()["native"])


def usable():
    if ops.backends()["native"] != "available":
        return [b""]
    return [name for name in (b"avx512", b"avx2", b"generic") if library.load().daukit_use_instruction_set(name)]


INSTRUCTION_SETS = usable()
BEST = INSTRUCTION_SETS[0]
if BEST:
    library.load().daukit_use_instruction_set(BEST)


@pytest.fixture(params=INSTRUCTION_SETS, ids=lambda name: name.decode())
def instruction_set(request):
    library.load().daukit_use_instruction_set(request.param)
    yield request.param
    library.load().daukit_use_instruction_set(BEST)


def run(case, arguments, mu_gradient, learned):
    """Output, output gradient, and gradients for input, weight, mu, bias and a learned sigma by the native kernels."""
    arguments = {**arguments, "mu_gradient": mu_gradient}
    arguments["mu"].requires_grad_(case.moves(mu_gradient))
    leaves = [arguments[name] for name in LEAVES if arguments[name] is not None and arguments[name].requires_grad]
    arguments["sigma"] = torch.tensor(case.sigma, requires_grad=True) if learned else case.sigma
    leaves += [arguments["sigma"]] * learned
    inputs = [arguments.pop(name) for name in LEAVES]
    with backend("native"):
        output = dau_conv2d(*inputs, **arguments)
    error = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).float()
    return output, error, torch.autograd.grad(output, leaves, error)


TRUTHS = {}


def truth(case, arguments, error, mu_gradient, learned):
    """Results in float64 and their bounds: the same for every instruction set, and computed once."""
    key = repr(case), mu_gradient, learned
    if key not in TRUTHS:
        TRUTHS[key] = truth_and_bounds(case, arguments, error, mu_gradient, learned)[:2]
    return TRUTHS[key]


def check(case, mu_gradient, learned=True):
    arguments = case.arguments(torch.float32)
    output, error, grads = run(case, arguments, mu_gradient, learned)
    exact, bounds = truth(case, arguments, error, mu_gradient, learned)
    names = LEAVES[:3] if case.moves(mu_gradient) else LEAVES[:2]
    results = {"output": output, **dict(zip(names, grads[: len(names)], strict=True))}
    if learned:
        results["sigma"] = grads[-1]
    for (name, result), expected, bound in zip(results.items(), exact, bounds, strict=learned):
        assert result.dtype == torch.float32
        excess = (result.detach().double() - expected).abs() - bound
        assert (excess <= 0).all(), f"{name}: {float(excess.max())} above its bound"


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_value_and_gradients_stay_within_the_bound_of_their_operation_count(case, mu_gradient, instruction_set):
    check(case, mu_gradient)


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("case", UNBLURRED, ids=lambda case: case.name)
def test_without_a_blur_they_stay_within_it_too(case, mu_gradient, instruction_set):
    check(case, mu_gradient, learned=False)


BIG = [
    Case("sixteen_images", batch=17, in_channels=9, out_channels=13, size=(9, 19)),
    Case("tiles", batch=1, in_channels=5, out_channels=3, size=(37, 41), displacement=4.0),
    Case("blocks", batch=2, in_channels=40, out_channels=70, size=(5, 6)),
    Case("far_blocks", batch=3, in_channels=4, out_channels=5, units=5, size=(33, 29), displacement=20.0),
    Case("integer_far", batch=3, in_channels=4, out_channels=5, size=(21, 20), displacement=15.0, integer=True),
    Case(
        "ragged_groups_far",
        in_channels=6,
        out_channels=10,
        units=3,
        groups=2,
        size=(40, 9),
        displacement=12,
        ragged=True,
    ),
    Case("dilated_odd", batch=3, size=(17, 10), options={"dilation": (3, 4), "stride": (2, 1)}),
    Case("integer_tiles", batch=1, in_channels=5, out_channels=3, size=(37, 41), displacement=4.0, integer=True),
    Case("integer_blocks", batch=17, in_channels=40, out_channels=70, units=3, size=(5, 6), integer=True, ragged=True),
]
# One of them takes as long in the reference as all others.
MARKED = [pytest.param(case, marks=pytest.mark.slow if case.name == "far_blocks" else ()) for case in BIG]


@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("case", MARKED, ids=lambda case: case.name)
def test_several_tiles_and_blocks_stay_within_the_bound(case, mu_gradient, learned, instruction_set):
    check(case, mu_gradient, learned)


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("case", [case for case in MARKED if "far" in case.values[0].name], ids=lambda case: case.name)
def test_several_passes_stay_within_the_bound(case, mu_gradient, instruction_set, narrow_passes):
    check(case, mu_gradient)


def test_units_at_the_ends_of_what_one_pass_reads_are_all_read(instruction_set):
    # One pixel alone is not zero, so that an output says which units read it: the values need no other reference.
    for taps in (71, 72, 73, 145):
        last = (taps - 1) // 2
        first = last - taps + 1
        x = torch.zeros(1, 1, 161, 161)
        x[0, 0, 80, 80] = 1
        corners = [(y, x) for y in (first, last) for x in (first, last)]
        mu = torch.tensor(corners, dtype=torch.float32).T.reshape(2, 1, 1, 4)
        with backend("native"):
            out = dau_conv2d(x, torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), mu, sigma=0)
        expected = torch.zeros_like(out)
        for weight, (down, right) in enumerate(corners, start=1):
            expected[0, 0, 80 - down, 80 - right] = weight
        assert torch.equal(out, expected)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    batch=st.integers(0, 33),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    units=st.integers(1, 3),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    displacement=st.sampled_from([0.5, 4.0, 22.0]),
    groups=st.integers(1, 2),
    ragged=st.booleans(),
    integer=st.booleans(),
    sigma=st.sampled_from([0.0, 0.5]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    mu_gradient=st.sampled_from(["gaussian", "exact"]),
    reach=st.sampled_from([0, 16]),
)
def test_random_shapes_stay_within_the_bound(
    batch, channels, units, size, displacement, groups, ragged, integer, sigma, stride, dilation, mu_gradient, reach
):
    inputs, outputs = (groups * c for c in channels)
    case = Case(
        "random",
        batch=batch,
        in_channels=inputs,
        out_channels=outputs,
        units=units,
        size=size,
        groups=groups,
        displacement=displacement,
        ragged=ragged,
        integer=integer,
        sigma=sigma,
        options={"stride": stride, "dilation": dilation},
    )
    library.load().daukit_use_reach(reach)
    try:
        check(case, mu_gradient, learned=sigma > 0)
    finally:
        library.load().daukit_use_reach(0)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_results_repeat_to_the_bit_and_do_not_depend_on_calls_in_other_threads():
    x, w, mu = noise(4, 24, 20, 20), noise(30, 24, 2), 3 * noise(2, 30, 24, 2)

    def once(_):
        leaves = [t.clone().requires_grad_() for t in (x, w, mu)]
        out = dau_conv2d(*leaves)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), leaves)]

    with backend("native"):
        expected = once(0)
        with ThreadPoolExecutor(4) as pool:
            for results in pool.map(once, range(8)):
                assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


def test_the_number_of_threads_changes_nothing_but_rounding():
    x, w, mu = noise(2, 40, 12, 12), noise(40, 40, 2), 3 * noise(2, 40, 40, 2)
    threads, outputs = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with backend("native"):
                outputs.append(dau_conv2d(x, w, mu))
    finally:
        torch.set_num_threads(threads)
    scale = torch.tensor(float(dau_conv2d(x.abs(), w.abs(), mu).max()))
    assert all((o - outputs[0]).abs().max() <= 80 * EPS * scale for o in outputs[1:])


@pytest.mark.slow
def test_memory_does_not_grow_from_call_to_call():
    script = """
import resource, torch
from daukit.ops import backend, dau_conv2d
x, w, mu = torch.randn(8, 64, 32, 32), torch.randn(64, 64, 2), torch.randn(2, 64, 64, 2)
leaves = [t.requires_grad_() for t in (x, w, mu)]
def call():
    with backend("native"):
        torch.autograd.grad(dau_conv2d(*leaves).sum(), leaves)
for _ in range(5): call()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(60): call()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # One call's tensors are 14 MiB: a leak of any of them would show 60 times.
    assert int(grown.stdout) < 16 * 1024


def test_channels_last_and_expanded_gradients_are_read_right():
    x, w, mu = noise(2, 6, 9, 9), noise(4, 6, 2), noise(2, 4, 6, 2)
    with backend("native"):
        plain, last = (t.requires_grad_() for t in (x.clone(), x.clone().to(memory_format=torch.channels_last)))
        outputs = [dau_conv2d(t, w, mu) for t in (plain, last)]
        assert torch.equal(*outputs)
        assert outputs[1].is_contiguous()
        grads = [torch.autograd.grad(o.sum(), t)[0] for o, t in zip(outputs, (plain, last), strict=True)]
    assert torch.equal(*grads)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_displacements_that_are_not_finite_never_reach_the_library(bad):
    mu = noise(2, 4, 3, 2)
    mu[0, 1, 2, 1] = bad
    with backend("native"), pytest.raises(ValueError, match="1 NaN or infinite displacements of 48"):
        dau_conv2d(noise(1, 3, 5, 5), noise(4, 3, 2), mu)


def test_float64_takes_the_dense_path():
    x, w, mu = (t.double() for t in (noise(1, 3, 5, 5), noise(4, 3, 2), noise(2, 4, 3, 2)))
    with backend("native"):
        native_output = dau_conv2d(x, w, mu)
    with backend("dense"):
        assert torch.equal(dau_conv2d(x, w, mu), native_output)


def test_a_library_of_another_version_or_no_library_is_refused_by_name(tmp_path, monkeypatch):
    import daukit

    found = next(Path(p) / "libdaukit.so" for p in daukit.__path__ if (Path(p) / "libdaukit.so").is_file())
    monkeypatch.setattr(daukit, "__path__", [str(tmp_path)])
    library.load.cache_clear()
    try:
        assert "was not built; install a C++ compiler" in library.state()
        (tmp_path / "libdaukit.so").write_bytes(b"\x7fELF of another architecture")
        library.load.cache_clear()
        assert "unavailable" in library.state() and "libdaukit.so" in library.state()
        (tmp_path / "libdaukit.so").write_bytes(found.read_bytes())
        monkeypatch.setattr(library, "ABI_VERSION", 999)
        library.load.cache_clear()
        assert "has interface version 3, not 999" in library.state()
    finally:
        monkeypatch.undo()
        library.load.cache_clear()
    assert ops.backends()["native"] == "available"


def test_one_openmp_runtime_serves_torch_and_the_kernels():
    library.load()
    maps = Path(f"/proc/{os.getpid()}/maps").read_text(encoding="utf-8").splitlines()
    assert len({line.split()[-1] for line in maps if "libgomp" in line}) == 1
    assert isinstance(library.load(), ctypes.CDLL)


def chosen(x, w, mu, **options):
    """The backend whose result the automatic choice gives: the two differ in their rounding."""
    automatic, same = dau_conv2d(x, w, mu, **options), []
    for name in ("native", "dense"):
        with backend(name):
            same += [name] if torch.equal(dau_conv2d(x, w, mu, **options), automatic) else []
    return same


def test_the_automatic_choice_is_native_below_48_units_a_pair_and_output():
    x = noise(1, 4, 15, 15)

    def units(count):
        return noise(8, 4, count), 2 * noise(2, 8, 4, count)

    assert chosen(x, *units(2)) == ["native"]
    assert chosen(x, *units(47)) == ["native"]
    assert chosen(x, *units(48)) == ["dense"]
    assert chosen(x, *units(11), stride=2) == ["native"]
    assert chosen(x, *units(12), stride=2) == ["dense"]
    pointers = torch.tensor([0, *[80] * 32], dtype=torch.int32)  # 80 units in 32 pairs: 2.5 a pair
    assert chosen(x, noise(80), noise(2, 80), unit_ptr=pointers) == ["native"]


class InWorker(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        with backend("native"):
            return dau_conv2d(noise(1, 20, 9, 9, seed=index), noise(20, 20, 2), 3 * noise(2, 20, 20, 2))


def test_it_works_in_workers_of_a_data_loader_after_threads_have_run():
    expected = [InWorker()[i] for i in range(4)]
    results = torch.utils.data.DataLoader(InWorker(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    for result, one in zip(results, expected, strict=True):
        assert (result - one).abs().max() <= 200 * EPS * one.abs().max()


def beside_the_output(shape, displacement):
    """Bytes that a forward of units within ``displacement`` takes at its peak, without its output."""
    script = f"""
import pathlib, torch
from daukit.ops import backend, dau_conv2d
N, C, O, H = {shape}
def status(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))
def call(N, C, O, H):
    x, w = torch.zeros(N, C, H, H).normal_(), torch.zeros(O, C, 2).normal_()
    mu = torch.zeros(2, O, C, 2).uniform_(-{displacement}, {displacement})
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    with backend("native"):
        dau_conv2d(x, w, mu)
    return status("VmHWM") - before
call(1, 1, 1, 1)
print(call(N, C, O, H))
"""
    taken = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    batch, _, outputs, size = shape
    return int(taken.stdout) - 4 * batch * outputs * size**2


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 96, 96, 32), (8, 512, 512, 7), (1, 32, 32, 256)], ids=str)
def test_a_forward_takes_at_most_three_times_its_tensors(shape):
    batch, inputs, outputs, size = shape
    both = 4 * batch * (inputs + outputs) * size**2
    assert beside_the_output(shape, displacement=4) <= 3 * both


@pytest.mark.slow
def test_far_units_of_many_channels_take_bounded_memory():
    # With a halo for all of them, the planes would take 344 MB.
    assert beside_the_output((16, 512, 64, 40), displacement=32) <= 270 * 2**20
