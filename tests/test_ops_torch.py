"""The operator inside torch: dtypes, autocast, registration, export, compilation, and what it refuses."""

import pytest
import torch
from calls import BY_NAME, call
from torch.autograd import forward_ad

from daukit.ops import backend
from daukit.ops.checks import pair


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_is_computed_in_float32_and_returned_in_its_dtype(dtype):
    arguments = BY_NAME["plain"].arguments(torch.float32)
    half = arguments["input"].detach().to(dtype).requires_grad_()
    output = call(arguments, input=half)
    assert output.dtype == dtype
    assert torch.equal(output, call(arguments, input=half.detach().float()).to(dtype))
    output.sum().backward()
    assert half.grad.dtype == dtype and arguments["mu"].grad.dtype == torch.float32


def test_autocast_casts_the_input_only():
    arguments = BY_NAME["plain"].arguments(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = call(arguments)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, call(arguments, input=arguments["input"].detach().bfloat16()))


# Torch asks tensors of its own for their .grad there and hides what it says of it, which an error cannot be.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")
@pytest.mark.parametrize(
    "case_name",
    [
        pytest.param("plain", marks=pytest.mark.slow),
        pytest.param("ragged_groups", marks=pytest.mark.slow),
        "empty_batch",
    ],
)
def test_opcheck_accepts_both_registered_ops(case_name):
    case = BY_NAME[case_name]
    a = case.arguments()
    stride = pair("stride", a.get("stride", 1))
    sigma = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    options = (3, stride, (1, 1), case.groups, 4, "gaussian", "dense")
    forward_args = (a["input"], a["weight"], a["mu"], sigma, a["bias"], a["unit_ptr"], *options)
    torch.library.opcheck(torch.ops.daukit.dau_conv2d.default, forward_args)
    with torch.no_grad():
        error = torch.ones_like(torch.ops.daukit.dau_conv2d(*forward_args))
    detached = [t if t is None else t.detach() for t in (a["input"], a["weight"], a["mu"], sigma, a["unit_ptr"])]
    for mask in ([True] * 5, [False, True, False, True, False]):
        torch.library.opcheck(torch.ops.daukit.dau_conv2d_backward.default, (error, *detached, *options, mask))


def test_export_keeps_the_operator_and_its_result():
    from daukit.nn import DAUConv2d

    layer, x = DAUConv2d(3, 5, 2).eval(), torch.randn(2, 3, 7, 9)
    program = torch.export.export(layer, (x,))
    assert any("daukit.dau_conv2d" in str(node.target) for node in program.graph.nodes)
    assert torch.equal(program.module()(x), layer(x))


@pytest.mark.parametrize(
    "options", [{}, {"learn_sigma": True}, {"form": "gaussian"}], ids=["plain", "learned", "general"]
)
def test_a_compiled_layer_is_one_graph_and_computes_the_same(options):
    from daukit.nn import DAUConv2d

    layer, x = DAUConv2d(3, 5, 2, **options), torch.randn(2, 3, 7, 9)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for run in (backend("auto"), backend("reference")):
        with run:
            results = []
            for function in (layer, compiled):
                output = function(x)
                results.append((output, *torch.autograd.grad(output.square().sum(), list(layer.parameters()))))
            for actual, expected in zip(results[1], results[0], strict=True):
                torch.testing.assert_close(actual, expected)


def test_forward_mode_and_functorch_raise_instead_of_being_silently_wrong():
    a = BY_NAME["plain"].arguments()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(a["input"].detach(), torch.ones_like(a["input"]))
        with pytest.raises(RuntimeError, match="forward-mode"):
            call(a, input=dual)
    for transform in (
        torch.func.grad(lambda x: call(a, input=x).sum()),
        torch.func.vmap(lambda x: call(a, input=x[None])),
    ):
        with pytest.raises(RuntimeError, match=r"torch\.func"):
            transform(a["input"].detach())


def test_the_second_derivative_raises():
    a = BY_NAME["plain"].arguments()
    (grad,) = torch.autograd.grad(call(a).sum(), a["weight"], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()
