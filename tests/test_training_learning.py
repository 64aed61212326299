"""What a step of a training does: rates, optimisers, clipping, parts of a batch, precision and averages, by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from daukit.datasets import Batch
from daukit.errors import NetworkError
from daukit.nn import DAUConv2d, parameter_groups
from daukit.training import TrainingOptions
from daukit.training.averaging import MovingAverage
from daukit.training.optimizers import (
    displacement_rates,
    make_optimizer,
    possible_state,
    restore_tensors,
    set_rates,
    state_tensors,
)
from daukit.training.stepping import RunningLoss, learn


class BothByHand:
    """SGD for all but displacements, Adam for those, as a user would write it."""

    def __init__(self, net):
        *others, moving = groups(net, 0.1, 0.2, 0.25)
        self.both = torch.optim.SGD(others, momentum=0.5), torch.optim.Adam([moving], betas=(0.5, 0.75))

    def zero_grad(self):
        for one in self.both:
            one.zero_grad()

    def step(self):
        for one in self.both:
            one.step()


class Squares:
    """A task: the mean over images of the mean square of outputs and targets' difference."""

    def loss(self, model, batch, *, reduction="mean"):
        return (model(batch.images) - batch.targets).square().flatten(1).mean(1).mean()

    def weight(self, batch):
        return len(batch)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = DAUConv2d(2, 3, 2, max_displacement=2.0)
        self.plain = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.plain(self.conv(x))


def batches(count=3, size=5):
    generator = torch.Generator().manual_seed(1)
    shape = (size, 2, 6, 7)
    return [Batch(torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)) for _ in range(count)]


def by_hand(net, optimizer, some):
    for batch in some:
        optimizer.zero_grad()
        Squares().loss(net, batch).backward()
        optimizer.step()
        with torch.no_grad():
            net.conv.mu.clamp_(-2, 2)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def groups(net, lr, mu_lr, decay):
    return [
        {"params": [net.conv.weight, net.plain.weight], "lr": lr, "weight_decay": decay},
        {"params": [net.conv.bias, net.plain.bias], "lr": lr, "weight_decay": 0.0},
        {"params": [net.conv.mu], "lr": mu_lr, "weight_decay": 0.0},
    ]


@pytest.mark.parametrize("network", [nn.ReLU(), Net().requires_grad_(False)], ids=["empty", "frozen"])
def test_a_network_without_anything_to_learn_is_refused(network):
    with pytest.raises(NetworkError, match="no parameter that learns; set requires_grad"):
        make_optimizer(network, TrainingOptions())


def test_a_network_whose_displacements_alone_learn_takes_the_steps_of_adam():
    ours, theirs = (Net().requires_grad_(False) for _ in range(2))
    for net in (ours, theirs):
        net.conv.mu.requires_grad_(True)
    options = TrainingOptions(mu_lr=0.2, betas=(0.5, 0.75))
    optimizer = make_optimizer(ours, options)
    for batch in batches():
        learn(ours, Squares(), optimizer, batch, options)
    by_hand(theirs, torch.optim.Adam([theirs.conv.mu], lr=0.2, betas=(0.5, 0.75)), batches())
    assert same(ours, theirs) and not same(ours, Net())


@pytest.mark.parametrize(
    ("options", "torchs"),
    [
        (
            {"momentum": 0.5, "mu_lr_factor": 3.0},
            lambda net: torch.optim.SGD(groups(net, 0.1, 0.1 * 3.0, 0.25), momentum=0.5),
        ),
        ({"optimizer": "adam", "mu_lr": 0.2}, lambda net: torch.optim.Adam(groups(net, 0.1, 0.2, 0.25))),
        (
            {"optimizer": "adamw", "mu_lr": 0.2, "betas": (0.5, 0.75)},
            lambda net: torch.optim.AdamW(groups(net, 0.1, 0.2, 0.25), betas=(0.5, 0.75)),
        ),
        ({"momentum": 0.5, "mu_lr": 0.2, "betas": (0.5, 0.75)}, BothByHand),
        (  # (C_in + C_out) K / 4
            {"momentum": 0.5, "mu_lr_factor": "auto"},
            lambda net: torch.optim.SGD(
                groups(net, 0.1, 0.1 * (sum(net.conv.weight.shape[:2]) * 2 / 4), 0.25), momentum=0.5
            ),
        ),
    ],
    ids=["sgd", "adam", "adamw", "both", "auto"],
)
def test_steps_are_those_of_torchs_optimisers_used_by_hand(options, torchs):
    chosen, ours, theirs = TrainingOptions(lr=0.1, weight_decay=0.25, **options), Net(), Net()
    optimizer = make_optimizer(ours, chosen)
    losses = [learn(ours, Squares(), optimizer, batch, chosen).item() for batch in batches()]
    by_hand(theirs, torchs(theirs), batches())
    assert same(ours, theirs) and not same(ours, Net())
    assert losses[0] == Squares().loss(Net(), batches()[0]).item() and losses[2] < losses[0]


