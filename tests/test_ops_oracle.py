"""The operator against the outputs of the authors' own oracle."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from daukit import ops
from daukit.ops import backend, dau_conv2d

ORACLE = Path(__file__).parent / "data" / "dau_oracle_public.npz"
NAMES = ("basic", "odd_channels", "one_unit", "integer", "far", "interior")
AVAILABLE = [name for name, state in ops.backends().items() if state == "available"]
TOLERANCE = 1e-5  # of the largest value; the oracle is float32


def load_case(name, backend_name):
    dtype = torch.float32 if backend_name == "native" else torch.float64  # all that the kernels know
    with np.load(ORACLE) as data:
        case = {key.split("/")[1]: torch.tensor(data[key]).to(dtype) for key in data if key.startswith(f"{name}/")}
    for key in ("weights", "mu1", "mu2", "grad_w", "grad_mu1", "grad_mu2", "grad_sigma"):
        case[key] = case[key][0].permute(2, 0, 1)  # (1, S, K, F) -> (F, S, K)
    return case


def run(case, learn_sigma=True):
    x = case["x"].requires_grad_()
    weight = case["weights"].contiguous().requires_grad_()
    mu = torch.stack([case["mu2"], case["mu1"]]).requires_grad_()
    sigma = case["sigma"].flatten()[0].clone().requires_grad_()
    # A learned sigma takes the blur's largest radius, a fixed one the authors' own.
    y = dau_conv2d(x, weight, mu, sigma=sigma if learn_sigma else sigma.item())
    leaves = {"x": x, "weight": weight, "mu": mu, **({"sigma": sigma} if learn_sigma else {})}
    grads = torch.autograd.grad(y, list(leaves.values()), case["grad_y"])
    return y, dict(zip(leaves, grads, strict=True))


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("learn_sigma", [False, True])
@pytest.mark.parametrize("backend_name", AVAILABLE)
def test_forward_and_parameter_gradients_match_the_authors_oracle(name, backend_name, learn_sigma):
    case = load_case(name, backend_name)
    with backend(backend_name):
        y, grads = run(case, learn_sigma)
    assert_close(y, case["y"])
    assert_close(grads["weight"], case["grad_w"])
    assert_close(grads["mu"][0], case["grad_mu2"])
    assert_close(grads["mu"][1], case["grad_mu1"])
    if learn_sigma:
        assert_close(grads["sigma"], case["grad_sigma"].sum())


@pytest.mark.parametrize("backend_name", AVAILABLE)
def test_the_input_gradient_matches_the_authors_oracle_in_the_interior(backend_name):
    case = load_case("interior", backend_name)
    with backend(backend_name):
        _, grads = run(case)
    reach = max(float(case[key].abs().max()) for key in ("mu1", "mu2"))
    margin = math.ceil(reach) + 1 + math.ceil(5 * float(case["sigma"].flatten()[0]))
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    assert case["grad_x"][inner].numel() > 0
    assert_close(grads["x"][inner], case["grad_x"][inner])
