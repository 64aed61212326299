"""How far units have moved: closed forms, the log of a training, and the same numbers after a stop."""

import json
import math

import numpy as np
import pytest
import safetensors.torch
import torch
from idx import toy_folder
from safetensors import safe_open
from torch import nn

import daukit
import daukit.training.pace
from daukit import DAUConv2d
from daukit.datasets import load_folder
from daukit.errors import CheckpointError
from daukit.models import record_of
from daukit.tasks import task_of
from daukit.training import EpochResult, TrainingOptions, TrainingStoppedError, train
from daukit.training.moves import Moves, MoveTracker, UnitMoves


def moved(layer, y, x, units=(0, 1, 2, 3)):
    with torch.no_grad():
        for unit in units:
            layer.mu[0, ..., unit] += y
            layer.mu[1, ..., unit] += x


def start_at(layer, value):
    with torch.no_grad():
        layer.mu.fill_(value)
    return layer


def test_distances_are_euclidean_and_count_from_the_start_of_the_run_and_of_the_epoch():
    layer = start_at(DAUConv2d(2, 3, 4), 0.0)
    tracker = MoveTracker(nn.Sequential(layer))
    assert tracker.measure().layers == {"0": UnitMoves(0, 0, 0, 0)}
    moved(layer, 3, 4, units=[0])  # 5 px, at the limit of 4
    moved(layer, -0.6, 0.8, units=[1])  # 1 px, up to rounding in float32
    moved(layer, 0, 0.5, units=[2])
    unit = math.hypot(float(np.float32(-0.6)), float(np.float32(0.8)))
    expected = [round((5 + unit + 0.5) / 4, 6), 0.25 + 0.25 * (unit > 1), 0.25]
    moves = tracker.measure()
    assert moves.layers["0"] == UnitMoves(*expected, expected[0])
    assert (moves.mean, moves.epoch_mean) == (expected[0], expected[0])
    tracker.begin_epoch()
    moved(layer, 0, 1, units=[3])
    moves = tracker.measure()
    assert (moves.mean, moves.epoch_mean) == (pytest.approx(expected[0] + 0.25, abs=1e-6), 0.25)
    tracker.begin()
    assert tracker.measure().layers == {"0": UnitMoves(0, 0, 0.25, 0)}


def test_moves_of_dilated_layers_are_pixels_of_their_input_and_all_units_count_the_same():
    dilated, plain = start_at(DAUConv2d(1, 1, 2, dilation=(2, 3)), 0.0), start_at(DAUConv2d(1, 6, 1), 0.0)
    tracker = MoveTracker(nn.Sequential(dilated, plain))
    moved(dilated, 2, 1, units=[0, 1])  # (4, 3) pixels of the input
    moved(plain, 0, 0.25, units=[0])
    moves = tracker.measure()
    assert moves.layers == {"0": UnitMoves(5, 1, 0, 5), "1": UnitMoves(0.25, 0, 0, 0.25)}
    assert (moves.mean, moves.beyond_a_pixel) == ((2 * 5 + 6 * 0.25) / 8, 2 / 8)


def test_units_on_whole_pixels_have_moved_when_they_read_elsewhere():
    layer = start_at(DAUConv2d(1, 1, 4, max_displacement=2.5, whole_pixels=True), 0.0)
    tracker = MoveTracker(layer)
    moved(layer, 0, 0.4, units=[0])  # still reads where it did
    moved(layer, 0, 0.6, units=[1])  # a pixel, not beyond one
    moved(layer, 0, 2, units=[2])  # the last whole pixel within the limit
    assert tracker.measure().layers[""] == UnitMoves(0.75, 0.25, 0.25, 0.75)


def test_a_limit_is_reached_in_the_precision_in_which_displacements_are_projected():
    layer = start_at(DAUConv2d(1, 1, 2, max_displacement=3.3), 9.0)  # 3.3 is another number in float32
    tracker = MoveTracker(layer)
    daukit.project_displacements(layer)
    assert tracker.measure().at_limit == 1
    assert MoveTracker(start_at(DAUConv2d(1, 1, 2, max_displacement=None), 9.0)).measure().at_limit == 0