def test_adams_first_step_moves_units_by_their_rate_in_pixels():
    net, options = Net(), TrainingOptions(optimizer="adam", mu_lr=0.03)
    before = net.conv.mu.detach().clone()
    learn(net, Squares(), make_optimizer(net, options), batches()[0], options)
    # |m| / (sqrt(v) + eps) is 1 / (1 + 1e-8 / |gradient|)
    moved = (net.conv.mu - before).abs().double()
    grad = net.conv.mu.grad.abs().double()
    torch.testing.assert_close(moved, 0.03 * grad / (grad + 1e-8), rtol=0, atol=4 * 2 * 2**-24)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "poly", "step"])
def test_noise_takes_units_a_pixel_astray_over_a_training_at_the_rate_for_its_length(schedule):
    options = TrainingOptions(epochs=4, schedule=schedule, milestones=(2,), mu_lr_factor=None)
    model = torch.nn.Sequential(DAUConv2d(100, 100, 1, max_displacement=None, init="normal"))
    optimizer = make_optimizer(model, options, steps=100)
    start, noise = model[0].mu.detach().clone(), torch.Generator().manual_seed(0)
    for step in range(400):
        set_rates(optimizer, options.rate(step / 100), options.mu_rate(step / 100))
        model[0].mu.grad = torch.randn(model[0].mu.shape, generator=noise)
        optimizer.step()
    away = (model[0].mu - start).square().mean().sqrt().item()  # of 20,000 coordinates: half a percent of error
    assert 0.95 < away < 1.1  # Adam's first steps are those of few numbers, and hence longer


def test_only_displacements_that_learn_have_a_rate():
    model = torch.nn.Sequential(DAUConv2d(1, 3, 2), DAUConv2d(3, 5, 4), torch.nn.Conv2d(5, 5, 1))
    options = TrainingOptions(lr=0.5, mu_lr_factor="auto")
    assert displacement_rates(model, options, 10) == {"0": 0.5 * 4 * 2 / 4, "1": 0.5 * 8 * 4 / 4}
    model[0].mu.requires_grad_(False)  # as units on whole pixels that were settled
    assert displacement_rates(model, options, 10) == {"1": 0.5 * 8 * 4 / 4}
    assert displacement_rates(model[2], options, 10) == {}


def pixels_per_change(width):
    """Of a step by SGD: how far units move, beside the share of themselves by which weights change."""
    torch.manual_seed(0)
    layer = DAUConv2d(width, 2 * width, 3, bias=False, init="uniform", mu_gradient="exact").double()
    optimizer = torch.optim.SGD(parameter_groups(layer, lr=1e-6, mu_lr="auto", weight_decay=0.0))
    before = [layer.weight.detach().clone(), layer.mu.detach().clone()]
    # white noise, and an output gradient that has nothing to do with it
    image, error = (torch.randn(2, n, 24, 24, dtype=torch.float64) for n in (width, 2 * width))
    layer(image).mul(error).sum().backward()
    optimizer.step()
    change, distance = (
        (now - then).square().mean().sqrt() for now, then in zip(layer.parameters(), before, strict=True)
    )
    return (distance * before[0].square().mean().sqrt() / change).item()


def test_the_automatic_factor_moves_units_alike_whatever_the_width():
    narrow, wide = pixels_per_change(12), pixels_per_change(36)
    assert 0.5 < narrow < 1  # about 1 / sqrt(2) pixels for a change by all of a weight
    assert 0.9 < narrow / wide < 1.1  # a fixed factor differs by 3; the means of 864 units err by some percent


@pytest.mark.parametrize("warm_up", [0.0, 1.0, 2.5])
@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        ("step", lambda t: 0.5 if t < 3 else 0.5 * 0.2),
        ("poly", lambda t: 0.5 * math.exp(0.9 * math.log((8 - t) / 8))),
        ("cosine", lambda t: 0.5 * math.cos(math.pi * t / 16) ** 2),
        ("constant", lambda t: 0.5),
    ],
)
def test_rates_are_closed_forms_of_progress(schedule, formula, warm_up):
    options = TrainingOptions(lr=0.5, epochs=8, schedule=schedule, milestones=(3,), gamma=0.2, warm_up=warm_up)
    optimizer = make_optimizer(Net(), options)
    for quarter in range(32):
        t = quarter / 4
        set_rates(optimizer, options.rate(t))
        expected = formula(t) * (t / warm_up if t < warm_up else 1)
        assert math.isclose(optimizer.param_groups[0]["lr"], expected, rel_tol=1e-14, abs_tol=1e-15)


def test_rates_are_those_of_torchs_schedulers():
    optimizer = torch.optim.SGD(Net().parameters(), lr=1.0)
    poly = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=12, power=0.9)
    options = TrainingOptions(epochs=3, schedule="poly")
    for step in range(12):
        assert math.isclose(options.rate(step / 4), poly.get_last_lr()[0], rel_tol=1e-12)
        optimizer.step()
        poly.step()


