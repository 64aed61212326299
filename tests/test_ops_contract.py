"""The contract of backends, with one that only takes notes."""

import pytest
import torch
from bounds import DENSE
from cases import CASES

from daukit.ops import backend, backends, dau_conv2d
from daukit.ops.contract import Backend, GivenUp, Needs
from daukit.ops.dispatch import BACKENDS

PLAIN = next(case for case in CASES if case.name == "plain")


class Notes(Backend):
    """The dense path, which writes down what it is asked for."""

    name = "notes"
    supported, gives_up = True, False

    def __init__(self):
        self.asked = []

    def supports(self, tensors, geo):
        return self.supported

    def forward(self, tensors, geo, *, compute):
        self.asked.append(("forward", tensors.input.dtype, compute))
        if self.gives_up:
            raise GivenUp
        return DENSE.forward(tensors, geo, compute=tensors.mu.dtype)

    def backward(self, grad_output, tensors, geo, *, mu_gradient, needs, compute):
        self.asked.append(("backward", grad_output.dtype, mu_gradient, needs, compute))
        if self.gives_up:
            raise GivenUp
        return DENSE.backward(
            grad_output, tensors, geo, mu_gradient=mu_gradient, needs=needs, compute=tensors.mu.dtype
        )  # fmt: skip


@pytest.fixture
def notes(monkeypatch):
    notes = Notes()
    monkeypatch.setitem(BACKENDS, notes.name, notes)
    return notes


def run(name, dtype=torch.float32):
    """The output, and the gradients of input and mu, with frozen weights."""
    a = PLAIN.arguments(torch.float32)
    image, weight = a["input"].detach().to(dtype).requires_grad_(), a["weight"].detach()
    with backend(name):
        output = dau_conv2d(image, weight, a["mu"], mu_gradient="exact")
    return output, *torch.autograd.grad(output.float().square().sum(), [image, a["mu"]])


def test_a_backend_gets_half_images_only_if_it_takes_them(notes, monkeypatch):
    run("notes", torch.bfloat16)
    assert [asked[1] for asked in notes.asked] == [torch.float32, torch.float32]
    monkeypatch.setattr(Notes, "takes_half", True)
    with pytest.raises(RuntimeError):  # the dense path, which computes for it, takes none
        run("notes", torch.bfloat16)
    assert notes.asked[-1] == ("forward", torch.bfloat16, torch.float32)


def test_a_backend_is_listed_and_computes(notes):
    assert backends()["notes"] == "available"
    assert all(map(torch.equal, run("notes"), run("dense")))
    needs = Needs(input=True, weight=False, mu=True, sigma=False)
    assert notes.asked == [
        ("forward", torch.float32, torch.float32),
        ("backward", torch.float32, "exact", needs, torch.float32),
    ]


def test_calls_that_a_backend_does_not_support_take_the_dense_path(notes):
    notes.supported = False
    assert all(map(torch.equal, run("notes"), run("dense"))) and not notes.asked


def test_a_backend_that_gives_up_leaves_the_call_to_the_dense_path(notes):
    notes.gives_up = True
    assert all(map(torch.equal, run("notes"), run("dense")))
    assert [asked[0] for asked in notes.asked] == ["forward", "backward"]


@pytest.mark.parametrize("name", [name for name in BACKENDS if backends()[name] == "available"])
def test_autocast_changes_the_dtype_of_the_input_only_whatever_the_backend(name):
    a = PLAIN.arguments(torch.float32)
    sigma = torch.tensor(0.5, requires_grad=True)
    leaves = [a["weight"], a["mu"], sigma]
    results = []
    for cast in (True, False):
        image = a["input"].detach() if cast else a["input"].detach().bfloat16()
        with backend(name), torch.autocast("cpu", torch.bfloat16, enabled=cast):
            output = dau_conv2d(image, a["weight"], a["mu"], sigma=sigma)
            grads = torch.autograd.grad(output, leaves, torch.ones_like(output))
        results.append((output, *grads))
    assert all(map(torch.equal, *results))
