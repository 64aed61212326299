"""Studies of examples: what is missing is run, and tables say what the logs say."""

import json
import time
from functools import partial
from pathlib import Path

import pytest
from example_scripts import run, script
from idx import toy_folder

from daukit.training.toml import parse_toml

STUDY = """
common = "--epochs 1 --batch-size 8"
network = "--channels 4,4,4"
[trainings]
conv = "--model shallow"
k3 = "--units 8,3"
tuned = "--lr 0.01"
[starts]
tuned = "prune {runs}/k3/{seed}.safetensors --threshold 0.1"
[[after]]
kind = "info"
command = "info {file}"
[[after]]
kind = "prune"
of = ["k3"]
command = "prune {file} --thresholds 0,0.1 --data {data}"
[[tables]]
title = "How many units"
rows = { conv = "3x3", k3 = "8, 3, 3 units", k4 = "none yet" }
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path / "study.toml"


def test_what_is_missing_is_run_and_what_was_stopped_goes_on(study, tmp_path, monkeypatch):
    runner, told = script("studies", "run"), []

    def daukit(words):
        told.append(words)
        return json.dumps({"file": words[1], "data": "/home/me/DATA", "units": 9})

    monkeypatch.setattr(runner, "daukit", daukit)
    # What is kept of a training, its log and objects, does for all of it.
    for name, file in (("conv", "0.jsonl"), ("conv", "0.info.json"), ("k3", "0.resume.safetensors")):
        (tmp_path / "runs" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / name / file).touch()
    run(monkeypatch, runner, study, "DATA", tmp_path / "runs", "--seeds", "0")
    train, info, prune, *tune, _ = told
    output = str(tmp_path / "runs" / "k3" / "0.safetensors")
    shape, common = ["--channels", "4,4,4"], ["--epochs", "1", "--batch-size", "8"]
    assert train == [
        "train", "--data", "DATA", "--seed", "0", *shape, *common, "--units", "8,3", "-o", output, "--quiet", "--resume"
    ]  # fmt: skip
    assert info == ["info", output, "--json"]
    assert prune == ["prune", output, "--thresholds", "0,0.1", "--data", "DATA", "--json"]
    kept = json.loads((tmp_path / "runs" / "k3" / "0.prune.json").read_text())
    assert kept == {"file": "k3/0.safetensors", "data": "DATA", "units": 9}
    start, tuned = (str(tmp_path / "runs" / "tuned" / f"0.{end}safetensors") for end in ("start.", ""))
    assert tune == [
        ["prune", output, "--threshold", "0.1", "-o", start, "--quiet"],
        [*train[:5], *common, "--lr", "0.01", "--initial-checkpoint", start, "-o", tuned, "--quiet"],
    ]


def test_a_training_that_starts_from_another_waits_for_it(study, tmp_path, monkeypatch):
    runner, there = script("studies", "run"), []

    def daukit(words):
        if words[0] == "train":
            output = Path(words[words.index("-o") + 1])
            time.sleep(0.1 if output.parent.name == "k3" else 0)
            output.touch()
        if "--threshold" in words:
            there.append(Path(words[1]).exists())
        return "{}"

    monkeypatch.setattr(runner, "daukit", daukit)
    run(monkeypatch, runner, study, "DATA", tmp_path / "runs", "--seeds", "0,1", "--jobs", "2")
    assert there == [True, True]


def test_a_start_is_a_command_that_writes_a_file_or_a_file_that_is_there(study, tmp_path, monkeypatch):
    study.write_text(STUDY.replace("prune {runs}", "{runs}").replace(" --threshold 0.1", ""))
    runner, told = script("studies", "run"), []
    monkeypatch.setattr(runner, "daukit", lambda words: told.append(words) or "{}")
    run(monkeypatch, runner, study, "DATA", tmp_path / "runs", "--seeds", "1", "--only", "tuned")
    (train, _) = told
    assert train[train.index("--initial-checkpoint") + 1] == str(tmp_path / "runs" / "k3" / "1.safetensors")


def test_trainings_and_runs_that_are_not_there_are_named(study, tmp_path, monkeypatch, capsys):
    for name, words in (("run", ("DATA", "RUNS", "--only", "k3,k9")), ("tables", (tmp_path / "nowhere",))):
        with pytest.raises(SystemExit):
            run(monkeypatch, script("studies", name), study, *words)
        said = capsys.readouterr().err
        assert "there is no training 'k9' (trainings: conv, k3, tuned)" in said or "nowhere: there is no such" in said


def keep(folder, seed, line, **objects):
    """What is kept of a training: its log, a line long, and what commands printed of it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{seed}.jsonl").write_text(
        json.dumps({"epoch": 1, "lr": 1, "train_loss": 1, "test_loss": 1, **line}) + "\n"
    )
    for kind, told in objects.items():
        (folder / f"{seed}.{kind}.json").write_text(json.dumps(told))


