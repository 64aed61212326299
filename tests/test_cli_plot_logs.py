"""``daukit plot-offsets --log``: how far units moved in a training, as a figure, a table and JSON; and bad logs."""

import csv
import json

import numpy as np
import pytest
from logs import epoch, write_log

from daukit.errors import DataError
from daukit.plots.moves import MoveCurves, plot_moves
from daukit.plots.style import COLORS, COLUMN_WIDTH, TEXT_WIDTH
from daukit.training.log import log_bytes, read_log
from daukit.workflows.moves import MOST_LOGS

COMMAND = "plot-offsets"


def test_the_figure_and_the_numbers_of_a_log_are_written(run, tmp_path):
    log, figure, table = write_log(tmp_path / "m.jsonl"), tmp_path / "m.svg", tmp_path / "m.csv"
    code, out, err = run("--log", log, "-o", figure, "--csv", table)
    assert code == 0 and figure.read_bytes().startswith(b"<?xml") and f"wrote {figure}" in err
    assert f"{log}: after 3 epochs" in out and "37.5%" in out
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["layer"], row["epoch"], row["mean"], row["at_limit"], row["epoch_mean"]) for row in rows] == [
        ("conv1", "1", "0.25", "0.0625", "0.25"), ("conv1", "2", "0.5", "0.125", "0.25"),
        ("conv1", "3", "0.75", "0.1875", "0.25"), ("conv2", "1", "0.5", "0.0625", "0.5"),
        ("conv2", "2", "1.0", "0.125", "0.5"), ("conv2", "3", "1.5", "0.1875", "0.5"),
    ]  # fmt: skip
    assert {row["log"] for row in rows} == {str(log)} and [row["beyond_a_pixel"] for row in rows[:2]] == [
        "0.125",
        "0.25",
    ]


def test_json_has_the_end_of_every_log(run, tmp_path):
    logs = write_log(tmp_path / "a.jsonl", 2), write_log(tmp_path / "b.jsonl", 3, speed=0.5)
    code, out, err = run("--log", logs[0], "--log", logs[1], "--layer", "conv2", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "kind": "moves", "output": None, "csv": None,
        "logs": [
            {"log": str(log), "epochs": count, "layers": [
                {"name": "conv2", "mean": mean, "beyond_a_pixel": count / 8, "at_limit": count / 16, "epoch_mean": last}
            ]}
            for log, count, mean, last in ((logs[0], 2, 1.0, 0.5), (logs[1], 3, 3.0, 1.0))
        ],
    }  # fmt: skip


def test_a_log_and_a_checkpoint_do_not_go_together(run, tmp_path):
    log = write_log(tmp_path / "m.jsonl")
    for words, said in (
        ((log,), f"give it as --log {log}"),
        ((), "name the checkpoint to draw, or the log of a training with --log"),
        (("--log", log, "m.safetensors"), "drop m.safetensors"),
        (("--log", "runs/m.safetensors"), "drop --log to draw its units, or give its training's log, perhaps m.jsonl"),
        (("--log", log, "--kind", "1d"), "--kind: --log draws what a training wrote"),
        (("--log", log, "--log", log), "is given twice"),
        (sum((("--log", f"{i}.jsonl") for i in range(8)), ()), "from 1 to 7 logs, got 8"),
    ):
        code, out, err = run(*words, "-o", tmp_path / "x.png")
        assert (code, out) == (2, "") and said in err, err
    code, _, err = run("--log", log, "--layer", "conv3", "-o", tmp_path / "x.png")
    assert code == 1 and f"{log}: there is no layer 'conv3'; did you mean 'conv2'? (layers: conv1, conv2)" in err
    assert run("--log", log, "-o", tmp_path / "x.png", "--dry-run")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"m.jsonl"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no line; the log of a training has one for each epoch that is done"),
        ("{GOOD}\n{GOOD}", "line 2 is not the result of epoch 2 ("),
        ("{GOOD}\n{", "line 2 is not JSON that daukit reads"),
        ("{GOOD}\n\n{GOOD}", "line 2 is not JSON"),
        ("[]", "line 1 is not the result of epoch 1"),
        ("{GOOD}\n{OTHER}", "line 2 tells of other layers than the one before"),
    ],
)
def test_a_file_that_is_no_log_is_one_error_that_names_its_line(tmp_path, text, said):
    good, other = (json.dumps(epoch(n, **{name: (1, 0, 0, 1)}).to_json()) for n, name in ((1, "a"), (2, "b")))
    path = tmp_path / "x.jsonl"
    path.write_text(text.replace("{GOOD}", good).replace("{OTHER}", other))
    with pytest.raises(DataError) as error:
        read_log(path)
    assert str(error.value).startswith(f"{path}: {said}") and "\n" not in str(error.value)


def test_a_log_without_moves_is_read_and_cannot_be_drawn(run, tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_bytes(log_bytes([epoch(1), epoch(2)]))
    assert read_log(path) == [epoch(1), epoch(2)]
    code, _, err = run("--log", path, "-o", tmp_path / "x.png")
    assert code == 1 and f"{path}: does not say how far units moved" in err
    path.write_bytes(log_bytes([epoch(1), epoch(2, conv1=(0.5, 0, 0, 0.5))]))  # resumed from a state of before
    assert json.loads(run("--log", path, "--json")[1])["logs"][0]["epochs"] == 2


def curves(speed, count=4):
    epochs = np.arange(1, count + 1)
    return MoveCurves(epochs, speed * epochs, np.full(count, speed), epochs / 8, epochs / 16)


@pytest.mark.parametrize("width", [TEXT_WIDTH, COLUMN_WIDTH])
def test_panels_of_layers_share_their_scales_and_hold_the_curves(width):
    runs = {"a": {"one": curves(0.1), "two": curves(0.5)}, "b": {"two": curves(0.25, 2)}}
    figure = plot_moves(runs, width=width)
    panels = {(axes.get_title(), i) for i, axes in enumerate(figure.axes)}
    assert {title for title, _ in panels} == {"one", "two", ""} and len(figure.axes) == 4
    one, two, *shares = figure.axes
    assert one.get_ylim() == two.get_ylim() and one.get_ylim()[1] > 2
    assert [len(axes.lines) for axes in figure.axes] == [2, 4, 2, 4]
    assert two.lines[0].get_ydata().tolist() == [0.5, 1.0, 1.5, 2.0]
    assert two.lines[1].get_ydata().tolist() == 4 * [0.5]
    assert shares[1].lines[2].get_ydata().tolist() == [1 / 8, 2 / 8]
    assert shares[1].lines[3].get_ydata().tolist() == [1 / 16, 2 / 16]
    assert two.lines[0].get_color() != two.lines[2].get_color()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[2:] == ["a", "b"]


def test_nothing_that_moved_is_drawn_too_and_every_log_has_a_colour():
    still = MoveCurves([1], [0.0], [0.0], [0.0], [0.0])
    figure = plot_moves({str(i): {"a": still} for i in range(MOST_LOGS)})
    assert len({line.get_color() for line in figure.axes[0].lines}) == MOST_LOGS == len(COLORS)
    assert all(axes.get_ylim()[1] > 0 for axes in figure.axes)
