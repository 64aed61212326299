"""The state of a training: damaged ones are refused in one way, and what it commits is written again on resume."""

import json
import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from idx import toy_folder
from safetensors import safe_open
from torch import nn

import daukit
import daukit.training.loop
from daukit.datasets import load_folder
from daukit.errors import CheckpointError, DaukitError
from daukit.models import record_of
from daukit.tasks import task_of
from daukit.training import EpochResult, RunFiles, TrainingOptions, keep_checkpoints, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy", 24, 12)


def new_model(folder):
    torch.manual_seed(3)
    model = daukit.create_model("shallow_dau", channels=[2, 2, 3], units=1, num_classes=4, input_size=[16, 16])
    record_of(model).preprocessing = load_folder(folder, "train").preprocessing()
    return model


def run(model, folder, place, *, epochs=2, best=False, every=None, resume=False, lr=0.05):
    options = TrainingOptions(epochs=epochs, batch_size=8, lr=lr, mu_lr_factor=20.0)
    files = RunFiles(place / "m.safetensors")
    return train(
        model, task_of(model), load_folder(folder, "train"), load_folder(folder, "test"), options,
        resume_path=files.state, log_path=files.log, resume=resume,
        on_epoch=keep_checkpoints(files, options, best=best, every=every),
    )  # fmt: skip


@pytest.fixture(scope="module")
def state(folder, tmp_path_factory):
    """The tensors and the text of a whole state, and its network's file."""
    place = tmp_path_factory.mktemp("whole")
    run(new_model(folder), folder, place)
    path = place / "m.resume.safetensors"
    with safe_open(path, "pt") as file:
        return safetensors.torch.load_file(path), file.metadata()["daukit_resume"]


WEIGHT, MOMENTUM = "model.conv2.weight", "momentum.conv2.mu"


def without(name):
    return lambda tensors: tensors.pop(name)


def changed(name, change):
    return lambda tensors: tensors.update({name: change(tensors[name])})


TENSORS = {
    "no weight": without(WEIGHT),
    "no random state": without("random"),
    "a weight of another type": changed(WEIGHT, torch.Tensor.double),
    "an integer weight": changed(WEIGHT, torch.Tensor.int),
    "a weight of another shape": changed(WEIGHT, torch.Tensor.flatten),
    "a weight of nothing": changed(WEIGHT, lambda w: w[:0]),
    "a weight of NaN": changed(WEIGHT, lambda w: w * math.nan),
    "a momentum of another type": changed(MOMENTUM, torch.Tensor.half),
    "a momentum of another shape": changed(MOMENTUM, lambda m: m[:1].clone()),
    "an infinite momentum": changed(MOMENTUM, lambda m: m + math.inf),
    "a momentum of no parameter": lambda tensors: tensors.update({"momentum.conv9.mu": torch.ones(2)}),
    "a tensor of nothing": lambda tensors: tensors.update(extra=torch.ones(2)),
    "a random state too short": changed("random", lambda r: r[:-1].clone()),
    "a random state of floats": changed("random", torch.Tensor.float),
    "a random state that is none": changed("random", lambda r: torch.full_like(r, 255)),
}


@pytest.mark.parametrize("name", TENSORS)
def test_damaged_tensors_of_a_state_are_one_kind_of_error_and_change_nothing(folder, tmp_path, state, name):
    tensors, text = dict(state[0]), state[1]
    TENSORS[name](tensors)
    refused(folder, tmp_path, tensors, text)


def refused(folder, place, tensors, text):
    path = place / "m.resume.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, {"daukit_resume": text}))
    model = new_model(folder)
    before, random = {n: t.clone() for n, t in model.state_dict().items()}, torch.get_rng_state()
    with pytest.raises(CheckpointError) as error:
        run(model, folder, place, resume=True)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [p.name for p in place.iterdir()] == [path.name]