@pytest.fixture
def results(tmp_path):
    """Of a study: two networks with three and two seeds, the second pruned."""
    unit = {"mean": 0.5, "beyond_a_pixel": 0.25, "at_limit": 0.0, "epoch_mean": 0.1}
    for name, scores, parameters in (("conv", (0.5, 0.75, 0.25), 718), ("k3", (0.625, 0.875), 1778)):
        for seed, score in enumerate(scores):
            moves = {} if name == "conv" else {"moves": {**unit, "mean": seed + 0.5, "layers": {"conv1": unit}}}
            line = {"test_accuracy": score, "seconds": 90, **moves}
            keep(tmp_path / name, seed, line, info={"parameters": parameters})
    first = json.loads((tmp_path / "k3" / "1.jsonl").read_text())
    lines = ({**first, "epoch": epoch, "seconds": taken} for epoch, taken in ((1, 90), (2, 9000), (3, 90)))  # it slept
    (tmp_path / "k3" / "1.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "k3" / "2.jsonl").write_text("begun")
    for seed, scores in ((0, (0.5, 0.25)), (1, (0.75, 0.375))):
        sweep = [
            {"threshold": threshold, "units": units, "accuracy": score}
            for threshold, units, score in zip((0, 0.1), (8, 6 - 2 * seed), scores, strict=True)
        ]
        (tmp_path / "k3" / f"{seed}.prune.json").write_text(json.dumps({"sweep": sweep}))
    (tmp_path / "times.json").write_text(json.dumps({"k3": {"step": 1.5, "forward": 0.754}}))
    return tmp_path


def test_tables_have_means_and_spreads_of_what_is_done(study, results, monkeypatch, capsys):
    study.write_text(STUDY + '[[tables]]\ntitle = "One is done"\nrows = { k3 = "done", k4 = "none yet" }\n')
    run(monkeypatch, script("studies", "tables"), study, results)
    assert capsys.readouterr().out.splitlines() == [
        "### How many units",
        "",
        "| | parameters | accuracy, % | seeds | units moved, px | minutes | step | forward |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        "| 3x3 | 718 | 50.00 (25.00 to 75.00) | 3 | | 1.5 | | |",
        "| 8, 3, 3 units | 1,778 | 75.00 (62.50 to 87.50) | 2 | 1.00 (25% beyond one) | 3.0 | 1.50 | 0.75 |",
        "",
        "### What pruning leaves",
        "",
        "| threshold | 8, 3, 3 units |",
        "|---|--:|",
        "| 0 | 8 units: 62.50 (50.00 to 75.00) |",
        "| 0.1 | -38%: 31.25 (25.00 to 37.50) |",
    ]


def test_networks_that_are_alike_share_the_median_of_their_times(study, tmp_path):
    tables = script("studies", "tables")
    taken = {"conv": (1.0, 1.0), "tuned": (0.5, 0.25), "k3": (1.5, 2.0)}
    (tmp_path / "times.json").write_text(
        json.dumps({name: {"step": step, "forward": forward} for name, (step, forward) in taken.items()})
    )
    alike = parse_toml('alike = [["conv", "tuned", "other"]]\n' + STUDY.replace('k3 = "--', 'other = ""\nk3 = "--'))
    base = {"step": 1.0, "forward": 1.0}
    expected = {"conv": base, "tuned": base, "other": base, "k3": {"step": 2.0, "forward": 3.2}}
    assert tables.times_of(alike, tmp_path) == expected
    words = "Times of networks of the same layers differ by up to 300% by chance."
    assert tables.words_on_chance(alike, tmp_path) == words
    del expected["other"], alike["alike"]
    alone = tables.times_of(alike, tmp_path)
    assert alone == {name: dict(zip(("step", "forward"), times, strict=True)) for name, times in taken.items()}
    assert tables.words_on_chance(alike, tmp_path) == ""
    assert tables.words_on_chance({"alike": [["k9"]]}, tmp_path) == ""  # of which none was timed yet


def test_a_network_is_timed_when_it_has_just_been_run(monkeypatch):
    """Here one takes 9 seconds after the other, as one does whose data the other has driven out of the caches."""
    clock, last = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def task(name, seconds):
        clock[0] += seconds if last == [name] else 9.0
        last[:] = [name]

    tasks = {"conv": partial(task, "conv", 1.0), "k3": partial(task, "k3", 2.0)}
    assert script("studies", "times").second_times(tasks, 5) == {"conv": 1000.0, "k3": 2000.0}


def test_tables_of_networks_that_segment_have_their_classes_and_gridding(study, tmp_path, monkeypatch, capsys):
    line = {"test_mean_iou": 0.5, "seconds": 30}
    runs = ("conv", 0, (0.5, 0.25), 0.02), ("conv", 1, (1.0, 0.5), 0.04), ("k3", 0, (0.75, 0.5), 0.01)
    for name, seed, iou, share in runs:
        test = {"class_names": ["sky", "tree"], "class_iou": iou}
        test["gridding"] = [{"period": 2, "share": share}, {"period": 4, "share": 2 * share}]
        val = {"mean_iou": 0.25 * (seed + 1)}
        keep(tmp_path / name, seed, line, info={"parameters": 9}, val=val, test=test)
    study.write_text('[[tables]]\ntitle = "Fields"\nclasses = true\nrows = { conv = "3x3", k3 = "units" }\n')
    run(monkeypatch, script("studies", "tables"), study, tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "### Fields",
        "",
        "| | parameters | on the validation part | mean IoU, % | seeds | gridding 2, % | gridding 4, % | minutes |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        "| 3x3 | 9 | 37.5 (25.0 to 50.0) | 50.0 (50.0 to 50.0) | 2 | 3.00 (2.00 to 4.00) | 6.00 (4.00 to 8.00) | 0.5 |",
        "| units | 9 | 25.0 | 50.0 | 1 | 1.00 | 2.00 | 0.5 |",
        "",
        "### Fields: IoU of each class, %",
        "",
        "| | 3x3 | units |",
        "|---|--:|--:|",
        "| sky | 75.0 | 75.0 |",
        "| tree | 37.5 | 50.0 |",
    ]


def test_a_table_of_kinds_has_a_row_for_each_thing_measured(study, tmp_path, monkeypatch, capsys):
    grid = [{"period": 2, "share": 0.25}]
    exact = {"mean_iou": 0.5, "gridding": grid}
    for seed in range(2):
        keep(tmp_path / "k3", seed, {"test_mean_iou": 1, "seconds": 1}, exact=exact, paper={"mean_iou": seed / 4})
    study.write_text(
        '[[tables]]\ntitle = "Pools"\nkinds = { exact = "kept", paper = "out" }\nrows = { k3 = "units", k4 = "none" }\n'
    )
    run(monkeypatch, script("studies", "tables"), study, tmp_path)
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| | mean IoU, % | gridding 2, % |",
        "|---|--:|--:|",
        "| units, kept | 50.0 (50.0 to 50.0) | 25.00 (25.00 to 25.00) |",
        "| units, out | 12.5 (0.0 to 25.0) | |",
    ]


