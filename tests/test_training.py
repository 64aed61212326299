"""Training and evaluation."""

import json
import math

import pytest
import torch
from idx import toy_folder
from torch import nn

import daukit
from daukit.datasets import ImageDataset, load_folder
from daukit.errors import CheckpointError, DataError, DaukitError
from daukit.evaluation import evaluate, evaluate_folder
from daukit.models import record_of
from daukit.preprocessing import Preprocessing
from daukit.tasks import Classification, task_of
from daukit.training import TrainingOptions, train

OPTIONS = {"batch_size": 16, "lr": 0.05, "mu_lr_factor": 20.0, "seed": 3}


@pytest.fixture
def folder(tmp_path):
    return toy_folder(tmp_path / "toy")


def new_model(folder, **config):
    torch.manual_seed(3)
    data = load_folder(folder, "train")
    model = daukit.create_model(
        "shallow_dau", channels=[4, 4, 8], units=2, num_classes=4, input_size=[16, 16], **config
    )
    record_of(model).preprocessing = data.preprocessing()
    return model


def pruned(model):
    model.conv2.keep_units(model.conv2.weight.abs() > model.conv2.weight.abs().median())
    return model


def run(model, folder, place, resume=False, **options):
    place.mkdir(exist_ok=True)
    return train(
        model, task_of(model), load_folder(folder, "train"), load_folder(folder, "test"),
        TrainingOptions(**{**OPTIONS, **options}), resume_path=place / "resume.safetensors",
        log_path=place / "log.jsonl", resume=resume,
    )  # fmt: skip


@pytest.mark.parametrize("learn_sigma", ["none", "layer", "unit"])
def test_a_network_learns_its_displacements_and_the_task(folder, tmp_path, learn_sigma):
    model = new_model(folder, learn_sigma=learn_sigma)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    results = run(model, folder, tmp_path / "run", epochs=6, schedule="cosine")
    assert results[-1].test_score > 0.75  # chance is 0.25
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["test_accuracy"] for line in log] == [r.test_score for r in results]
    assert record_of(model).history[-1]["arguments"]["epochs"] == 6
    assert all(layer.mu.abs().max() <= 4 for layer in (model.conv1, model.conv2, model.conv3))


@pytest.mark.parametrize("change", [lambda model: model, pruned], ids=["dense", "pruned"])
@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_an_interrupted_run_goes_on_to_the_same_result_bit_for_bit(folder, tmp_path, schedule, change):
    whole = change(new_model(folder))
    chosen = {"epochs": 3, "schedule": schedule, "milestones": (2,), "mirror": True, "shift": 2}
    run(whole, folder, tmp_path / "whole", **chosen)

    class InterruptedRunError(Exception):
        pass

    def interrupt(epoch, step, steps, loss):
        if (epoch, step) == (2, 1):
            raise InterruptedRunError

    halves, place = change(new_model(folder)), tmp_path / "halves"
    place.mkdir()
    options = TrainingOptions(**OPTIONS, **chosen)
    sets = load_folder(folder, "train"), load_folder(folder, "test")
    paths = {"resume_path": place / "resume.safetensors", "log_path": place / "log.jsonl"}
    with pytest.raises(InterruptedRunError):
        train(halves, task_of(halves), *sets, options, **paths, on_step=interrupt)
    fresh = change(new_model(folder))
    results = train(fresh, task_of(fresh), *sets, options, **paths, resume=True)
    assert [r.epoch for r in results] == [1, 2, 3]
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), fresh.state_dict().values(), strict=True))


