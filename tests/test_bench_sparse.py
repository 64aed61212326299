"""``daukit bench --sparse``: what is timed is the convolution with its zeros, and crossovers follow from the times."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from daukit import benchmark
from daukit.benchmark import Quartiles, engines
from daukit.benchmark.sparse import SparseCase, bench_sparse, make_sparse, with_zeros
from daukit.cli.main import app
from daukit.workflows.bench_sparse import time_sparse

runner = CliRunner()


def test_a_copy_loses_its_share_of_weights_and_the_network_none():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 5, 3), nn.Conv2d(5, 6, 1), nn.Conv2d(6, 7, 7))
    sparse, again, other = with_zeros(network, 0.2, 0), with_zeros(network, 0.2, 0), with_zeros(network, 0.2, 1)
    counts = [int((layer.weight != 0).sum()) for layer in sparse]
    assert counts == [36, 6, 6 * 7 * 49]  # 7x7 is none of the sizes
    assert all(bool((layer.weight != 0).all()) for layer in network)
    assert torch.equal(sparse[0].weight, again[0].weight) and not torch.equal(sparse[0].weight, other[0].weight)
    kept = sparse[0].weight != 0
    assert torch.equal(sparse[0].weight[kept], network[0].weight[kept])


@given(st.dictionaries(st.floats(0.001, 1), st.floats(0.01, 100), min_size=1, max_size=6))
def test_a_crossover_is_a_density_within_those_measured(ratios):
    found = benchmark.crossover(ratios)
    if found is None:
        assert ratios[min(ratios)] >= 1
    else:
        assert min(ratios) <= found <= max(ratios)
        assert all(ratio < 1 for density, ratio in ratios.items() if density < found)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ({1.0: 3.0, 0.5: 1.5, 0.1: 0.5}, 0.3),  # half of the way from 0.1 to 0.5
        ({0.1: 0.9, 0.2: 1.0}, 0.2),
        ({0.1: 0.5, 0.2: 0.6}, 0.2),
        ({0.1: 1.1, 0.2: 0.9}, None),
        ({0.05: 0.5, 0.1: 1.5, 0.2: 0.9}, 0.075),
    ],
)
def test_the_crossover_lies_where_the_ratio_is_one(ratios, expected):
    assert benchmark.crossover(ratios) == (None if expected is None else pytest.approx(expected, rel=1e-12))


def test_the_networks_of_the_bench_become_sparse_and_compute_the_same():
    for case in benchmark.network_cases(quick=True):
        torch.manual_seed(0)
        dense = with_zeros(case.build().eval(), 0.5, 0)
        sparse = with_zeros(dense, 1, 0)
        make_sparse(sparse)
        kernels = [one.kernel_size for one in sparse.modules() if isinstance(one, nn.Conv2d)]
        assert kernels == [(7, 7)] * (case.name == "resnet50")
        x = torch.randn(case.input)
        expected = dense(x)
        assert (sparse(x) - expected).abs().max() <= 1e-4 * expected.abs().max()


def small(name="small"):
    return SparseCase(
        name, (1, 2, 3, 5), (1, 2, 5, 5), lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3))
    )


def test_engines_that_are_here_are_timed_and_others_named(monkeypatch):
    def fails(network, image):
        raise RuntimeError("no such operator\nand more")

    kinds = {"ours": (("torch",), lambda network, image: lambda: network(image)), "broken": (("torch",), fails)}
    monkeypatch.setattr(engines, "_ENGINES", {**kinds, "absent": (("nowhere_to_be_found",), fails)})
    times, left_out = bench_sparse(small(), densities=(0.5,), rounds=3)
    assert list(times[0.5]) == ["torch", "torch folded", "ours", "sparse", "prepared"]
    assert len(left_out) == 2 and all("\n" not in sentence for sentence in left_out)
    assert left_out[0].startswith("broken is left out") and "no such operator" in left_out[0]
    assert left_out[1] == "absent is left out: nowhere_to_be_found not installed"


def test_crossovers_are_those_of_the_times(monkeypatch):
    def timed(case, *, densities, rounds, seed):
        speeds = {1.0: 4.0, 0.1: 0.25}
        quartiles = {density: Quartiles(1, speeds[density], 9) for density in densities}
        one = Quartiles(1, 1, 1)
        return {
            d: {"torch": one, "fast": Quartiles(0, 0.2, 1), "sparse": q, "prepared": one} for d, q in quartiles.items()
        }, []

    monkeypatch.setattr(benchmark, "bench_sparse", timed)
    result = time_sparse([(1, 2, 3, 5)], networks=False, quick=True)
    assert [one.name for one in result.sparse] == ["conv 3x3", "conv 5x5", "conv 1x1"]
    # From 0.25 at 10 % to 4 at 100 %, one is a fifth of the way.
    expected = pytest.approx(0.1 + 0.9 * 0.2)
    assert result.sparse[0].crossovers == {
        "sparse": {"torch": expected, "fast": None}, "prepared": {"torch": None, "fast": None}
    }  # fmt: skip
    assert result.sparse[0].densities[0].ratios == {
        "sparse": {"torch": 4, "fast": pytest.approx(20)}, "prepared": {"torch": 1, "fast": pytest.approx(5)}
    }  # fmt: skip


def test_a_quick_run_prints_ratios_and_json(monkeypatch):
    monkeypatch.setattr(benchmark, "network_cases", lambda quick: [small()])
    monkeypatch.setattr(engines, "_ENGINES", {})
    words = ["bench", "--sparse", "--quick", "--rounds", "3"]
    printed = runner.invoke(app, words)
    assert printed.exit_code == 0, printed.output
    for text in ("prepared / torch", "conv 5x5 (1, 8, 8, 12)", "small (1, 2, 3, 5)", "10 %", "density below which"):
        assert text in printed.stdout
    result = runner.invoke(app, [*words, "--json", "--shape", "1,2,3,5", "--no-networks"])
    data = json.loads(result.stdout)
    assert [(one["name"], one["shape"]) for one in data["sparse"]] == [
        (f"conv {k}x{k}", [1, 2, 3, 5]) for k in (3, 5, 1)
    ]
    first = data["sparse"][0]
    assert [one["density"] for one in first["densities"]] == [1.0, 0.1]
    assert set(first["densities"][0]["times"]) == {"torch", "sparse", "prepared"} == {"torch", *first["crossovers"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sparse", "--backends"], "give one of them"),
        (["--sparse", "--peers"], "dcls is not sparse"),
        (["--quick"], "makes --sparse quick"),
        (["--sparse", "--commands"], "give one of them"),
    ],
)
def test_options_without_a_use_are_refused(words, said):
    result = runner.invoke(app, ["bench", *words])
    assert result.exit_code == 2 and said in " ".join(result.output.split())