def test_what_is_measured_of_another_file_is_measured_of_that(study, tmp_path, monkeypatch):
    after = '[[after]]\nkind = "dense"\nfirst = "rescale {file} --dense"\ncommand = "evaluate {file}"\n'
    study.write_text(STUDY + after)
    runner, told = script("studies", "run"), []
    monkeypatch.setattr(runner, "daukit", lambda words: told.append(words) or "{}")
    run(monkeypatch, runner, study, "DATA", tmp_path / "runs", "--seeds", "0", "--only", "conv")
    output, dense = (str(tmp_path / "runs" / "conv" / name) for name in ("0.safetensors", "0.dense.safetensors"))
    assert told[2:] == [
        ["rescale", output, "--dense", "-o", dense, "--overwrite", "--quiet"],
        ["evaluate", dense, "--json"],
    ]


def test_tables_of_networks_that_deblur_have_decibels_and_similarity(study, tmp_path, monkeypatch, capsys):
    for name in ("conv", "k3"):
        told = {"info": {"parameters": 9}, "test": {"psnr": 26.125, "ssim": 0.75}}
        keep(tmp_path / name, 0, {"test_psnr": 26.125, "seconds": 60}, **told)
    run(monkeypatch, script("studies", "tables"), study, tmp_path)
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| | parameters | PSNR, dB | seeds | SSIM | minutes |",
        "|---|--:|--:|--:|--:|--:|",
        "| 3x3 | 9 | 26.12 | 1 | 0.750 | 1.0 |",
        "| 8, 3, 3 units | 9 | 26.12 | 1 | 0.750 | 1.0 |",
    ]


def test_figures_have_what_the_tables_have(study, results, monkeypatch):
    study.write_text(STUDY.replace('title = "How many units"', 'title = "How many units"\nfigure = "times"'))
    figures = script("studies", "figures")
    drawn = figures.pruning(figures.parse_toml(study.read_text()), results).axes[0]
    assert [line.get_xydata().tolist() for line in drawn.lines] == [[[8, 0.625], [5, 0.3125]]]
    (area,) = drawn.collections
    assert {(5, 0.25), (5, 0.375), (8, 0.5), (8, 0.75)} == set(map(tuple, area.get_paths()[0].vertices))
    (table,) = figures.parse_toml(study.read_text())["tables"]
    (line, *_) = figures.scores_over_time(table, results, {"k3": {"forward": 0.754}}).axes[0].lines
    assert line.get_xydata().tolist() == [[0.754, 0.75]]  # what has no times is left out
    for words in ((), ("--table", "times")):
        run(monkeypatch, figures, study, results, "-o", results / "drawn.png", *words)
        assert (results / "drawn.png").stat().st_size > 1000


