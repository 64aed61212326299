"""``daukit bench``: the times are times of what they say, and wrong arguments are refused."""

import json

import pytest
import torch
from typer.testing import CliRunner

from daukit import ops
from daukit.benchmark import Quartiles, bench_backends, bench_layer, busy, interleave
from daukit.cli.main import app
from daukit.workflows.bench import time_commands

runner = CliRunner()


def test_tasks_run_once_to_warm_up_and_then_in_turn():
    order = []
    times = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert order == ["a", "b"] * 4
    assert all(0 <= t.lower <= t.median <= t.upper for t in times.values())


def test_a_layer_is_timed_forward_and_backward_beside_its_yardsticks():
    times = bench_layer((1, 3, 4, 8), rounds=3)
    assert {name.split(" ", 1)[0] for name in times} == {"forward", "backward"}
    for name in ("forward conv 3x3", "forward conv 9x9", "forward DAU K=2", "backward conv 3x3", "backward DAU K=2"):
        assert times[name].median > 0


def test_a_yardstick_that_spreads_or_crawls_is_called_busy():
    shape = (8, 96, 96, 32)  # 1.36 GFLOP
    times = {"forward conv 3x3": Quartiles(10, 10.5, 11)}  # 129 GFLOP/s
    assert busy(times, shape, 200.0) is None
    assert "reaches 129 of 500 GFLOP/s" in busy(times, shape, 500.0)
    assert "spread from 10.00 to 14.00 ms" in busy({"forward conv 3x3": Quartiles(10, 11, 14)}, shape, None)


def test_json_holds_the_machine_and_every_task():
    threads = torch.get_num_threads()
    result = runner.invoke(app, ["bench", "--shape", "1,2,3,5", "--rounds", "3", "--no-networks", "--json"])
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["machine"]["threads"] == threads
    assert data["layers"][0]["shape"] == [1, 2, 3, 5]
    assert data["layers"][0]["times"]["forward DAU K=4"]["median"] > 0


@pytest.mark.skipif(ops.backends()["native"] != "available", reason=ops.backends()["native"])
def test_backends_are_timed_on_the_same_layer():
    assert set(bench_backends("tiny", rounds=3)) == {
        f"{way} {backend}" for way in ("forward", "backward") for backend in ("dense", "native")
    }


@pytest.mark.slow
def test_commands_are_timed_as_processes(monkeypatch):
    # Each takes seconds to import torch: once is enough here.
    monkeypatch.setattr("daukit.workflows.bench.time_commands", lambda **_: time_commands(rounds=1))
    result = runner.invoke(app, ["bench", "--commands", "--json"])
    assert result.exit_code == 0, result.output
    times = json.loads(result.stdout)["commands"]
    assert set(times) == {"import torch"} | {
        f"daukit {name}" for name in ("--help", "info", "prune", "plot-offsets", "erf", "rescale")
    }
    assert times["daukit --help"]["median"] < times["daukit erf"]["median"]


@pytest.mark.parametrize("shape", ["8,96,96", "8,96,96,0", "a,b,c,d"])
def test_a_wrong_shape_is_a_usage_error(shape):
    result = runner.invoke(app, ["bench", "--shape", shape])
    assert result.exit_code == 2
    assert "is not a shape like 8,96,96,32" in result.output


def test_a_device_that_is_not_there_is_a_usage_error():
    result = runner.invoke(app, ["bench", "--device", "cuda:99"])
    assert result.exit_code == 2 and "--device" in result.output
