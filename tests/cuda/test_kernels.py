"""The CUDA kernels, run by the emulator, against the formulas in float64 and the authors' oracle."""

import pytest
import torch
from bounds import geometry, truth_and_bounds
from cases import CASES, UNBLURRED, Case
from emulator.build import NEEDS_COMPILER
from kernels import Kernels, Tile
from passes import Pass
from test_ops_oracle import NAMES, TOLERANCE, load_case

from daukit.ops.geometry import Geometry
from daukit.ops.reference import Reference

NONEMPTY = [case for case in CASES if 0 not in (case.batch, *case.size)]  # nothing is launched for nothing
SMALL = Tile(4, 4, 4)
TILES = {"8x8": Tile(8, 8, 4), "8x4": Tile(8, 4, 8), "7x7": Tile(7, 7, 4), "4x4": Tile(4, 4, 8)}


pytestmark = NEEDS_COMPILER


class Mixed(Case):
    """Units of all kinds next to each other: on whole pixels, whole along one axis only, and neither."""

    def arguments(self, dtype=torch.float64):
        arguments = super().arguments(dtype)
        kinds = torch.arange(arguments["weight"].numel()).reshape(arguments["weight"].shape) * 7 // 3 % 5
        mu = arguments["mu"].detach()
        whole = torch.stack([kinds % 2 == 0, kinds < 3])
        return {**arguments, "mu": torch.where(whole, mu.floor(), mu).requires_grad_()}


def run(case, kernels, mu_gradient="gaussian", learned=True, dtype=torch.float32):
    """Output, output gradient, and gradients for input, weight, mu and sigma by the kernels; and the arguments."""
    arguments = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in case.arguments(torch.float32).items()}
    arguments["input"] = arguments["input"].to(dtype)
    geo, sigma = geometry(case, arguments, learned), torch.tensor(case.sigma)
    layer = Pass(kernels, geo, arguments["weight"], arguments["mu"], sigma, arguments["unit_ptr"])
    output = layer.forward(arguments["input"], arguments["bias"])
    error = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).reshape(output.shape).to(dtype)
    return arguments, error, [output, *layer.backward(error, arguments["input"], mu_gradient)]


def check(case, kernels, mu_gradient="gaussian", learned=True, dtype=torch.float32):
    """Compare with the reference all that is asked for: with ``mu_gradient="none"`` no gradient for mu."""
    arguments, error, results = run(case, kernels, mu_gradient, learned, dtype)
    known = "exact" if mu_gradient == "none" else mu_gradient
    exact, bounds, sizes = truth_and_bounds(case, arguments, error, known, learned, Reference())
    names = ("output", "input", "weight", "mu", "sigma")
    for name, result, expected, bound, size in zip(names, results, exact, bounds, sizes, strict=True):
        if (name == "mu" and mu_gradient == "none") or (name == "sigma" and not case.sigma):
            continue
        if name in ("output", "input") and dtype != torch.float32:
            # Rounded when stored, and once more where far units are added to what is stored.
            bound = bound + torch.finfo(dtype).eps * size + torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        excess = (result.double() - expected).abs() - bound
        assert (excess <= 0).all(), f"{name}: {float(excess.max())} above its bound"
    return results


