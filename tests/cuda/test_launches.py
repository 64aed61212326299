"""The CUDA backend's Python side, launch for launch, with the kernels on the CPU's emulator in place of a GPU."""

import pytest
import torch
from bounds import LEAVES, truth_and_bounds
from cases import CASES, Case
from emulator.build import NEEDS_COMPILER
from observed import Observed

from daukit.errors import CudaError, CudaUnavailableError
from daukit.ops import backend, backends, dau_conv2d
from daukit.ops.cuda import chooser, passes
from daukit.ops.cuda.call import Call, Units, plan_of
from daukit.ops.cuda.pointers import transposed_pointers
from daukit.ops.geometry import Geometry
from daukit.ops.kernels import blur_radius

pytestmark = NEEDS_COMPILER
BY_NAME = {case.name: case for case in CASES}


def run(case, arguments, mu_gradient):
    """Output, output gradient, and gradients for input, weight, mu, bias and a learned sigma."""
    arguments = {**arguments, "mu_gradient": mu_gradient}
    leaves = [arguments[name] for name in LEAVES if arguments[name] is not None]
    arguments["sigma"] = torch.tensor(case.sigma, requires_grad=True)
    leaves.append(arguments["sigma"])
    inputs = [arguments.pop(name) for name in LEAVES]
    with backend("cuda"):
        output = dau_conv2d(*inputs, **arguments)
    error = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).float()
    return output, error, torch.autograd.grad(output, leaves, error)


def check(case, mu_gradient):
    arguments = case.arguments(torch.float32)
    output, error, grads = run(case, arguments, mu_gradient)
    exact, bounds, _ = truth_and_bounds(case, arguments, error, mu_gradient, learned=True)
    results = {"output": output, **dict(zip(LEAVES[:3], grads[:3], strict=True)), "sigma": grads[-1]}
    for (name, result), expected, bound in zip(results.items(), exact, bounds, strict=True):
        assert result.dtype == torch.float32
        excess = (result.detach().double() - expected).abs() - bound
        assert (excess <= 0).all(), f"{name}: {float(excess.max())} above its bound"