@pytest.mark.parametrize("norm", [1e-3, 1e3])
def test_gradients_are_shortened_to_a_common_norm_and_never_made_longer(norm):
    net, options = Net(), TrainingOptions(clip_norm=norm, lr=0.0)
    batch = batches()[0]
    Squares().loss(net, batch).backward()
    full = [parameter.grad.double() for parameter in net.parameters()]
    length = math.sqrt(sum(float(grad.square().sum()) for grad in full))
    assert 1e-3 < length < 1e3
    learn(net, Squares(), make_optimizer(net, options), batch, options)
    for parameter, grad in zip(net.parameters(), full, strict=True):
        # torch divides by the length plus 1e-6
        expected = grad * min(1.0, norm / (length + 1e-6))
        torch.testing.assert_close(parameter.grad.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("parts", [2, 3, 4, 5])
def test_a_gradient_in_parts_is_that_of_the_whole_batch(parts):
    options, batch = TrainingOptions(accumulate=parts), batches()[0]
    batch = Batch(batch.images.double(), batch.targets.double())
    whole, net = Net().double(), Net().double()
    loss = Squares().loss(whole, batch)
    loss.backward()
    sizes = []
    net.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    seen = learn(net, Squares(), make_optimizer(net, TrainingOptions(lr=0.0)), batch, options)
    assert sizes == {2: [3, 2], 3: [2, 2, 1], 4: [2, 2, 1], 5: [1] * 5}[parts]
    torch.testing.assert_close(seen, loss.detach(), rtol=1e-14, atol=0)
    for one, other in zip(net.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-11, atol=1e-15)


def test_bfloat16_is_the_networks_and_displacements_stay_float32():
    net, seen, options = Net(), [], TrainingOptions(precision="bf16", mu_lr_factor=1.0)
    net.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    batch, exact = batches()[0], Net()
    learn(net, Squares(), make_optimizer(net, options), batch, options)
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in net.parameters()} == {p.grad.dtype for p in net.parameters()} == {torch.float32}
    assert not torch.equal(net.conv.mu, net.conv.mu.bfloat16().float())
    Squares().loss(exact, batch).backward()
    for rounded, right in zip(net.parameters(), exact.parameters(), strict=True):
        assert 0 < (rounded.grad - right.grad).norm() < 0.1 * right.grad.norm()


def test_the_moving_average_is_its_sum():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average, decay = MovingAverage(net, 0.5), 0.5
    expected = net[0].weight.detach().double()
    for n in range(1, 30):
        with torch.no_grad():
            net[0].weight.add_(torch.randn(2, 2))
        net(torch.randn(3, 2))
        average.update()
        kept = min(decay, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * net[0].weight.double()
        torch.testing.assert_close(average.tensors["0.weight"].double(), expected.detach(), rtol=1e-5, atol=1e-6)
    assert average.updates == 29 and "1.num_batches_tracked" not in average.tensors
    own = copy.deepcopy(net.state_dict())
    with average.shown():
        assert torch.equal(net[0].weight, average.tensors["0.weight"])
        assert torch.equal(net[1].running_mean, average.tensors["1.running_mean"])
    assert all(torch.equal(own[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_losses_are_summed_in_their_order_whenever_they_are_read(device):
    values = torch.rand(50).tolist()
    losses, read, total = RunningLoss(0.5, device), [], 0.5
    for value in values:
        value = torch.tensor(value)
        total += value.item() * 3
        read.append(len(losses.add(value, 3)))
    assert read == ([1] * 50 if device == "cpu" else [1] + ([0] * 15 + [16]) * 3 + [0])
    assert len(losses.read()) == (0 if device == "cpu" else 1) and losses.read() == []
    assert losses.total == total and losses.last == torch.tensor(values[-1]).item()


def test_adams_state_goes_on_in_another_one():
    first, second, options = Net(), Net(), TrainingOptions(optimizer="adamw", mu_lr=0.1)
    before, after = make_optimizer(first, options), make_optimizer(second, options)
    for batch in batches():
        learn(first, Squares(), before, batch, options)
    kept = {name: tensor.clone() for name, tensor in state_tensors(first, before).items()}
    assert kept.keys() == set().union(*possible_state(first, before).values())
    second.load_state_dict(first.state_dict())
    restore_tensors(second, after, kept)
    for net, optimizer in ((first, before), (second, after)):
        learn(net, Squares(), optimizer, batches()[0], options)
    assert same(first, second)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("betas", (0.9,)), ("betas", (0.9, 1.0)), ("warm_up", 2), ("warm_up", -1), ("clip_norm", 0.0),
        ("clip_norm", math.nan), ("accumulate", 0), ("accumulate", 9), ("ema", 1.0), ("ema", -0.1), ("ema", math.nan),
    ],
)  # fmt: skip
def test_values_out_of_bounds_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        TrainingOptions(**{"epochs": 2, "batch_size": 8, name: value})
