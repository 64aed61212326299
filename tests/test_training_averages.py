"""Whole trainings with Adam and averages: what is measured and written, whose states are whose, damaged ones."""

import copy
import json
import math

import pytest
import safetensors.torch
import torch
from idx import toy_folder
from safetensors import safe_open

import daukit
from daukit.datasets import load_folder
from daukit.errors import CheckpointError, DaukitError
from daukit.evaluation import evaluate
from daukit.models import record_of
from daukit.tasks import task_of
from daukit.training import RunFiles, TrainingOptions, keep_checkpoints, train


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


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
    before = TrainingOptions(mu_lr_factor=500.0).settings()
    assert not {"optimizer", "ema", "warm_up", "accumulate", "betas", "mu_lr"} & before.keys()
    adam = TrainingOptions(optimizer="adam", ema=0.5).settings()
    assert {"betas": [0.9, 0.999], "mu_lr": "auto", "ema": 0.5}.items() <= adam.items() and "momentum" not in adam
    run(new_model(folder), folder, tmp_path, epochs=1)
    for change in (
        {"optimizer": "adam", "mu_lr": 0.01},
        {"ema": 0.5},
        {"accumulate": 2},
        {"clip_norm": 1.0},
        {"warm_up": 0.5},
    ):
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


def test_a_loss_that_is_not_finite_names_its_step(folder, tmp_path):
    model = new_model(folder)

    def spoil(epoch, step, steps, loss):
        if (epoch, step) == (0, 1):
            with torch.no_grad():
                model.conv2.weight.fill_(math.nan)

    with pytest.raises(DaukitError, match="the loss became nan at epoch 1, step 3; lower the learning rate"):
        run(model, folder, tmp_path, on_step=spoil)
    assert not list(tmp_path.iterdir())