def put(*keys, value):
    def change(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


def renamed(line):
    """The log of another task, whose score is within the same bounds."""
    line["test_mean_iou"] = line.pop("test_accuracy")


TEXTS = {
    "schema": [put("schema", value=value) for value in (2, "1", True, None, [])],
    "run": [put("run", value=value) for value in (None, [], "x", {}, {"options": []})],
    "architecture": [put("run", "architecture", value=value) for value in (None, [1], {"config": 3}, {})],
    "options": [put("run", "options", value=value) for value in (None, 3, {})],
    "results": [put("results", value=value) for value in (None, {}, [], [1], "ab", [{}])],
    "epoch": [put("results", 1, "epoch", value=value) for value in (1, 3, 2.0, True, "2", None)],
    "number": [put("results", 0, "train_loss", value=value) for value in ("1", True, None, [], -1, math.nan, math.inf)],
    "accuracy": [put("results", 0, "test_accuracy", value=value) for value in (1.5, -0.5)],
    "unknown": [put("results", 0, "colour", value=1)],
    "another score": [lambda data: [renamed(line) for line in data["results"]]],
}


@pytest.mark.parametrize(
    "change", [pytest.param(c, id=f"{k} {i}") for k, cs in TEXTS.items() for i, c in enumerate(cs)]
)
def test_a_damaged_text_of_a_state_is_one_kind_of_error_and_changes_nothing(folder, tmp_path, state, change):
    data = json.loads(state[1])
    change(data)
    refused(folder, tmp_path, state[0], json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 5000, '{"schema": 1, "schema": 1}'])
def test_a_text_that_is_no_state_is_refused(folder, tmp_path, state, text):
    refused(folder, tmp_path, state[0], text)


def test_a_log_and_checkpoints_lost_by_a_kill_are_written_again_on_resume(folder, tmp_path):
    run(new_model(folder), folder, tmp_path, best=True, every=1)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(written) == {
        "m.resume.safetensors", "m.jsonl", "m.best.safetensors", "m.epoch0001.safetensors", "m.epoch0002.safetensors",
    }  # fmt: skip
    log = written["m.jsonl"].splitlines(keepends=True)
    (tmp_path / "m.jsonl").write_bytes(log[0])
    (tmp_path / "m.epoch0002.safetensors").unlink()
    run(new_model(folder), folder, tmp_path, best=True, every=1, resume=True)
    assert (tmp_path / "m.jsonl").read_bytes() == written["m.jsonl"] and len(log) == 2
    again = safetensors.torch.load_file(tmp_path / "m.epoch0002.safetensors")
    assert all(torch.equal(again[n], t) for n, t in safetensors.torch.load(written["m.epoch0002.safetensors"]).items())


def test_kept_checkpoints_are_the_network_of_their_epoch(folder, tmp_path, monkeypatch):
    accuracies = iter([0.25, 0.75, 0.75, 0.5])
    real = daukit.training.loop.evaluate

    def chosen(*arguments, **options):
        result = real(*arguments, **options)
        return type(result)(next(accuracies), result.loss, result.images, result.class_accuracy)

    monkeypatch.setattr(daukit.training.loop, "evaluate", chosen)
    networks = {}
    options = TrainingOptions(epochs=4, batch_size=8)
    files = RunFiles(tmp_path / "m.safetensors")
    keep = keep_checkpoints(files, options, best=True, every=2, source="abc")

    def on_epoch(network, results):
        networks[len(results)] = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        keep(network, results)

    model, sets = new_model(folder), [load_folder(folder, split) for split in ("train", "test")]
    train(model, task_of(model), *sets, options, resume_path=files.state, log_path=files.log, on_epoch=on_epoch)
    for path, epoch in ((files.best, 2), (files.epoch(2), 2), (files.epoch(4), 4)):
        kept = daukit.load(path)
        assert all(torch.equal(networks[epoch][name], tensor) for name, tensor in kept.state_dict().items())
        (entry,) = record_of(kept).history
        assert entry["arguments"]["epoch"] == epoch and entry["source"] == "abc"
        assert record_of(kept).preprocessing == record_of(model).preprocessing
    assert not files.epoch(1).exists() and not files.epoch(3).exists() and len(record_of(model).history) == 1