def test_only_layers_count_that_learn_when_the_training_begins():
    frozen, pruned, empty, learning = (start_at(DAUConv2d(2, 2, 2), 0.0) for _ in range(4))
    frozen.mu.requires_grad_(False)
    pruned.keep_units(torch.arange(8).reshape(2, 2, 2) < 5)
    empty.keep_units(torch.zeros(2, 2, 2, dtype=torch.bool))
    tracker = MoveTracker(nn.Sequential(frozen, pruned, empty, learning, nn.Conv2d(2, 2, 1)))
    with torch.no_grad():
        pruned.mu[1, 0] = 2.0
    learning.mu.requires_grad_(False)  # rounded for good: still one that learnt
    moves = tracker.measure()
    assert moves.layers == {"1": UnitMoves(0.4, 0.2, 0, 0.4), "3": UnitMoves(0, 0, 0, 0)}
    assert (moves.mean, moves.beyond_a_pixel) == (round(2 / 13, 6), round(1 / 13, 6))
    assert MoveTracker(frozen).measure() is None and MoveTracker(nn.Linear(1, 1)).measure() is None


MOVES = Moves(0.5, 0.25, 0, 0.125, layers={"conv1": UnitMoves(0.5, 0.25, 0, 0.125)})


def test_moves_are_read_as_they_were_written():
    assert Moves.from_json(json.loads(json.dumps(MOVES.to_json()))) == MOVES
    result = EpochResult(1, 0.1, 2.0, 3, 0.5, 0.0, "accuracy", MOVES)
    assert list(result.to_json())[-1] == "moves" and EpochResult.from_json(result.to_json(), 1) == result


@pytest.mark.parametrize(
    "change",
    [
        {"mean": -1}, {"mean": "1"}, {"mean": math.nan}, {"mean": math.inf}, {"mean": True}, {"at_limit": 1.5},
        {"beyond_a_pixel": 2}, {"colour": 1}, {"layers": {}}, {"layers": []}, {"layers": {"a": {}}},
        {"layers": {"a": 3}}, {"layers": None},
    ],
)  # fmt: skip
def test_what_are_no_moves_makes_no_line_of_a_log(change):
    data = {**MOVES.to_json(), **change}
    line = EpochResult(1, 0.1, 2.0, 3, 0.5, 0.0, "accuracy").to_json()
    assert Moves.from_json(data) is None and EpochResult.from_json({**line, "moves": data}, 1) is None
    assert EpochResult.from_json({**line, "moves": None}, 1) is None


# In a training.

