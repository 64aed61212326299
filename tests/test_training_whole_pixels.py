"""Training into whole pixels: units snap after a share of the steps, and weights go on."""

import math
from itertools import pairwise

import pytest
import torch
from idx import toy_folder
from safetensors.torch import load_file
from torch import nn

import daukit
from daukit.datasets import load_folder
from daukit.models import record_of
from daukit.models.structure import dau_layers
from daukit.tasks import task_of
from daukit.training import EpochResult, Recipe, RunFiles, TrainingOptions, best_of, keep_checkpoints, train
from daukit.training.settling import snap_layers
from daukit.workflows.train import prepare_training, run_training

STEPS = 3  # an epoch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy", 24, 12)


def new_model(folder):
    torch.manual_seed(3)
    model = daukit.create_model("shallow_dau", channels=[2, 2, 3], units=2, num_classes=4, input_size=[16, 16])
    record_of(model).preprocessing = load_folder(folder, "train").preprocessing()
    return model


def run(model, folder, place, *, epochs, snap_at, resume=False, best=False, every=None, on_step=None):
    options = TrainingOptions(epochs=epochs, batch_size=8, lr=0.05, mu_lr_factor=20.0, snap_at=snap_at)
    files = RunFiles(place / "m.safetensors")
    results = train(
        model, task_of(model), load_folder(folder, "train"), load_folder(folder, "test"), options,
        resume_path=files.state, log_path=files.log, resume=resume, on_step=on_step,
        on_epoch=keep_checkpoints(files, options, best=best, every=every),
    )  # fmt: skip
    daukit.save(model, files.output, overwrite=True)
    return results


def is_whole(model):
    layers = dau_layers(model).values()
    return all(layer.whole_pixels and torch.equal(layer.mu, layer.mu.round()) for layer in layers)


@pytest.mark.parametrize(("snap_at", "first"), [(0, 0), (0.2, 1), (0.5, 3), (0.75, 4)])  # of six steps
def test_units_stay_and_weights_go_on_from_the_step_of_the_snap(folder, tmp_path, snap_at, first):
    model, mu, weight = new_model(folder), [], []

    def look(*_):
        mu.append(model.conv2.mu.detach().clone())
        weight.append(model.conv2.weight.detach().clone())

    run(model, folder, tmp_path, epochs=2, snap_at=snap_at, on_step=look)
    whole = [torch.equal(each, each.round()) for each in mu]
    assert whole == [step >= first for step in range(2 * STEPS)]
    assert all(torch.equal(each, mu[first]) for each in mu[first:])
    assert not any(torch.equal(one, after) for one, after in pairwise(weight))


def test_the_file_is_a_layer_of_whole_pixels_and_computes_what_the_network_does(folder, tmp_path):
    model = new_model(folder)
    run(model, folder, tmp_path, epochs=2, snap_at=0.5)
    loaded = daukit.load(tmp_path / "m.safetensors")
    stored = load_file(tmp_path / "m.safetensors")
    assert {stored[f"{name}.mu"].dtype for name in dau_layers(model)} == {torch.int8}
    assert is_whole(loaded) and record_of(loaded).history[-1]["arguments"]["snap_at"] == 0.5
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(loaded(images), model(images))


# Of four epochs, the snap is in the first one, after it, and in the third.
@pytest.mark.parametrize(("snap_at", "done"), [(0.2, 1), (0.25, 1), (0.6, 2), (0.6, 3)])
def test_a_run_that_was_stopped_before_or_after_the_snap_goes_on_bit_for_bit(folder, tmp_path, snap_at, done):
    whole, rest = new_model(folder), new_model(folder)
    (tmp_path / "parts").mkdir()
    run(whole, folder, tmp_path, epochs=4, snap_at=snap_at)

    def stop(epoch, *_):
        if epoch == done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(new_model(folder), folder, tmp_path / "parts", epochs=4, snap_at=snap_at, on_step=stop)
    run(rest, folder, tmp_path / "parts", epochs=4, snap_at=snap_at, resume=True)
    assert is_whole(rest)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), rest.state_dict().values(), strict=True))


