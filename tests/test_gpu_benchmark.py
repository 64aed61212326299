"""What ``daukit bench --device cuda`` measures, on the device at hand: rates, named precisions, checked results."""

import json
import math
from dataclasses import replace

import pytest
import torch

from daukit.benchmark import Quartiles
from daukit.cli import printing
from daukit.cli.bench_tables import print_gpu
from daukit.errors import DaukitError
from daukit.gpu_benchmark import Task, Timed, bench_layer, bench_network, measure
from daukit.ops import choices
from daukit.ops.choices import Decision
from daukit.ops.cuda import tuning
from daukit.ops.precision import tf32
from daukit.workflows.bench_gpu import time_on_gpu

CPU = torch.device("cpu")


def test_layers_are_timed_at_every_precision_that_they_know():
    timed = bench_layer((2, 3, 4, 8), CPU, rounds=3)
    names = {name.removeprefix("forward ") for name in timed if not name.startswith("forward and backward")}
    assert names >= {f"conv {side}x{side}, {precision}" for side in (3, 9) for precision in ("fp32", "TF32", "bf16")}
    assert "DAU kernels K=2, fp32" in names and "DAU kernels K=2, TF32" not in names
    assert {f"forward and backward {name}" for name in names} <= set(timed)


def test_rates_are_the_definitions_operations_and_bytes_over_the_median():
    timed = bench_layer((2, 3, 4, 8), CPU, rounds=3)
    layer = timed["forward DAU kernels K=2, fp32"]
    seconds = 1e-3 * layer.times.median
    # Four multiply-adds a unit and pixel; image, output, weights and displacements of four bytes each.
    assert math.isclose(layer.flops_per_second * seconds, 8 * 2 * 2 * 3 * 4 * 64, rel_tol=1e-9)
    assert math.isclose(layer.bytes_per_second * seconds, 4 * (2 * 3 * 64 + 2 * 4 * 64 + 24 + 48), rel_tol=1e-9)
    convolution = timed["forward conv 9x9, bf16"]
    assert math.isclose(
        1e-3 * convolution.times.median * convolution.flops_per_second, 2 * 81 * 2 * 12 * 64, rel_tol=1e-9
    )
    assert 0 < layer.error <= 1


def test_a_wrong_result_ends_the_run():
    task = Task(lambda: torch.zeros(1), "fp32", check=lambda output: 1.5)
    with pytest.raises(DaukitError, match=r"wrong: the result's error is 1.5 times what rounding explains"):
        measure({"wrong": task}, CPU, 3)
    task = Task(lambda: torch.zeros(1), "fp32", check=lambda output: math.nan)
    with pytest.raises(DaukitError, match="error is nan times"):
        measure({"wrong": task}, CPU, 3)


def test_a_result_that_changes_ends_the_run():
    calls = iter(range(100))
    with pytest.raises(DaukitError, match="restless: the same call gave two results"):
        measure({"restless": Task(lambda: torch.tensor(next(calls)), "fp32", repeats=True)}, CPU, 3)


@pytest.mark.parametrize(("precision", "setting"), [("fp32", "ieee"), ("TF32", "tf32"), ("bf16", "ieee")])
def test_a_tasks_precision_holds_for_matrices_and_convolutions_while_it_runs(precision, setting, monkeypatch):
    seen = set()

    def run():
        settings = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
        seen.add(tuple("ieee" if said == "none" else said for said in settings))  # what none means on a GPU
        return torch.zeros(1)

    monkeypatch.setattr("daukit.gpu_benchmark.tf32", lambda allowed, device: tf32(allowed, torch.device("cuda")))
    measure({"task": Task(run, precision)}, CPU, 3)
    assert seen == {(setting, setting)}


def test_what_was_chosen_for_a_tasks_layers_is_kept(monkeypatch):
    task = Task(lambda: choices.note("backward gaussian 1110", "dense", {"cuda": 4.0, "dense": 1.0}, None), "fp32")
    assert measure({"task": task}, CPU, 3)["task"].decisions == (
        Decision("backward", "dense", "rule", {"cuda": 1.0, "dense": 0.25}),
    )


@pytest.mark.parametrize("tuned", [False, True])
def test_the_ways_are_timed_where_that_is_asked_for(tuned, monkeypatch):
    asked = []

    def bench_layer(*_, **__):
        asked.append(tuning._is_asked_for())
        return {}

    monkeypatch.setattr("daukit.gpu_benchmark.bench_layer", bench_layer)
    monkeypatch.setattr(tuning, "_save", lambda: asked.append("saved"))
    result = time_on_gpu("cpu", [(1, 2, 3, 5)], networks=False, tuned=tuned, rounds=3)
    assert asked == [tuned, *["saved"] * tuned] and result.tuned == tuned


def test_networks_are_trained_with_convolutions_and_with_daus():
    timed = bench_network("shallow", (2, 1, 28, 28), CPU, rounds=3)
    names = [f"training step {twin}, {p}" for twin in ("shallow", "shallow_dau") for p in ("fp32", "TF32", "bf16")]
    assert list(timed) == names


def test_the_command_prints_rates_beside_the_devices_limits(monkeypatch, capsys):
    ruled = Decision("forward", "spectral", "rule", {"cuda": 1.0, "spectral": 0.25})
    timed_ones = Decision("backward", "cuda", "measurement", {"cuda": 0.5, "dense": None})
    times = Timed(Quartiles(1, 2, 3), 3e12, 5e10, None, Quartiles(0.1, 0.125, 0.2), (ruled, timed_ones))
    many = Timed(Quartiles(1, 2, 3), 3e12, 5e10, None, None, (ruled, ruled, replace(ruled, way="cuda")))
    timed = {"forward conv 3x3, fp32": times, "training step": many}
    monkeypatch.setattr("daukit.gpu_benchmark.bench_layer", lambda *_, **__: timed)
    limits = {"flops_per_second": 12e12, "bytes_per_second": 1e12}
    monkeypatch.setattr("daukit.gpu_benchmark.device_peaks", lambda device: limits)
    for as_json in (False, True):
        printing.speak(json=as_json, quiet=False)
        print_gpu(time_on_gpu("cpu", [(1, 2, 3, 5)], networks=False, rounds=3))
        text = capsys.readouterr().out
        if as_json:
            data = json.loads(text)
            assert data["limits"] == limits and data["measured"]["layer 1,2,3,5"]
        else:
            assert "3.00 (25%)" in text and "50.00 (5%)" in text and "0.125" in text
            for line in (
                "forward conv 3x3, fp32: forward by spectral, as the rule counts (spectral 0.25, cuda 1)",
                "forward conv 3x3, fp32: backward by cuda, as measured (cuda 0.5 ms, dense no memory)",
                "training step: forward by spectral, as the rule counts (2 of 3 layers)",
                "training step: forward by cuda, as the rule counts (1 of 3 layers)",
            ):
                assert line in text.splitlines()