@pytest.mark.parametrize("mu_gradient", [pytest.param("gaussian", marks=pytest.mark.slow), "exact"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_value_and_gradients_stay_within_the_bound_of_their_operation_count(case, mu_gradient, gpu, few_instances):
    check(case, mu_gradient)
    assert 0 in (case.batch, *case.size) or {"dau_forward", "dau_backward"} <= {
        launch.kernel for launch in gpu.launched
    }


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("name", ["plain", "ragged_groups", "dilation"])
def test_sums_split_into_parts_stay_within_the_same_bound(name, mu_gradient, gpu, few_instances, monkeypatch):
    monkeypatch.setattr(chooser, "SPLITS", (2,))
    case = BY_NAME[name]
    channels = 3 * case.groups  # two channels a stage: two stages to split
    check(Case(name, in_channels=channels, out_channels=channels, groups=case.groups, ragged=case.ragged,
                       units=case.units, options=case.options), mu_gradient)  # fmt: skip
    assert sum(launch.kernel == "dau_sum_splits" for launch in gpu.launched) == 2


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
def test_sums_of_several_strips_in_less_memory_stay_within_the_same_bound(mu_gradient, gpu, few_instances, monkeypatch):
    monkeypatch.setattr(passes, "SUMS_BYTES", 0)
    check(Case("strips", batch=64, in_channels=3, out_channels=4, size=(9, 19)), mu_gradient)
    (launch,) = [launch for launch in gpu.launched if launch.kernel == "dau_backward"]
    macros = dict(launch.source.macros)
    # Tiles of four by four outputs: three rows of five for each image, 32 a block.
    assert macros["DAU_SEVERAL_STRIPS"] == 1 and launch.grid[0] <= 64 * 3 * 5 / 32 / 2


@pytest.mark.slow
@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_inputs_gradient_alone_stays_within_its_bound(case, splits, gpu, few_instances, monkeypatch):
    arguments = case.arguments(torch.float32)
    frozen = {k: v.detach() if isinstance(v, torch.Tensor) and k != "input" else v for k, v in arguments.items()}
    with backend("cuda"):
        output = dau_conv2d(**frozen)
    error = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).float()
    if case.out_channels // case.groups > 2:  # two stages of two channels
        monkeypatch.setattr(chooser, "SPLITS", (splits,))
    chooser.choose.cache_clear()
    plan_of.cache_clear()
    (grad,) = torch.autograd.grad(output, frozen["input"], error)
    exact, bounds, _ = truth_and_bounds(case, arguments, error, "gaussian", learned=False)
    assert ((grad.double() - exact[1]).abs() <= bounds[1]).all()
    assert not any(launch.kernel == "dau_backward" for launch in gpu.launched)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_give_the_float32_sums_of_their_values(dtype, gpu, few_instances):
    # All units near: what far ones give is added to an output that is already rounded.
    a = BY_NAME["strided_groups"].arguments(torch.float32)
    options = {"groups": a["groups"], "stride": a["stride"], "dilation": a["dilation"], "max_displacement": 8}
    half = a["input"].detach().to(dtype).requires_grad_()
    full = half.detach().float().requires_grad_()
    results = []
    with backend("cuda"):
        for image in (half, full):
            output = dau_conv2d(image, a["weight"], a["mu"], a["bias"], **options)
            error = torch.cos(torch.arange(output.numel())).reshape(output.shape).to(dtype)
            leaves = [image, a["weight"], a["mu"]]
            results.append((output, *torch.autograd.grad(output, leaves, error.to(output.dtype))))
    for actual, expected in zip(*results, strict=True):
        assert torch.equal(actual, expected.to(actual.dtype))
    assert [t.dtype for t in results[0]] == [dtype, dtype, torch.float32, torch.float32]


def test_autocast_casts_the_input_only(gpu, few_instances):
    a = BY_NAME["plain"].arguments(torch.float32)
    with backend("cuda"):
        with torch.autocast("cpu", torch.bfloat16):
            output = dau_conv2d(a["input"], a["weight"], a["mu"])
        assert torch.equal(output, dau_conv2d(a["input"].bfloat16(), a["weight"], a["mu"]))


def test_launches_depend_on_shapes_only(gpu, few_instances):
    a = BY_NAME["plain"].arguments(torch.float32)
    launches = []
    for mu in (torch.zeros_like(a["mu"]), 100 * a["mu"].detach()):
        gpu.launched.clear()
        with backend("cuda"):
            dau_conv2d(a["input"], a["weight"], mu.requires_grad_()).sum().backward()
        launches.append(list(gpu.launched))
    assert launches[0] == launches[1] and launches[0]


@pytest.mark.parametrize(("limit", "halo"), [(None, 4), (0.5, 4), (4.0, 4), (4.5, 8), (6, 8), (9, 16), (1e9, 16)])
def test_the_limit_of_displacements_chooses_the_halo_and_changes_no_result(limit, halo, gpu, few_instances):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 1, 20, 9, generator=generator), torch.randn(1, 1, 2, generator=generator)
    mu = torch.tensor([[5.25, -1.5], [2.0, 3.75]]).reshape(2, 1, 1, 2)
    with backend("cuda"):
        output = dau_conv2d(x, weight, mu, max_displacement=limit)
    tiles = [dict(launch.source.macros) for launch in gpu.launched if launch.kernel == "dau_forward"]
    assert [tile["DAU_HALO"] for tile in tiles] == [halo]
    with backend("reference"):
        expected = dau_conv2d(x.double(), weight.double(), mu.double())
    # 49 + 49 taps of two blurs, a cell and two units, none of them above 3.
    assert (output - expected).abs().max() <= 3 * 104 * torch.finfo(torch.float32).eps * x.abs().max()


@pytest.mark.parametrize("shape", [(0, 3, 7, 9), (2, 3, 0, 9), (2, 3, 7, 0)])
def test_an_empty_image_launches_nothing(shape, gpu):
    x, weight = torch.zeros(shape, requires_grad=True), torch.ones(5, 3, 2, requires_grad=True)
    with backend("cuda"):
        output = dau_conv2d(x, weight, torch.zeros(2, 5, 3, 2))
        output.sum().backward()
    assert output.shape == (shape[0], 5, *shape[2:]) and torch.equal(weight.grad, torch.zeros_like(weight))
    assert not gpu.launched