def test_keeping_checkpoints_changes_no_bit_of_the_result(folder, tmp_path):
    plain, kept = new_model(folder), new_model(folder)
    for name, model in (("plain", plain), ("kept", kept)):
        (tmp_path / name).mkdir()
        run(model, folder, tmp_path / name, best=name == "kept", every=1 if name == "kept" else None)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), kept.state_dict().values(), strict=True))


def test_a_state_with_more_epochs_than_asked_for_is_refused(folder, tmp_path):
    run(new_model(folder), folder, tmp_path, epochs=3)
    with pytest.raises(CheckpointError, match="3 epochs are done, and epochs asks for 2"):
        run(new_model(folder), folder, tmp_path, epochs=2, resume=True)


def test_a_network_whose_layers_share_a_tensor_can_be_resumed(folder, tmp_path):
    def shared():
        model = new_model(folder)
        model.bn2.weight = model.bn1.weight
        return model

    whole, half, rest = shared(), shared(), shared()
    (tmp_path / "whole").mkdir()
    run(whole, folder, tmp_path / "whole", epochs=2)
    run(half, folder, tmp_path, epochs=1)
    run(rest, folder, tmp_path, epochs=2, resume=True)
    assert rest.bn2.weight is rest.bn1.weight
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), rest.state_dict().values(), strict=True))


def test_a_loss_that_is_finite_but_absurd_stops_the_training_before_its_state(folder, tmp_path):
    model = new_model(folder)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(last.weight, std=1e16)
    with pytest.raises(DaukitError, match=r"rose to .*e\+1[67] in epoch 1, .*: the training has diverged; lower the"):
        run(model, folder, tmp_path, lr=0.0)
    assert not list(tmp_path.iterdir())


def test_a_state_that_an_older_daukit_wrote_is_taken_and_goes_on(folder, tmp_path):
    old = Path(__file__).parent / "data" / "training.resume.safetensors"
    (tmp_path / "m.resume.safetensors").write_bytes(old.read_bytes())
    stored, model, seen = safetensors.torch.load_file(old), new_model(folder), []
    options, files = TrainingOptions(epochs=2, batch_size=8, lr=0.05, mu_lr_factor=20.0), RunFiles(tmp_path / "m")

    def look(network, results):
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})

    sets = [load_folder(folder, split) for split in ("train", "test")]
    results = train(
        model, task_of(model), *sets, options, resume_path=files.state, log_path=files.log, resume=True, on_epoch=look
    )
    assert results[0] == EpochResult(1, 0.05, 1.6614327033360798, 1.40641105513337, 1 / 3, 0.105, "accuracy")
    assert [result.epoch for result in results] == [1, 2]
    assert all(torch.equal(tensor, stored[f"model.{name}"]) for name, tensor in seen[0].items())
    assert not torch.equal(seen[1]["conv2.mu"], seen[0]["conv2.mu"])
    log = [json.loads(line)["test_accuracy"] for line in files.log.read_text().splitlines()]
    assert log == [result.test_score for result in results]


def test_the_random_state_of_a_gpu_is_kept_and_used_where_there_is_one(folder, tmp_path, monkeypatch):
    kept, given = torch.arange(16, dtype=torch.uint8), []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: kept)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda random, device: given.append((random, device)))
    on_gpu = lambda model: torch.device("cuda:1")  # noqa: E731
    with monkeypatch.context() as gpu:
        gpu.setattr("daukit.training.state._gpu_of", on_gpu)
        run(new_model(folder), folder, tmp_path)
        path = tmp_path / "m.resume.safetensors"
        assert torch.equal(safetensors.torch.load_file(path)["gpu_random"], kept) and not given
        run(new_model(folder), folder, tmp_path, epochs=3, resume=True)
        assert torch.equal(given[0][0], kept) and given[0][1] == torch.device("cuda:1")
    run(new_model(folder), folder, tmp_path, epochs=4, resume=True)  # on a CPU
    assert "gpu_random" not in safetensors.torch.load_file(path) and len(given) == 1
    monkeypatch.setattr("daukit.training.state._gpu_of", on_gpu)
    run(new_model(folder), folder, tmp_path, epochs=5, resume=True)  # a state of a CPU, on a GPU
    assert len(given) == 1