def test_a_shorter_run_with_steps_may_be_prolonged(folder, tmp_path):
    whole, parts = new_model(folder), new_model(folder)
    run(whole, folder, tmp_path / "whole", epochs=3)
    run(parts, folder, tmp_path / "parts", epochs=1)
    again = new_model(folder)
    run(again, folder, tmp_path / "parts", epochs=3, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_resuming_another_run_names_the_setting_that_differs(folder, tmp_path):
    run(new_model(folder), folder, tmp_path / "run", epochs=1)
    with pytest.raises(CheckpointError, match=r"lr: 0\.05 there, 0\.1 here"):
        run(new_model(folder), folder, tmp_path / "run", epochs=2, lr=0.1, resume=True)
    model = tmp_path / "model.safetensors"
    daukit.save(new_model(folder), model)
    (tmp_path / "run" / "resume.safetensors").write_bytes(model.read_bytes())
    with pytest.raises(CheckpointError, match="not the state of a training run"):
        run(new_model(folder), folder, tmp_path / "run", epochs=2, resume=True)


def test_a_pruned_network_can_be_fine_tuned(folder, tmp_path):
    model = new_model(folder)
    run(model, folder, tmp_path / "run", epochs=1)
    pruned(model)
    units = model.conv2.weight.numel()
    run(model, folder, tmp_path / "again", epochs=1)
    assert model.conv2.weight.numel() == units


def test_a_loss_that_explodes_stops_with_advice(folder, tmp_path):
    with pytest.raises(DaukitError, match="lower the learning rate"):
        run(new_model(folder), folder, tmp_path / "run", epochs=2, lr=1e30)


def test_the_schedules_are_their_formulas():
    step = TrainingOptions(schedule="step", milestones=(2, 4), gamma=0.1)
    assert [step.rate(t) for t in (0, 1.9, 2, 3.9)] == [1, 1, 0.1, 0.1]
    assert math.isclose(step.rate(4.5), 0.01)
    cosine = TrainingOptions(schedule="cosine", epochs=8)
    assert [round(cosine.rate(t), 12) for t in (0, 4, 8)] == [1, 0.5, 0]


class Fixed(nn.Module):
    """Scores that depend on the mean of the image alone."""

    def forward(self, x):
        level = x.mean((1, 2, 3))
        return torch.stack([-level, level, torch.full_like(level, -9.0)], dim=1)


def level_images():
    labels = torch.tensor([0, 1, 1, 0])
    images = torch.tensor([0, 255, 255, 255], dtype=torch.uint8)[:, None, None, None].expand(4, 1, 3, 3)
    return ImageDataset(images, labels, ("dark", "bright", "none"))


HALF = Preprocessing((0.5,), (0.5,), "gray", (3, 3))


def test_evaluation_counts_by_hand():
    model = Fixed().train()
    result = evaluate(model, Classification(HALF), level_images(), batch_size=3)
    assert (result.accuracy, result.images, result.class_accuracy) == (0.75, 4, (0.5, 1.0, None))
    right = math.log(math.exp(1) + math.exp(-1) + math.exp(-9)) - 1
    assert math.isclose(result.loss, (3 * right + (right + 2)) / 4, rel_tol=1e-6)
    assert model.training


def test_evaluation_leaves_every_module_in_its_own_mode():
    model = nn.Sequential(Fixed(), nn.Dropout(0.5)).train()
    model[1].eval()
    evaluate(model, Classification(HALF), level_images())
    assert [module.training for module in model] == [True, False] and model.training


@pytest.mark.parametrize("seed", [2**62, -(2**62)])
def test_every_seed_of_torch_is_one(folder, tmp_path, seed):
    assert len(run(new_model(folder), folder, tmp_path / "run", epochs=1, seed=seed)) == 1


def test_a_float64_network_is_evaluated_in_float64(folder):
    model = new_model(folder)
    single = evaluate_folder(model, folder)
    double = evaluate_folder(model.double(), folder)
    assert single.accuracy == double.accuracy and math.isclose(single.loss, double.loss, rel_tol=1e-5)


def test_a_dense_prediction_is_read_at_its_first_position():
    class Dense(Fixed):
        def forward(self, x):
            scores = super().forward(x)[:, :, None, None]
            return torch.cat([scores, -scores], dim=3)

    assert evaluate(Dense(), Classification(HALF), level_images()).accuracy == 0.75


def test_evaluation_of_what_does_not_fit_is_refused(folder):
    rgb = Preprocessing((0.5,) * 3, (0.5,) * 3, "rgb", (3, 3))
    with pytest.raises(DataError, match="takes 3 channels of 3x3, the images have 1 channel of 3x3"):
        evaluate(Fixed(), Classification(rgb), level_images())
    with pytest.raises(DataError, match="carries no preprocessing"):
        evaluate_folder(Fixed(), folder)

    class Linear(Fixed):
        def forward(self, x):
            return torch.ones(5, 5) @ x.flatten(1)

    with pytest.raises(DataError, match="takes 1 channel of 3x3, the images have 1 channel of 16x16: its f"):
        evaluate(Linear(), Classification(HALF), load_folder(folder, "test"))
    with pytest.raises(DataError, match="the network has 3 classes, the images have 4"):
        evaluate(Fixed(), Classification(HALF), load_folder(folder, "test"))