@pytest.mark.parametrize("unit_ptr", [None, torch.zeros(16, dtype=torch.int32)], ids=["dense", "ragged"])
def test_a_layer_without_units_gives_its_bias_and_no_gradient(unit_ptr, gpu, few_instances):
    shape = (5, 3, 0) if unit_ptr is None else (0,)
    x, bias = torch.ones(2, 3, 7, 9, requires_grad=True), torch.arange(5.0)
    weight, mu = torch.zeros(shape, requires_grad=True), torch.zeros(2, *shape, requires_grad=True)
    with backend("cuda"):
        output = dau_conv2d(x, weight, mu, bias, unit_ptr=unit_ptr)
        output.sum().backward()
    assert torch.equal(output, bias[:, None, None].expand_as(output)) and not x.grad.any()


def test_the_same_call_gives_the_same_bits(gpu, few_instances):
    a = BY_NAME["many_units"].arguments(torch.float32)
    results = []
    for _ in range(2):
        with backend("cuda"):
            output = dau_conv2d(a["input"], a["weight"], a["mu"])
            results.append((output, *torch.autograd.grad(output.sum(), [a["input"], a["weight"], a["mu"]])))
    assert all(map(torch.equal, *results))


# As in test_ops_torch.py: torch hides what it says there, which an error cannot be.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")
@pytest.mark.parametrize("name", ["plain", "ragged_groups"])
def test_opcheck_accepts_both_operators(name, gpu, few_instances):
    case = BY_NAME[name]
    a = case.arguments(torch.float32)
    sigma, stride = torch.tensor(0.5, requires_grad=True), (a.get("stride", 1),) * 2
    options = (3, stride, (1, 1), case.groups, 4, "gaussian", "cuda")
    arguments = (a["input"], a["weight"], a["mu"], sigma, a["bias"], a["unit_ptr"], *options)
    torch.library.opcheck(torch.ops.daukit.dau_conv2d.default, arguments)
    with torch.no_grad():
        error = torch.ones_like(torch.ops.daukit.dau_conv2d(*arguments))
    leaves = [t if t is None else t.detach() for t in (a["input"], a["weight"], a["mu"], sigma, a["unit_ptr"])]
    for mask in ([True] * 5, [False, True, False, True, False]):
        torch.library.opcheck(torch.ops.daukit.dau_conv2d_backward.default, (error, *leaves, *options, mask))


@pytest.mark.slow
def test_a_compiled_layer_launches_the_same_kernels(gpu, few_instances):
    from daukit.nn import DAUConv2d

    layer, x = DAUConv2d(3, 5, 2), torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    results, launches = [], []
    with backend("cuda"):
        for function in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
            gpu.launched.clear()
            output = function(x)
            results.append((output, *torch.autograd.grad(output.square().sum(), list(layer.parameters()))))
            launches.append(list(gpu.launched))
    assert launches[0] == launches[1]
    assert all(map(torch.equal, *results))


def test_a_layer_in_a_distributed_wrapper_learns_the_same(gpu, few_instances):
    from daukit.nn import DAUConv2d

    distributed = torch.distributed
    layer, x = DAUConv2d(3, 5, 2), torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    grads = []
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with backend("cuda"):
            for model in (layer, torch.nn.parallel.DistributedDataParallel(layer)):
                layer.zero_grad()
                model(x).square().sum().backward()
                grads.append([parameter.grad.clone() for parameter in layer.parameters()])
    finally:
        distributed.destroy_process_group()
    assert all(map(torch.equal, *grads))


def refuse(*_):
    raise CudaUnavailableError("forward.cu does not compile")


def test_kernels_that_do_not_compile_give_way_to_the_dense_path_with_one_warning(gpu, monkeypatch, recwarn):
    a = BY_NAME["plain"].arguments(torch.float32)
    monkeypatch.setattr(gpu, "launch", refuse)
    with backend("dense"):
        expected = dau_conv2d(a["input"], a["weight"], a["mu"])
    with backend("cuda"):
        with pytest.warns(
            RuntimeWarning, match=r"dense path, without daukit's CUDA kernels, on cpu: forward.cu does not compile"
        ):
            first = dau_conv2d(a["input"], a["weight"], a["mu"])
        first.sum().backward()  # filterwarnings = error: a second warning would raise
        assert torch.equal(dau_conv2d(a["input"], a["weight"], a["mu"]), expected) and torch.equal(first, expected)
    assert backends()["cuda"] == "unavailable: forward.cu does not compile"


