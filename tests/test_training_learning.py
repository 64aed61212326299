"""What a step of a training does: rates, optimisers, clipping, parts of a batch, precision and averages, by hand."""

import copy
import json
import math

import pytest
import safetensors.torch
import torch
from idx import toy_folder
from safetensors import safe_open
from torch import nn

import daukit
from daukit.datasets import Batch, load_folder
from daukit.errors import CheckpointError, DaukitError
from daukit.evaluation import evaluate
from daukit.models import record_of
from daukit.nn import DAUConv2d
from daukit.tasks import task_of
from daukit.training import RunFiles, TrainingOptions, keep_checkpoints, train
from daukit.training.averaging import MovingAverage
from daukit.training.optimizers import make_optimizer, possible_state, restore_tensors, set_rates, state_tensors
from daukit.training.stepping import RunningLoss, learn


class Squares:
    """A task: the mean over images of the mean square of outputs and targets' difference."""

    def loss(self, model, batch, *, reduction="mean"):
        return (model(batch.images) - batch.targets).square().flatten(1).mean(1).mean()


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
    ],
    ids=["sgd", "adam", "adamw"],
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


# Whole trainings.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy", 24, 12)


def new_model(folder):
    torch.manual_seed(3)
    model = daukit.create_model("shallow_dau", channels=[2, 2, 3], units=1, num_classes=4, input_size=[16, 16])
    record_of(model).preprocessing = load_folder(folder, "train").preprocessing()
    return model


def run(model, folder, place, *, resume=False, on_epoch=None, on_step=None, **options):
    options = TrainingOptions(**{"epochs": 2, "batch_size": 8, "lr": 0.01, "mu_lr_factor": 20.0, **options})
    files = RunFiles(place / "m.safetensors")
    return train(
        model, task_of(model), load_folder(folder, "train"), load_folder(folder, "test"), options,
        resume_path=files.state, log_path=files.log, resume=resume, on_step=on_step,
        on_epoch=on_epoch or keep_checkpoints(files, options, best=True),
    )  # fmt: skip


def test_the_average_is_what_is_measured_and_kept_and_both_resume(folder, tmp_path):
    model, shown = new_model(folder), []

    def look(network, results):
        shown.append(copy.deepcopy(network.state_dict()))

    results = run(model, folder, tmp_path, ema=0.7, on_epoch=look)
    tested = evaluate(model, task_of(model), load_folder(folder, "test"))
    assert (tested.accuracy, tested.loss) == (results[-1].test_score, results[-1].test_loss)
    state = safetensors.torch.load_file(tmp_path / "m.resume.safetensors")
    plain = new_model(folder)
    (tmp_path / "plain").mkdir()
    run(plain, folder, tmp_path / "plain")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, shown[-1][name])
        if tensor.is_floating_point():
            assert torch.equal(tensor, state[f"average.{name}"])
        assert torch.equal(state[f"model.{name}"], plain.state_dict()[name])  # which learns as without an average
    assert not torch.equal(model.conv2.weight, plain.conv2.weight)


def test_states_of_before_stay_valid_and_those_of_new_options_are_their_own(folder, tmp_path):
    assert not {"optimizer", "ema", "warm_up", "accumulate", "betas", "mu_lr"} & TrainingOptions().settings().keys()
    adam = TrainingOptions(optimizer="adam", ema=0.5).settings()
    assert {"betas": [0.9, 0.999], "mu_lr": 0.01, "ema": 0.5}.items() <= adam.items() and "momentum" not in adam
    run(new_model(folder), folder, tmp_path, epochs=1)
    for change in ({"optimizer": "adam"}, {"ema": 0.5}, {"accumulate": 2}, {"clip_norm": 1.0}, {"warm_up": 0.5}):
        with pytest.raises(CheckpointError, match=f"{next(iter(change))}: None there"):
            run(new_model(folder), folder, tmp_path, resume=True, **change)


DAMAGES = {
    "no count": lambda tensors: tensors.pop("adam_step.conv1.mu"),
    "no mean": lambda tensors: tensors.pop("adam_mean.conv1.mu"),
    "a count of another shape": lambda tensors: tensors.update({"adam_step.conv1.mu": torch.ones(1)}),
    "a momentum": lambda tensors: tensors.update({"momentum.conv1.mu": tensors["adam_mean.conv1.mu"].clone()}),
    "no average": lambda tensors: tensors.pop("average.conv1.mu"),
    "an average of nothing": lambda tensors: tensors.update({"average.conv9.mu": torch.ones(1)}),
    "an average of NaN": lambda tensors: tensors.update({"average.bn1.bias": torch.full((2,), math.nan)}),
}


@pytest.fixture(scope="module")
def state(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("state")
    run(new_model(folder), folder, place, optimizer="adam", ema=0.5)
    with safe_open(place / "m.resume.safetensors", "pt") as file:
        return safetensors.torch.load_file(place / "m.resume.safetensors"), file.metadata()["daukit_resume"]


@pytest.mark.parametrize("damage", [*DAMAGES, *(("updates", value) for value in (None, -1, 1.0, True, "1"))], ids=str)
def test_a_damaged_state_of_an_optimiser_or_an_average_is_one_kind_of_error(folder, tmp_path, state, damage):
    tensors, data = dict(state[0]), json.loads(state[1])
    if damage in DAMAGES:
        DAMAGES[damage](tensors)
    else:
        data[damage[0]] = damage[1]
    path = tmp_path / "m.resume.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, {"daukit_resume": json.dumps(data)}))
    model = new_model(folder)
    with pytest.raises(CheckpointError, match=r"m\.resume\.safetensors: .*damaged$"):
        run(model, folder, tmp_path, optimizer="adam", ema=0.5, resume=True)
    assert same(model, new_model(folder))


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


def test_a_loss_that_is_not_finite_names_its_step(folder, tmp_path):
    model = new_model(folder)

    def spoil(epoch, step, steps, loss):
        if (epoch, step) == (0, 1):
            with torch.no_grad():
                model.conv2.weight.fill_(math.nan)

    with pytest.raises(DaukitError, match="the loss became nan at epoch 1, step 3; lower the learning rate"):
        run(model, folder, tmp_path, on_step=spoil)
    assert not list(tmp_path.iterdir())


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