@pytest.mark.parametrize("mu_gradient", ["gaussian", pytest.param("exact", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", NONEMPTY, ids=lambda case: case.name)
def test_value_and_gradients_stay_within_the_bound_of_their_operation_count(case, mu_gradient):
    check(case, Kernels(SMALL), mu_gradient)


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("name", ["plain", "ragged_groups", "uneven_stride_dilation", "far", "integer"])
def test_the_input_gradient_alone_stays_within_the_bound(name, splits):
    case = next(case for case in CASES if case.name == name)
    arguments = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in case.arguments(torch.float32).items()}
    geo, sigma = geometry(case, arguments, False), torch.tensor(case.sigma)
    kernels = Kernels(SMALL, splits=splits)
    layer = Pass(kernels, geo, arguments["weight"], arguments["mu"], sigma, arguments["unit_ptr"])
    error = torch.cos(torch.arange(geo.batch * geo.out_channels * geo.out_size[0] * geo.out_size[1]).double()).float()
    error = error.reshape(geo.batch, geo.out_channels, *geo.out_size)
    exact, bounds, _ = truth_and_bounds(case, arguments, error, "gaussian", False, Reference())
    assert ((layer.grad_input(error).double() - exact[1]).abs() <= bounds[1]).all()


BIG = [
    Case("sixteen_images", batch=17, in_channels=9, out_channels=13, size=(9, 19)),
    Case("tiles", batch=1, in_channels=5, out_channels=3, size=(37, 41), displacement=4.0),
    Case("far_blocks", batch=3, in_channels=4, out_channels=5, units=5, size=(33, 29), displacement=9.0),
    Case(
        "ragged_groups_far",
        in_channels=6,
        out_channels=10,
        units=3,
        groups=2,
        size=(40, 9),
        displacement=6,
        ragged=True,
    ),
]


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("tile", TILES.values(), ids=TILES.keys())
@pytest.mark.parametrize("case", BIG, ids=lambda case: case.name)
@pytest.mark.slow
def test_every_tile_stays_within_the_bound_over_several_blocks(case, tile, mu_gradient):
    check(case, Kernels(tile, splits=2, order=1), mu_gradient)


@pytest.mark.slow
@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
@pytest.mark.parametrize("splits", [1, 2])
def test_a_block_that_goes_through_several_strips_stays_within_the_same_bound(splits, mu_gradient):
    check(BIG[0], Kernels(SMALL, splits=splits, strips=3), mu_gradient)


@pytest.mark.slow
@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
def test_copies_that_are_done_when_they_are_asked_for_stay_within_the_same_bound(mu_gradient):
    check(BIG[0], Kernels(SMALL, macros={"DAU_ASYNC_COPIES": 0}), mu_gradient)


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact"])
def test_a_tile_of_every_shape_stays_within_the_bound(mu_gradient):
    tile = {"gaussian": TILES["7x7"], "exact": TILES["8x8"]}[mu_gradient]
    check(
        Case("tiles", batch=2, in_channels=5, out_channels=6, size=(17, 30), displacement=3.0),
        Kernels(tile),
        mu_gradient,
    )


HALF = [case for case in CASES if case.name in ("dilation", "far", "ragged_groups")]


@pytest.mark.slow
@pytest.mark.parametrize("case", HALF, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_images_are_computed_in_float32_and_rounded_when_stored(case, dtype):
    check(case, Kernels(SMALL), dtype=dtype)


STRIDES = [
    Case("two", size=(13, 18), options={"stride": 2}),
    Case("two_three", size=(13, 11), options={"stride": (2, 3)}),
    Case("wide_dilation", size=(17, 16), options={"stride": (2, 3), "dilation": (3, 2)}),
    Case("common_factor", size=(21, 19), options={"stride": (4, 2), "dilation": (6, 2)}),
]


@pytest.mark.parametrize("case", STRIDES, ids=lambda case: case.name)
def test_strides_and_dilations_without_and_with_a_common_factor_stay_within_the_bound(case):
    check(case, Kernels(Tile(4, 4, 2)))


def test_blocks_that_share_channels_stay_within_the_bound_whatever_their_number():
    case = Case("blocks", batch=2, in_channels=7, out_channels=9, size=(5, 6), groups=1)
    for splits in (2, 3, 5):
        check(case, Kernels(SMALL, splits=splits))


def test_displacements_at_the_halo_and_next_to_integers_are_read_right():
    limit = SMALL.halo
    inside = [limit, -limit, limit - 1e-6, -limit + 1e-6, 1.0, 0.0, -1e-9, 1e-9, -1.0 + 1e-7]
    values = [*inside, limit + 0.25, -limit - 2.0]
    mu = torch.stack(torch.meshgrid(torch.tensor(values), torch.tensor(values), indexing="ij")).reshape(2, 1, 1, -1)
    weight = torch.linspace(-1, 1, mu.shape[3]).reshape(1, 1, -1)
    case = Case("edges", batch=1, in_channels=1, out_channels=1, units=mu.shape[3], size=(10, 9), bias=False)

    class Edges(Case):
        def arguments(self, dtype):
            return {**case.arguments(dtype), "mu": mu.to(dtype), "weight": weight.to(dtype)}

    for mu_gradient in ("gaussian", "exact"):
        check(Edges(**vars(case)), Kernels(SMALL), mu_gradient)


WHOLE = [
    Case("whole_at_the_halo", units=9, size=(9, 8), displacement=4.0, integer=True),
    Case("whole_strided", size=(12, 15), integer=True, options={"stride": 2}),
    Case("whole_uneven", size=(11, 13), integer=True, options={"stride": (3, 2), "dilation": (2, 3)}),
    Case("whole_ragged", in_channels=6, out_channels=4, units=3, groups=2, integer=True, ragged=True),
    Mixed("mixed", in_channels=5, out_channels=6, units=3, size=(9, 19)),
    Mixed("mixed_ragged_far", units=4, size=(11, 10), displacement=5.0, ragged=True),
    Mixed("mixed_strided", size=(12, 15), units=3, options={"stride": (2, 3), "dilation": (2, 1)}),
]


# A build of its own for each pair of strides.
MARKED = [pytest.param(case, marks=pytest.mark.slow if "stride" in case.options else ()) for case in WHOLE]


@pytest.mark.parametrize("mu_gradient", ["gaussian", "exact", "none"])
@pytest.mark.parametrize("case", MARKED, ids=lambda case: case.name)
def test_units_on_whole_pixels_among_others_stay_within_the_bound(case, mu_gradient):
    check(case, Kernels(SMALL, splits=2), mu_gradient)


@pytest.mark.parametrize("mu_gradient", ["exact", pytest.param("none", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", [case for case in UNBLURRED if case.batch], ids=lambda case: case.name)
def test_without_a_blur_they_stay_within_the_bound(case, mu_gradient):
    check(case, Kernels(SMALL), mu_gradient, learned=False)


@pytest.mark.parametrize("name", ["plain", "ragged_groups", "far", "uneven_stride_dilation", "no_units"])
def test_where_mu_is_frozen_the_other_gradients_stay_within_the_bound(name):
    check(next(case for case in CASES if case.name == name), Kernels(SMALL, splits=2), "none")


def test_a_unit_on_a_whole_pixel_reads_no_other_pixel():
    # A weight of zero times a neighbour that is NaN would be seen.
    image, error = torch.ones(1, 1, 9, 10), torch.ones(1, 1, 9, 10)
    image[0, 0, 4, 5] = error[0, 0, 4, 5] = torch.nan
    mu = torch.tensor([-2.0, 3.0]).reshape(2, 1, 1, 1)
    geo = Geometry.of(image, mu[0], None, radius=0, groups=1, stride=(1, 1), dilation=(1, 1))
    layer = Pass(Kernels(SMALL), geo, torch.ones(1, 1, 1), mu, torch.zeros(()), None)
    output, grad = layer.forward(image, None), layer.grad_input(error)
    assert output.isnan().nonzero().tolist() == [[0, 0, 6, 2]]
    assert grad.isnan().nonzero().tolist() == [[0, 0, 2, 8]]
    fused = layer.backward(error, image, "exact")[0]
    assert fused.isnan().nonzero().tolist() == [[0, 0, 2, 8]]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_displacement_that_is_not_finite_makes_nan_of_what_it_touches(bad):
    case = Case("bad", batch=1, in_channels=2, out_channels=2, units=1, size=(5, 6))
    arguments = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in case.arguments(torch.float32).items()}
    arguments["mu"][1, 1, 0, 0] = bad
    geo, sigma = geometry(case, arguments, False), torch.tensor(case.sigma)
    layer = Pass(Kernels(SMALL), geo, arguments["weight"], arguments["mu"], sigma, None)
    output = layer.forward(arguments["input"], arguments["bias"])
    assert output[:, 1].isnan().all() and output[:, 0].isfinite().all()
    grad_input, grad_weight, grad_mu, _ = layer.backward(torch.ones_like(output), arguments["input"], "gaussian")
    assert grad_input[:, 0].isnan().all() and grad_input[:, 1].isfinite().all()
    assert grad_weight.isnan().sum() == 1 and grad_mu.isnan().sum() == 2


def test_results_do_not_depend_on_the_order_of_threads():
    case = Case("orders", batch=2, in_channels=5, out_channels=6, units=2, size=(9, 11), displacement=3.0)
    for mu_gradient in ("gaussian", "exact"):
        expected = run(case, Kernels(SMALL, splits=2), mu_gradient)[2]
        for order in (1, 2, 3):
            results = run(case, Kernels(SMALL, splits=2, order=order), mu_gradient)[2]
            assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
def test_forward_and_gradients_match_the_authors_oracle(name, learned):
    case = {k: v.float() for k, v in load_case(name, "native").items()}
    weight, mu = case["weights"].contiguous(), torch.stack([case["mu2"], case["mu1"]])
    settings = Case(name, sigma=float(case["sigma"].flatten()[0]))
    geo = geometry(settings, {"input": case["x"], "weight": weight, "unit_ptr": None}, learned)
    layer = Pass(Kernels(SMALL), geo, weight, mu, torch.tensor(settings.sigma), None)
    y = layer.forward(case["x"], None)
    _, grad_weight, grad_mu, grad_sigma = layer.backward(case["grad_y"], case["x"], "gaussian")
    pairs = [(y, "y"), (grad_weight, "grad_w"), (grad_mu[0], "grad_mu2"), (grad_mu[1], "grad_mu1")]
    for actual, key in [*pairs, *([(grad_sigma, "grad_sigma")] if learned else [])]:
        expected = case[key].sum() if key == "grad_sigma" else case[key]
        assert (actual - expected).abs().max() <= TOLERANCE * expected.abs().max(), key


def test_the_layout_search_of_the_launcher_is_that_of_the_kernels():
    for tile in TILES.values():
        # A kernel refuses to compile for less shared memory than its windows need.
        Kernels(tile).library("forward", **tile.macros(), DAU_SHARED_BYTES=tile.shared_bytes())
        with pytest.raises(RuntimeError, match="more shared memory is needed"):
            Kernels(tile).library("forward", **tile.macros(), DAU_SHARED_BYTES=tile.shared_bytes() - 4)