def test_a_kernel_that_fails_is_an_exception_that_names_it(gpu, few_instances, monkeypatch):
    run = gpu.launch
    monkeypatch.setattr(
        gpu, "launch", lambda device, launch, *rest: run(device, launch._replace(kernel="dau_missing"), *rest)
    )
    with backend("cuda"), pytest.raises(CudaError, match="dau_missing"):
        dau_conv2d(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 1), torch.zeros(2, 1, 1, 1))


def test_what_the_kernels_do_not_know_takes_the_dense_path(gpu):
    a = BY_NAME["plain"].arguments()
    with backend("cuda"):
        double = dau_conv2d(a["input"], a["weight"], a["mu"])
        wide = dau_conv2d(a["input"].float(), a["weight"].float(), a["mu"].float(), sigma=30.0)
    with backend("dense"):
        assert torch.equal(double, dau_conv2d(a["input"], a["weight"], a["mu"]))
        assert torch.equal(wide, dau_conv2d(a["input"].float(), a["weight"].float(), a["mu"].float(), sigma=30.0))
    assert not gpu.launched


@pytest.mark.parametrize(
    ("shape", "outputs", "options", "match"),
    [
        ((1, 1, 50000, 50000), 1, {}, r"in_channels \(1\) \* \(height \* width \+ 4096\) = 2500004096 must be below"),
        ((1, 1, 40000, 40000), 2, {}, r"out_channels \(2\) .* = 3200008192 must be below"),
        ((1, 70000, 1, 1), 70000, {"groups": 70000}, r"take 65535 blocks of 16 channels of a group, got 70000"),
    ],
)
def test_too_large_an_image_is_refused_before_any_launch(shape, outputs, options, match, gpu):
    pairs = outputs * shape[1] // options.get("groups", 1) // outputs
    with backend("cuda"), pytest.raises(ValueError, match=match):
        dau_conv2d(
            torch.zeros(1).expand(shape), torch.zeros(outputs, pairs, 1), torch.zeros(2, outputs, pairs, 1), **options
        )
    assert not gpu.launched


@pytest.mark.parametrize("name", ["weight", "mu", "bias"])
def test_tensors_on_two_devices_are_refused_before_any_launch(name, gpu):
    tensors = {"input": torch.zeros(1, 1, 4, 4), "weight": torch.zeros(1, 1, 1), "mu": torch.zeros(2, 1, 1, 1)}
    tensors["bias"] = torch.zeros(1)
    with backend("cuda"), pytest.raises(ValueError, match=f"{name} is on meta but input is on cpu; move one"):
        dau_conv2d(**{**tensors, name: tensors[name].to("meta")})
    assert not gpu.launched


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_displacement_that_is_not_finite_makes_nan_of_its_channel_and_no_other(bad, gpu, few_instances):
    a = BY_NAME["plain"].arguments(torch.float32)
    mu = a["mu"].detach().clone()
    mu[1, 2, 0, 1] = bad
    with backend("cuda"):
        output, right = (dau_conv2d(a["input"], a["weight"], m, a["bias"]) for m in (mu, a["mu"]))
    assert output[:, 2].isnan().all()
    others = [0, 1, 3, 4]
    assert torch.equal(output[:, others], right[:, others])


def test_wrong_pointers_are_asserted_by_a_kernel_before_any_reads_by_them(gpu, few_instances):
    x, weight, mu = torch.ones(1, 1, 4, 4), torch.ones(3), torch.zeros(2, 3)
    with backend("cuda"):
        dau_conv2d(x, weight, mu, unit_ptr=torch.tensor([0, 1, 3], dtype=torch.int32))
        for wrong in ([1, 1, 3], [0, 4, 3], [0, 1, 2], [0, -1, 3]):
            gpu.launched.clear()
            with pytest.raises(CudaError, match=r"dau_plan_forward: assertion .* must rise from 0 to the number of"):
                dau_conv2d(x, weight, mu, unit_ptr=torch.tensor(wrong, dtype=torch.int32))
            assert [launch.kernel for launch in gpu.launched] == ["dau_blur", "dau_plan_forward"]
            geo = Geometry(1, 2, 1, 1, (4, 4), (1, 1), (1, 1), 0)
            units = Units(weight, mu, torch.tensor(wrong, dtype=torch.int32), 0)
            with pytest.raises(CudaError, match=r"dau_transpose_pointers: assertion .* must rise from 0"):
                transposed_pointers(Call(geo, units, x))


