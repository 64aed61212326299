"""Pruning and training in rounds: budgets, files, history, and a run that is killed and goes on."""

import json

import pytest
import torch
from idx import toy_folder

import daukit
from daukit.checkpoint import from_model
from daukit.datasets import load_folder
from daukit.errors import CheckpointError, OutputError
from daukit.evaluation import evaluate_folder
from daukit.models import record_of
from daukit.pruning import Rule, prune
from daukit.training import Recipe, TrainingOptions
from daukit.workflows import iterate
from daukit.workflows.iterate import prune_in_rounds
from daukit.workflows.rounds import training_options
from daukit.workflows.train import prepare_training, run_training

OPTIONS = TrainingOptions(batch_size=6, lr=0.02)
RULE = Rule(units=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy", 12, 8)


@pytest.fixture
def path(tmp_path, folder):
    torch.manual_seed(0)
    made = daukit.create_model("shallow_dau", channels=[2, 2, 4], units=2, num_classes=4, input_size=[16, 16])
    record_of(made).preprocessing = load_folder(folder, "train").preprocessing()
    daukit.save(made, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def call(path, folder):
    """Prune to 8 of 28 units in two rounds of one epoch, or otherwise."""

    def run(output, rule=RULE, **how):
        arguments = {"rounds": 2, "epochs_between": 1, "data": folder, "options": OPTIONS}
        return prune_in_rounds(daukit.read(path), rule, output=path.with_name(output), **{**arguments, **how})

    return run


def same(one, other):
    one, other = daukit.read(one).tensors, daukit.read(other).tensors
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def history(path):
    """Operations and arguments; no dates, and no digests of files with dates."""
    return [(entry["operation"], entry["arguments"]) for entry in daukit.read(path).header.history]


def test_rounds_do_what_pruning_and_training_do_one_after_the_other(call, path, folder):
    result = call("out.safetensors")
    now = path
    for number, units in enumerate((15, 8), start=1):  # 28 * (8 / 28) ** 0.5 = 14.97
        pruned, _ = prune(now, units=units)
        daukit.write(pruned, path.with_name(f"step{number}.safetensors"))
        now = path.with_name(f"hand{number}.safetensors")
        options = TrainingOptions(batch_size=6, lr=0.02, epochs=1, seed=number - 1)
        start = daukit.read(path.with_name(f"step{number}.safetensors"))
        run_training(prepare_training(folder, now, Recipe(options), initial_checkpoint=start))
        assert same(path.with_name(f"out.round{number:02d}.pruned.safetensors"), start.path)
        assert same(path.with_name(f"out.round{number:02d}.safetensors"), now)
    assert same(result.output, now) and [one.units for one in result.rounds] == [15, 8] == [
        one.keep for one in result.rounds
    ]
    assert result.accuracy_before == evaluate_folder(daukit.load(path), folder).accuracy
    assert result.accuracy_after == result.rounds[-1].accuracy == evaluate_folder(daukit.load(now), folder).accuracy
    first = evaluate_folder(daukit.load(path.with_name("step1.safetensors")), folder).accuracy
    assert result.rounds[0].accuracy_pruned == first
    assert [name for name, _ in history(result.output)] == ["prune", "train", "prune", "train"]
    rounds = [arguments for name, arguments in history(result.output) if name == "prune"]
    assert [(one["round"], one["rounds"], one["units"]) for one in rounds] == [(1, 2, 15), (2, 2, 8)]


class Killed(BaseException):
    """A process that ends at once."""


STOPS = [("write_pruned", 1), ("run_training", 1), ("read", 1), ("write_pruned", 2), ("run_training", 2), ("write", 1)]
QUICK = ("run_training", 2, "before")


@pytest.mark.parametrize(
    ("name", "time", "when"),
    [
        pytest.param(*stop, when, marks=() if (*stop, when) == QUICK else pytest.mark.slow)
        for stop in STOPS
        for when in ("before", "after")
    ],
)
def test_a_run_that_is_killed_goes_on_to_what_the_whole_run_makes(call, path, monkeypatch, name, time, when):
    rule = Rule(remove=0.7, score="taylor")
    whole = call("whole.safetensors", rule)
    real, calls = getattr(iterate, name), []

    def dying(*arguments, **named):
        calls.append(name)
        if len(calls) == time and when == "before":
            raise Killed
        done = real(*arguments, **named)
        if len(calls) == time:
            raise Killed
        return done

    with monkeypatch.context() as patch:
        patch.setattr(iterate, name, dying)
        with pytest.raises(Killed):
            call("out.safetensors", rule)
    if (name, time, when) == ("write_pruned", 1, "before"):
        with pytest.raises(CheckpointError, match="no run to go on with"):
            call("out.safetensors", rule, resume=True)
        return
    if path.with_name("out.safetensors").exists():  # killed when all was done
        assert same(whole.output, path.with_name("out.safetensors"))
        return
    result = call("out.safetensors", rule, resume=True)
    assert same(whole.output, result.output) and history(whole.output) == history(result.output)
    assert [(one.accuracy_pruned, one.accuracy) for one in whole.rounds] == [
        (one.accuracy_pruned, one.accuracy) for one in result.rounds
    ]


def test_a_run_goes_on_within_the_training_of_a_round(call, monkeypatch, path):
    whole = call("whole.safetensors", epochs_between=2)
    real = iterate.run_training

    def dying(run, **named):
        def stop(results):
            raise Killed

        return real(run, on_epoch=stop, **named)

    with monkeypatch.context() as patch:
        patch.setattr(iterate, "run_training", dying)
        with pytest.raises(Killed):
            call("out.safetensors", epochs_between=2)
    result = call("out.safetensors", epochs_between=2, resume=True)
    assert same(whole.output, result.output) and result.rounds[1].accuracy == whole.rounds[1].accuracy
    log = path.with_name("out.round01.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2]


def test_files_of_another_run_are_not_gone_on_with(call, path):
    call("out.safetensors")
    path.with_name("out.safetensors").unlink()
    path.with_name("out.round02.safetensors").unlink()
    for how, words in (
        ({"rule": Rule(units=7)}, r"units: 15 there, 14 here"),
        ({"rule": Rule(units=8, relative_to="network")}, "relative_to: layer there, network here"),
        ({"rounds": 3}, "belongs to another run"),
        ({"options": TrainingOptions(batch_size=6, lr=0.5)}, "lr: 0.02 there, 0.5 here"),
    ):
        with pytest.raises(CheckpointError, match=words):
            call("out.safetensors", resume=True, **how)
    call(
        "other.safetensors",
        Rule(units=8, score="random", seed=1),
        options=TrainingOptions(batch_size=6, lr=0.02, ema=0.5),
    )
    path.with_name("other.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"(score: random|seed: 1) there, None here"):
        call("other.safetensors", resume=True)
    with pytest.raises(CheckpointError, match=r"ema: 0.5 there, None here"):
        call("other.safetensors", Rule(units=8, score="random", seed=1), resume=True)
    daukit.write(prune(path, units=27)[0], path, overwrite=True)
    with pytest.raises(CheckpointError, match=r"it was made of another file|units: 15 there"):
        call("out.safetensors", resume=True)


def test_nothing_is_replaced_unasked_and_an_older_run_leaves_no_trace(call, path):
    call("out.safetensors")
    with pytest.raises(OutputError, match=r"out.safetensors: exists already"):
        call("out.safetensors")
    with pytest.raises(OutputError, match="its run has ended; pass overwrite=True"):
        call("out.safetensors", resume=True)
    path.with_name("out.safetensors").unlink()
    with pytest.raises(OutputError, match="has begun already; pass resume=True"):
        call("out.safetensors")
    again = call("out.safetensors", Rule(units=5), overwrite=True)
    assert again.units_after == 5 and history(again.output)[-2][1]["units"] == 5
    (path.with_name("precious.round02.jsonl")).write_text("precious")
    with pytest.raises(OutputError, match=r"precious.round02.jsonl: exists already"):
        call("precious.safetensors")
    with pytest.raises(OutputError, match="is read here"):
        call("model.safetensors", overwrite=True)


def test_a_dry_run_tells_the_rounds_and_writes_nothing(call, path):
    before = sorted(path.parent.iterdir())
    result = call("out.safetensors", Rule(macs=0.5), dry_run=True)
    assert [one.keep for one in result.rounds] == [0.5**0.5, 0.5] and result.output is result.units_after is None
    assert sorted(path.parent.iterdir()) == before


def test_multiply_adds_are_a_share_of_those_before_the_first_round(call):
    result = call("out.safetensors", Rule(macs=0.7, relative_to="network"))
    for one, share in zip(result.rounds, (0.7**0.5, 0.7), strict=True):
        assert one.multiply_adds <= share * result.multiply_adds_before
    assert result.rounds[0].units > result.rounds[1].units


def test_what_no_rounds_can_be_is_refused(call):
    for how, error, words in (
        ({"epochs_between": 0}, ValueError, "epochs_between must be at least 1"),
        ({"epochs_between": 1.5}, TypeError, "epochs_between must be a whole number"),
        ({"rounds": 0}, ValueError, "rounds must be at least 1"),
        ({"rule": Rule(0.1)}, ValueError, "rounds lead to a budget"),
    ):
        with pytest.raises(error, match=words):
            call("out.safetensors", **how)


def test_options_of_a_training_are_checked_by_name():
    assert training_options({"lr": 0.5, "milestones": [2, 4], "mirror": True}) == TrainingOptions(
        lr=0.5, milestones=(2, 4), mirror=True
    )
    assert training_options({"milestones": 3}).milestones == (3,)
    values = {"optimizer": "adamw", "betas": [0.5, 0.9], "mu_lr": 1, "ema": 0.9, "schedule": "poly", "mu_power": 1}
    assert training_options(values) == TrainingOptions(**{**values, "betas": (0.5, 0.9)})
    for values, words in (
        ({"rate": 1}, "no option 'rate'"),
        ({"epochs": 1}, "no option 'epochs'"),
        ({"mu_lr_facto": 1}, "did you mean 'mu_lr_factor'"),
        ({"lr": -1}, "lr must be a number of at least 0"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"mirror": "yes"}, "mirror must be true or false"),
        ({"milestones": [0]}, "counted from 1"),
        ({"schedule": "linear"}, "step, poly, cosine or constant"),
        ({"optimizer": "adam", "betas": [0.9]}, "betas must be a list of two numbers"),
        ({"mu_lr": 0.1, "mu_lr_factor": 2}, "mu_lr does nothing with mu_lr_factor 2; drop it"),
        ({"snap_at": 0.5}, "no option 'snap_at'"),
    ):
        with pytest.raises(ValueError, match=words):
            training_options(values)


def test_a_model_in_memory_without_a_file_goes_the_same_way(folder, path, call):
    result = prune_in_rounds(
        from_model(daukit.load(path)), RULE, rounds=2, epochs_between=1, data=folder, options=OPTIONS,
        output=path.with_name("memory.safetensors"),
    )  # fmt: skip
    assert same(result.output, call("file.safetensors").output)