def test_the_best_epoch_is_one_with_whole_displacements(folder, tmp_path):
    options = TrainingOptions(epochs=5, snap_at=0.4)
    results = [
        EpochResult(i + 1, 0.1, 1.0, 1.0, accuracy, 1.0, "accuracy")
        for i, accuracy in enumerate((0.2, 0.9, 0.5, 0.6, 0.6))
    ]
    assert best_of(results, options).epoch == 4
    assert best_of(results[:2], options).epoch == 2  # as there is no other yet
    assert best_of(results, TrainingOptions(epochs=5)).epoch == 2

    model, files = new_model(folder), RunFiles(tmp_path / "m.safetensors")
    keep = keep_checkpoints(files, options, best=True)
    for epoch, is_kept in ((1, False), (2, False), (3, True)):
        keep(model, results[:epoch])
        assert files.best.exists() == is_kept


def test_checkpoints_before_the_snap_are_bilinear_ones_and_later_ones_whole(folder, tmp_path):
    run(new_model(folder), folder, tmp_path, epochs=3, snap_at=0.5, every=1, best=True)
    kept = [is_whole(daukit.load(tmp_path / f"m.epoch000{epoch}.safetensors")) for epoch in (1, 2, 3)]
    assert kept == [False, True, True]
    assert is_whole(daukit.load(tmp_path / "m.best.safetensors"))


@pytest.mark.parametrize(("limit", "expected"), [(3.5, [-3, 0, 2, 3]), (4.0, [-4, 0, 2, 4]), (None, [-4, 0, 2, 4])])
def test_units_snap_to_the_nearest_pixel_within_the_limit(limit, expected):
    layer = daukit.nn.DAUConv2d(1, 1, 4, max_displacement=limit)
    with torch.no_grad():
        layer.mu[0] = torch.tensor([-3.5 - (limit != 3.5) * 0.4, 0.49, 1.51, 3.5 + (limit != 3.5) * 0.4])
        layer.mu[1] = 0.2
    snap_layers(nn.Sequential(layer))
    assert layer.mu.tolist() == [[[expected]], [[[0.0] * 4]]]
    assert layer.whole_pixels and not layer.mu.requires_grad


@pytest.mark.parametrize("snap_at", [-0.1, 1.0, math.nan])
def test_a_share_that_leaves_no_step_is_refused(snap_at):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        TrainingOptions(snap_at=snap_at)


def test_networks_without_pixels_to_read_at_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="has no DAU layer"):
        run(plain(folder, "shallow"), folder, tmp_path, epochs=1, snap_at=0.5)
    with pytest.raises(ValueError, match="layer 'conv1' of the network learns a sigma per unit"):
        run(plain(folder, "shallow_dau", learn_sigma="unit"), folder, tmp_path, epochs=1, snap_at=0.5)
    assert list(tmp_path.iterdir()) == []


def plain(folder, name, **options):
    model = daukit.create_model(name, channels=[2, 2, 3], num_classes=4, input_size=[16, 16], **options)
    record_of(model).preprocessing = load_folder(folder, "train").preprocessing()
    return model


def test_a_layer_of_whole_pixels_learns_through_the_rounding_and_is_rounded_in_the_end(folder, tmp_path):
    model, mu = new_model(folder), []
    model.conv2.whole_pixels = True
    run(model, folder, tmp_path, epochs=2, snap_at=None, on_step=lambda *_: mu.append(model.conv2.mu.detach().clone()))
    assert not any(torch.equal(one, after) for one, after in pairwise(mu))
    assert torch.equal(model.conv2.mu, mu[-1].round()) and not torch.equal(model.conv1.mu, model.conv1.mu.round())


def test_what_reads_at_whole_pixels_stays_there_in_a_later_training(folder, tmp_path):
    model = new_model(folder)
    snap_layers(model)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    daukit.save(model, first)
    options = TrainingOptions(epochs=1, batch_size=8, lr=0.05)
    run_training(prepare_training(folder, second, Recipe(options), initial_checkpoint=daukit.read(first)))
    before, after = daukit.load(first), daukit.load(second)
    assert is_whole(after) and torch.equal(before.conv2.mu, after.conv2.mu)
    assert not torch.equal(before.conv2.weight, after.conv2.weight)