def test_pointers_of_many_pairs_without_units_are_all_looked_at_by_more_threads_than_units(gpu, few_instances):
    pairs = 64 * 64
    pointers = torch.zeros(pairs + 1, dtype=torch.int32)
    pointers[-1] = 1
    x, weight, mu = torch.ones(1, 64, 4, 4), torch.ones(1), torch.zeros(2, 1)
    with backend("cuda"):
        dau_conv2d(x, weight, mu, unit_ptr=pointers, out_channels=64)
        (plan,) = [launch for launch in gpu.launched if launch.kernel == "dau_plan_forward"]
        assert plan.grid[0] * plan.block[0] * passes.PAIRS_OF_THREAD >= pairs
        pointers[-2] = 2
        with pytest.raises(CudaError, match="must rise from 0"):
            dau_conv2d(x, weight, mu, unit_ptr=pointers, out_channels=64)


@pytest.mark.parametrize(("groups", "outputs", "inputs"), [(1, 3, 2), (2, 5, 3), (3, 40, 37)])
def test_pointers_for_the_adjoint_are_sums_of_counts_in_its_order(groups, outputs, inputs, gpu):
    generator = torch.Generator().manual_seed(groups)
    counts = torch.randint(0, 4, (groups, outputs, inputs), generator=generator)
    pointers = torch.cat([torch.zeros(1), counts.flatten().cumsum(0)]).int()
    geo = Geometry(1, groups * inputs, groups * outputs, groups, (4, 4), (1, 1), (1, 1), 0)
    units = Units(torch.zeros(int(counts.sum())), torch.zeros(2, int(counts.sum())), pointers, 0)
    actual = transposed_pointers(Call(geo, units, torch.zeros(1)))
    expected = torch.cat([torch.zeros(1), counts.transpose(1, 2).flatten().cumsum(0)])
    assert torch.equal(actual, expected.int())


# Of torch: sigma as a tensor, a counter of far units, and in the backward the sum for the bias.
@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [("plain", (2, 4), (2, 7)), ("stride", (2, 4), (2, 8)), ("dilation", (2, 4), (2, 8)), ("ragged", (2, 4), (2, 8))],
)
def test_a_pass_is_few_launches_and_few_operations_of_torch(
    name, forward, backward, mu_gradient, gpu, few_instances, monkeypatch
):
    monkeypatch.setattr(chooser, "SPLITS", (1,))
    arguments = BY_NAME[name].arguments(torch.float32)
    leaves = [arguments[leaf] for leaf in LEAVES]
    counted = []

    def count(function):
        gpu.launched.clear()
        with Observed() as observed, backend("cuda"):
            result = function()
        assert not observed.waits
        counted.append((len(observed.operations), len(gpu.launched)))
        return result

    output = count(lambda: dau_conv2d(**{**arguments, "mu_gradient": mu_gradient}))
    error = torch.ones_like(output)
    count(lambda: torch.autograd.grad(output, leaves, error))
    assert counted == [forward, backward]
    assert sum(forward) <= 6 and sum(backward) <= 12


@pytest.mark.parametrize(("size", "sigma"), [((24, 56), 6.5), ((33, 7), 9.5)])
def test_a_blur_of_more_taps_than_a_block_has_threads_stays_within_the_bound(size, sigma, gpu, few_instances):
    case = Case("wide", batch=1, size=size, sigma=sigma)
    arguments = case.arguments(torch.float32)
    with backend("cuda"):
        output = dau_conv2d(**arguments, mu_gradient="exact")
        error = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).float()
        grads = torch.autograd.grad(output, [arguments[name] for name in LEAVES[:3]], error)
    exact, bounds, _ = truth_and_bounds(case, arguments, error, "exact", learned=False)
    for result, expected, bound in zip((output, *grads), exact, bounds, strict=False):
        assert ((result.detach().double() - expected).abs() <= bound).all()
    blurs = [launch for launch in gpu.launched if launch.kernel.startswith("dau_blur")]
    assert blurs and all(launch.block[0] * launch.block[1] < 2 * blur_radius(sigma) + 1 for launch in blurs)
