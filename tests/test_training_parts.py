"""Parts of a training: its batches, rates, optimiser and log."""

import json
import math

import pytest
import torch
from torch import nn

from daukit.datasets import Batch, ImageDataset
from daukit.nn import DAUConv2d
from daukit.training import EpochResult, TrainingOptions, best_of
from daukit.training.batches import Batches
from daukit.training.log import history_arguments, log_bytes
from daukit.training.optimizers import make_optimizer, possible_state, restore_tensors, set_rates, state_tensors
from daukit.training.schedule import cosine_rate, step_rate
from daukit.transforms import MirrorAndShift

NUMBERED = ImageDataset(torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1), torch.arange(10))


def test_an_epoch_has_every_image_once_in_an_order_of_its_own():
    batches = Batches(NUMBERED, 4, MirrorAndShift(), seed=5)
    assert len(batches) == 3
    orders = []
    for epoch in (0, 1, 0):
        parts = list(batches.epoch(epoch))
        assert [len(part) for part in parts] == [4, 4, 2]
        assert all(torch.equal(part.images.flatten().long(), part.targets) for part in parts)
        orders.append(torch.cat([part.targets for part in parts]).tolist())
    assert orders[0] == orders[2] != orders[1] and all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] == torch.randperm(10, generator=torch.Generator().manual_seed(5 * 100_003)).tolist()


def test_changes_draw_from_the_epochs_numbers_behind_its_order():
    class Noise:
        def draw(self, number, generator):
            return torch.rand(number, generator=generator)

        def apply(self, batch, drawn):
            return Batch(batch.images, drawn)

    generator = torch.Generator().manual_seed(1)
    torch.randperm(10, generator=generator)
    parts = [part.targets for part in Batches(NUMBERED, 5, Noise(), seed=0).epoch(1)]
    assert torch.equal(torch.cat(parts), torch.cat([torch.rand(5, generator=generator) for _ in range(2)]))


def test_schedules_are_their_formulas():
    assert [step_rate(t, (2, 4), 0.5) for t in (0, 1.99, 2, 3, 4, 9)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    for t in (0, 1.5, 3, 4.5, 6):
        assert math.isclose(cosine_rate(t, 6), math.cos(math.pi * t / 12) ** 2, abs_tol=1e-15)


@pytest.mark.parametrize("factor", [1.0, 0.1, 0.0])
def test_displacements_have_a_rate_of_their_own_and_all_rates_the_factor(factor):
    network = nn.Sequential(DAUConv2d(1, 2, 1, max_displacement=2.0), nn.BatchNorm2d(2))
    optimizer = make_optimizer(network, TrainingOptions(lr=0.5, mu_lr_factor=20.0, weight_decay=0.25, momentum=0.75))
    for share in (0.3, factor):  # factors are of the rates at the start
        set_rates(optimizer, share)
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert {name: group["lr"] for name, group in groups.items()} == {
        "weights": 0.5 * factor, "others": 0.5 * factor, "mu": 10.0 * factor,
    }  # fmt: skip
    assert [groups[name]["weight_decay"] for name in ("weights", "others", "mu")] == [0.25, 0, 0]
    assert groups["mu"]["params"][0] is network[0].mu and {group["momentum"] for group in groups.values()} == {0.75}


def test_the_state_of_an_optimiser_goes_on_in_another_one():
    def network():
        torch.manual_seed(0)
        return nn.Linear(3, 2)

    def step(network, optimizer):
        optimizer.zero_grad()
        network(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    first, options = network(), TrainingOptions(lr=0.1)
    before = make_optimizer(first, options)
    assert state_tensors(first, before) == {}
    step(first, before)
    kept = state_tensors(first, before)
    possible = possible_state(first, before)
    assert (
        kept.keys() == {name for parts in possible.values() for name in parts} == {"momentum.weight", "momentum.bias"}
    )
    second = network()
    second.load_state_dict(first.state_dict())
    after = make_optimizer(second, options)
    restore_tensors(second, after, {name: tensor.clone() for name, tensor in kept.items()} | {"random": torch.ones(1)})
    for each in ((first, before), (second, after)):
        step(*each)
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)


LINE = {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "test_loss": 3, "test_mean_iou": 0.5, "seconds": 0.0}


def test_a_line_of_the_log_names_its_score_and_is_read_as_it_was_written():
    result = EpochResult(1, 0.1, 2.0, 3, 0.5, 0.0, "mean_iou")
    assert result.to_json() == LINE and list(result.to_json()) == list(LINE)
    assert EpochResult.from_json(LINE, 1) == result
    assert log_bytes([result, result]).decode() == 2 * (json.dumps(LINE) + "\n")
    assert history_arguments(TrainingOptions(), [result])["test_mean_iou"] == 0.5
    assert best_of([result, EpochResult(2, 0.1, 2.0, 3, 0.6, 0.0, "mean_iou")], TrainingOptions()).epoch == 2


@pytest.mark.parametrize(
    "change",
    [{"epoch": 2}, {"epoch": True}, {"seconds": -1}, {"lr": "1"}, {"test_mean_iou": None}, {"test_accuracy": 0.5}],
)
def test_what_is_no_line_of_a_log_is_none(change):
    assert EpochResult.from_json({**LINE, **change}, 1) is None
    assert EpochResult.from_json({("mean_iou" if k == "test_mean_iou" else k): v for k, v in LINE.items()}, 1) is None
    assert EpochResult.from_json({k: v for k, v in LINE.items() if k != "test_mean_iou"}, 1) is None