OPTIONS = TrainingOptions(epochs=3, batch_size=8, lr=0.05, mu_lr_factor=100.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy", 24, 8)


def new_model(folder, **config):
    torch.manual_seed(3)
    model = daukit.create_model(
        "shallow_dau", channels=[2, 2, 3], units=2, num_classes=4, input_size=[16, 16], **config
    )
    record_of(model).preprocessing = load_folder(folder, "train").preprocessing()
    return model


def run(model, folder, place, options=OPTIONS, stop_after=None, resume=False, on_epoch=None):
    place.mkdir(exist_ok=True)
    asked = iter(range(1, 1000))
    return train(
        model, task_of(model), load_folder(folder, "train"), load_folder(folder, "test"), options,
        resume_path=place / "resume.safetensors", log_path=place / "log.jsonl", resume=resume, on_epoch=on_epoch,
        should_stop=lambda: stop_after is not None and next(asked) == stop_after,
    )  # fmt: skip


def test_the_log_of_a_training_has_the_distances_between_its_networks(folder, tmp_path):
    model, places = new_model(folder), []
    places.append({n: p.detach().double().numpy().copy() for n, p in model.named_parameters() if n.endswith("mu")})

    def keep(network, results):
        places.append({n: network.get_parameter(n).detach().double().numpy().copy() for n in places[0]})

    results = run(model, folder, tmp_path / "run", on_epoch=keep)
    assert results[-1].moves.mean > 0.01
    for i, result in enumerate(results):
        for since, name in ((0, "mean"), (i, "epoch_mean")):
            far = {n: np.hypot(*(places[i + 1][n] - mu)).ravel() for n, mu in places[since].items()}
            assert getattr(result.moves, name) == pytest.approx(np.concatenate([*far.values()]).mean(), abs=1e-6)
            for layer, each in result.moves.layers.items():
                assert getattr(each, name) == pytest.approx(far[f"{layer}.mu"].mean(), abs=1e-6)
    assert [json.loads(line)["moves"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()] == [
        result.moves.to_json() for result in results
    ]


@pytest.mark.parametrize("stop_after", [2, 7])  # inside the first epoch of three steps, and inside the second one
def test_a_run_that_was_stopped_counts_on(folder, tmp_path, stop_after):
    whole = run(new_model(folder), folder, tmp_path / "whole")
    with pytest.raises(TrainingStoppedError):
        run(new_model(folder), folder, tmp_path / "parts", stop_after=stop_after)
    other = new_model(folder)
    moved(other.conv2, 1, 0, units=[0])  # what the resumed network was before its state is of no account
    parts = run(other, folder, tmp_path / "parts", resume=True)
    assert [result.moves for result in parts] == [result.moves for result in whole]
    tensors = [safetensors.torch.load_file(tmp_path / name / "resume.safetensors") for name in ("whole", "parts")]
    assert "start.conv1" in tensors[0] and tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def state(path):
    with safe_open(path, "pt") as file:
        return safetensors.torch.load_file(path), json.loads(file.metadata()["daukit_resume"])


def write(path, tensors, data):
    path.write_bytes(safetensors.torch.save(tensors, {"daukit_resume": json.dumps(data)}))


def test_a_state_of_before_counts_from_where_its_units_were(folder, tmp_path):
    path = tmp_path / "run" / "resume.safetensors"
    with pytest.raises(TrainingStoppedError):
        run(new_model(folder), folder, tmp_path / "run", stop_after=5)  # three steps, an evaluation, the epoch
    tensors, data = state(path)
    for line in data["results"]:
        del line["moves"]
    write(path, {n: tensor for n, tensor in tensors.items() if "start." not in n}, data)
    results = run(new_model(folder), folder, tmp_path / "run", resume=True)
    assert results[0].moves is None and results[1].moves.mean == results[1].moves.epoch_mean > 0
    assert results[2].moves.mean != results[2].moves.epoch_mean


@pytest.mark.parametrize("name", ["start.conv2", "epoch_start.conv2"])
@pytest.mark.parametrize("change", [None, torch.Tensor.double, lambda t: t[:1].clone(), lambda t: t * math.nan])
def test_a_state_with_damaged_starts_is_refused(folder, tmp_path, name, change):
    path = tmp_path / "run" / "resume.safetensors"
    with pytest.raises(TrainingStoppedError):
        run(new_model(folder), folder, tmp_path / "run", stop_after=2)
    tensors, data = state(path)
    tensor = tensors.pop(name)
    write(path, tensors if change is None else {**tensors, name: change(tensor)}, data)
    with pytest.raises(CheckpointError, match=rf"resume.safetensors: does not fit the network: .*{name}"):
        run(new_model(folder), folder, tmp_path / "run", resume=True)


def test_networks_without_displacements_that_learn_log_no_moves(folder, tmp_path):
    model = new_model(folder)
    for layer in (model.conv1, model.conv2, model.conv3):
        layer.mu.requires_grad_(False)
    results = run(model, folder, tmp_path / "run", TrainingOptions(epochs=1, batch_size=8))
    assert results[0].moves is None and "moves" not in (tmp_path / "run" / "log.jsonl").read_text()
    assert not any(name.startswith("start.") for name in state(tmp_path / "run" / "resume.safetensors")[0])


def test_units_that_become_whole_on_the_way_are_followed_to_their_pixels(folder, tmp_path):
    model = new_model(folder)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if name.endswith("mu")}
    options = TrainingOptions(epochs=3, batch_size=8, lr=0.05, mu_lr_factor=20.0, snap_at=0.34)
    results = run(model, folder, tmp_path / "run", options)
    for name, each in results[-1].moves.layers.items():
        mu = model.get_submodule(name).mu.detach()
        assert torch.equal(mu, mu.round()) and each.epoch_mean == 0
        assert each.mean == pytest.approx(float((mu - before[f"{name}.mu"]).norm(dim=0).mean()), abs=1e-5)


def test_a_new_network_is_warned_of_displacements_that_stand_still_and_one_that_was_trained_is_not(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(daukit.training.pace, "_STEPS", 1)
    model, options = new_model(folder), TrainingOptions(epochs=1, batch_size=8, lr=0.05, mu_lr_factor=0.001)
    with pytest.warns(UserWarning, match=r"conv1, conv2 and conv3 are frozen in effect: .*; raise mu_lr_factor"):
        run(model, folder, tmp_path / "one", options)
    run(model, folder, tmp_path / "two", options)  # a warning would be an error
