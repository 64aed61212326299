"""What a training tells on the way: words for a progress bar, curves for TensorBoard, read back by TensorBoard."""

import sys

import pytest
import torch
from idx import toy_folder

from daukit.errors import DaukitError, OutputError
from daukit.training import Recipe, TrainingOptions, TrainingStoppedError
from daukit.workflows.train import prepare_training, run_training
from daukit.workflows.train_progress import Board, StepWords
from daukit.workflows.train_runs import Keeping

CONFIG = {"channels": [2, 2, 2], "units": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy")


def test_words_have_loss_rate_and_speed_of_steps_alone():
    now, said = [0.0], []
    options = TrainingOptions(epochs=2, batch_size=10, lr=0.5, schedule="poly", power=1.0)
    words = StepWords(options, 25, lambda share, text: said.append((share, text)), clock=lambda: now[0])
    for epoch in range(2):
        for step in range(3):
            words(epoch, step, 3, 1.5)
            now[0] += 2.0
        now[0] += 100  # an evaluation
    assert [share for share, _ in said] == pytest.approx([(k + 1) / 6 for k in range(6)])
    speeds = ["", ", 5 images/s", ", 2 images/s"]  # 10 images in two seconds, and the 5 of the last batch
    rates = [0.5, 0.417, 0.333, 0.25, 0.167, 0.0833]
    assert [text for _, text in said] == [
        f"epoch {k // 3 + 1}/2, loss 1.500, rate {rates[k]:.3g}{speeds[k % 3]}" for k in range(6)
    ]


def curves(folder):
    """{name: [(step, value)]}, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore")  # of what tensorboard imports
def test_curves_go_on_where_a_run_was_stopped(folder, tmp_path):
    options = TrainingOptions(epochs=3, batch_size=32, lr=0.1)

    def run(board, stop=None, resume=False):
        asked, told = iter(range(100)), []
        torch.manual_seed(0)
        run = prepare_training(
            folder, tmp_path / f"{board}.safetensors", Recipe(options, config=CONFIG), keeping=Keeping(resume=resume)
        )
        run_training(
            run, on_epoch=lambda results: told.append(results), tensorboard=tmp_path / board,
            should_stop=None if stop is None else lambda: next(asked) == stop,
        )  # fmt: skip
        return run.steps, told[-1]

    steps, results = run("whole")
    with pytest.raises(TrainingStoppedError):
        run("parts", stop=steps + 1)
    run("parts", resume=True)
    whole, parts = curves(tmp_path / "whole"), curves(tmp_path / "parts")
    units = {"units/moved", "units/beyond_a_pixel", "units/at_limit"}
    assert set(whole) == {"train/loss", "train/rate", "test/loss", "test/accuracy"} | units and whole == parts
    assert [step for step, _ in whole["train/loss"]] == list(range(1, 3 * steps + 1))
    assert whole["test/loss"] == [(r.epoch * steps, pytest.approx(r.test_loss)) for r in results]
    assert whole["test/accuracy"] == [(r.epoch * steps, pytest.approx(r.test_score)) for r in results]
    assert whole["units/moved"] == [(r.epoch * steps, pytest.approx(r.moves.mean)) for r in results]


def test_what_stands_in_the_way_of_curves_is_said_before_the_first_step(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file/board: cannot be made"):
        Board(tmp_path / "file" / "board", TrainingOptions())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DaukitError, match="pip install tensorboard"):
        Board(tmp_path / "board", TrainingOptions())
    assert not (tmp_path / "board").exists()