def test_a_drawing_is_a_command_on_the_files_of_a_study(study, results, monkeypatch):
    study.write_text(STUDY + '[drawings]\nunits = "plot-offsets {runs}/k3/0.safetensors --data {data} -o {output}"\n')
    figures, told = script("studies", "figures"), []
    monkeypatch.setattr(figures, "daukit", told.append)
    run(monkeypatch, figures, study, results, "--drawing", "units", "--data", "IMAGES", "-o", "drawn.png")
    file = str(results / "k3" / "0.safetensors")
    assert told == [["plot-offsets", file, "--data", "IMAGES", "-o", "drawn.png", "--overwrite", "--quiet"]]


def test_a_figure_that_cannot_be_drawn_is_an_error_and_no_empty_figure(study, results, monkeypatch, capsys):
    (results / "empty").mkdir()
    for runs, words, why in (
        ("nowhere", (), "nowhere: there is no such folder"),
        ("empty", (), "empty: no network there is pruned"),
        ("empty", ("--table", "speed"), "there is no figure 'speed' (figures: none)"),
        ("empty", ("--drawing", "units"), "there is no 'units' (drawings: none)"),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, script("studies", "figures"), study, results / runs, "-o", results / "no.png", *words)
        assert why in capsys.readouterr().err and not (results / "no.png").exists()


@pytest.mark.slow
def test_a_study_runs_from_its_trainings_to_its_tables(study, tmp_path, monkeypatch, capsys):
    toy_folder(tmp_path / "toy", 12, 8)
    for _ in range(2):
        run(
            monkeypatch,
            script("studies", "run"),
            study,
            tmp_path / "toy",
            tmp_path / "runs",
            "--jobs",
            "2",
            "--seeds",
            "0",
        )
    run(monkeypatch, script("studies", "times"), study, tmp_path / "runs", "--rounds", "2")
    assert capsys.readouterr().out.count("daukit train") == 3
    run(monkeypatch, script("studies", "tables"), study, tmp_path / "runs")
    rows = capsys.readouterr().out.splitlines()
    assert rows[4].startswith("| 3x3 | ") and rows[4].endswith("| 1.00 | 1.00 |") and " | 1 | " in rows[5]
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "runs").rglob("*.json"))
    times = tmp_path / "runs" / "times.json"
    before = json.loads(times.read_text())
    (tmp_path / "runs" / "k3" / "0.safetensors").unlink()
    run(monkeypatch, script("studies", "times"), study, tmp_path / "runs", "--rounds", "2")
    after = json.loads(times.read_text())
    assert list(after) == ["conv", "k3", "tuned"] and after["k3"] == before["k3"] and after["tuned"] != before["tuned"]
    (tmp_path / "runs" / "conv" / "0.safetensors").unlink()
    with pytest.raises(SystemExit):
        run(monkeypatch, script("studies", "times"), study, tmp_path / "runs", "--rounds", "2")
    assert "there is no such file, and ratios are to its times" in capsys.readouterr().err
    assert json.loads(times.read_text()) == after


STUDIES = sorted((Path(__file__).parent.parent / "examples" / "studies").glob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_speaks_of_its_own_trainings_alone(path):
    study = parse_toml(path.read_text(encoding="utf-8"))
    asked = [name for after in study["after"] for name in after.get("of", ())]
    asked += [*study.get("starts", ()), *(name for table in study["tables"] for name in table["rows"])]
    asked += [name for group in study.get("alike", ()) for name in group]
    assert asked and set(asked) <= set(study["trainings"])


LOGS = sorted(path for path in (Path(__file__).parent.parent / "examples" / "studies" / "logs").iterdir())


@pytest.mark.parametrize("logs", LOGS, ids=lambda path: path.name)
def test_the_tables_of_the_results_are_those_of_their_logs(logs, monkeypatch, capsys):
    study = logs.parent.parent / f"{logs.name}.toml"
    run(monkeypatch, script("studies", "tables"), study, logs)
    results = (Path(__file__).parent.parent / "docs" / "results.md").read_text(encoding="utf-8")
    tables = capsys.readouterr().out.split("\n\n### ")
    assert tables and all(table.strip().removeprefix("### ") in results for table in tables)


@pytest.mark.parametrize("logs", LOGS, ids=lambda path: path.name)
def test_logs_name_no_folder_of_the_machine_that_trained(logs):
    for path in logs.rglob("*.json"):
        told = json.loads(path.read_text())
        assert not Path(told.get("file", "")).is_absolute() and "/" not in told.get("data", "")
