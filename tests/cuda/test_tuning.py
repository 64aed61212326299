"""The choice by measurement, with a clock that is told what it shows."""

import json
import math
import subprocess
import sys

import pytest
import torch
from cases import CASES
from emulator.build import NEEDS_COMPILER

import daukit
from daukit import ops
from daukit._version import __version__
from daukit.errors import CudaError, CudaUnavailableError
from daukit.ops import dau_conv2d, dispatch
from daukit.ops.cuda import KERNELS, availability, cache, cost, tuning

pytestmark = NEEDS_COMPILER
BY_NAME = {case.name: case for case in CASES}
WAYS = set(dispatch.WAYS)


@pytest.fixture
def clock(gpu, few_instances, monkeypatch, tmp_path):
    """Times by way, and what was timed."""
    times, timed = dict.fromkeys(WAYS, 1.0), []

    def seconds(device, run):
        way = next(way for way, backend in dispatch.WAYS.items() if backend is run.args[0].backend)
        timed.append(way)
        run()
        if isinstance(times[way], Exception):
            raise times[way]
        return times[way]

    monkeypatch.setattr(gpu, "seconds", seconds, raising=False)
    monkeypatch.setattr(tuning, "_times", {})
    monkeypatch.setattr(tuning, "_dropped", set())
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    monkeypatch.setattr(ops, "choose_backend", lambda *_: "auto")
    monkeypatch.setattr(dispatch, "cheapest", lambda *_: "cuda")
    monkeypatch.setattr(cost, "TIMED", math.inf)  # these images are so small that the rule counts all but one far out
    return times, timed


def used(name="plain", mu_gradient="gaussian", backward=False):
    """Names of the backends that a call and, if asked for, its backward used; and the output."""
    found, run = [], dispatch._run

    def noting(choice, *rest):
        found.append(choice.backend.name)
        return run(choice, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "_run", noting)
        arguments = BY_NAME[name].arguments(torch.float32)
        output = dau_conv2d(**arguments, mu_gradient=mu_gradient)
        if backward:
            output.sum().backward()
    return found, output


def test_unless_it_is_asked_for_nothing_is_timed_and_the_rule_stands(clock):
    _, timed = clock
    assert used(backward=True)[0] == ["cuda", "cuda"] and not timed


def test_each_way_of_a_pass_is_timed_once_and_the_fastest_is_used_from_then_on(clock):
    times, timed = clock
    times["spectral"] = 0.5
    with daukit.tune():
        found, tuned = used()
        assert found == ["spectral"] and sorted(timed) == sorted(WAYS)
        used()
    assert len(timed) == len(WAYS)
    times["dense"] = 0.1  # nobody looks any more
    found, again = used()
    assert found == ["spectral"] and torch.equal(tuned, again)
    torch.testing.assert_close(tuned, dau_conv2d(**BY_NAME["plain"].arguments(torch.float64)).float())


def test_passes_geometries_and_dtypes_are_timed_apart(clock):
    _, timed = clock
    with daukit.tune():
        for name, gradient in (
            ("plain", "gaussian"),
            ("plain", "exact"),
            ("groups", "gaussian"),
            ("ragged", "gaussian"),
        ):
            used(name, gradient, backward=True)
    # A forward is the same whatever gradient is asked for later: three forwards and four backwards.
    assert len(timed) == 7 * len(WAYS)


def test_cudnn_benchmark_asks_for_the_same(clock, monkeypatch):
    times, _ = clock
    times["dense"] = 0.5
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    assert used()[0] == ["dense"]


def test_nothing_is_timed_while_a_graph_is_captured(clock, monkeypatch):
    times, timed = clock
    times["dense"] = 0.5
    with daukit.tune():
        monkeypatch.setattr(tuning, "_is_capturing", lambda device: True)
        assert used()[0] == ["cuda"] and not timed
        monkeypatch.setattr(tuning, "_is_capturing", lambda device: False)
        assert used()[0] == ["dense"]
        monkeypatch.setattr(tuning, "_is_capturing", lambda device: True)
        assert used()[0] == ["dense"]  # what was timed before stands


def test_a_way_without_enough_memory_is_not_the_fastest(clock):
    times, _ = clock
    times.update({"spectral": torch.OutOfMemoryError("no memory"), "dense": 0.9})
    with daukit.tune():
        assert used()[0] == ["dense"]
        times.update(dict.fromkeys(WAYS, math.inf))
        assert used("groups")[0] == ["cuda"]


SECOND = "cuda, second tile"


def test_a_tile_that_does_not_run_here_is_dropped_and_the_kernels_stay(clock, monkeypatch, recwarn):
    times, timed = clock
    times[SECOND] = 0.25

    def fail(*_, **__):
        raise CudaUnavailableError("does not compile")

    monkeypatch.setattr(dispatch.WAYS[SECOND], "sum_units", fail)
    with daukit.tune():
        _, output = used()
    assert SECOND in timed and used()[0] == ["cuda"] and not recwarn
    torch.testing.assert_close(output, dau_conv2d(**BY_NAME["plain"].arguments(torch.float64)).float())
    assert availability.why_not(output.device) is None


def test_a_tile_that_ran_where_it_was_timed_and_not_here_is_followed_by_the_next(clock, monkeypatch):
    times, _ = clock
    times.update({SECOND: 0.25, "cuda, third tile": 0.5})
    with daukit.tune():
        _, output = used()
    saved = json.dumps(tuning._times)

    def fail(*_, **__):
        raise CudaUnavailableError("does not compile")

    for way in (SECOND, "cuda, third tile"):
        monkeypatch.setattr(dispatch.WAYS[way], "sum_units", fail)
        times[way] = 1.0
    with ops.record_choices() as decisions:
        assert torch.equal(used()[1], dau_conv2d(**BY_NAME["plain"].arguments(torch.float32)))
    assert [one.way for one in decisions[:3]] == [SECOND, "cuda, third tile", "cuda"]
    assert len(decisions) == 4  # the second call knows
    torch.testing.assert_close(output, used()[1])
    assert json.dumps(tuning._times) == saved  # by another compiler they may run again


def test_an_error_that_is_not_a_ways_own_ends_the_call(clock, monkeypatch):
    clock[0][SECOND] = 0.25
    with daukit.tune():
        used()

    def fail(*_, **__):
        raise CudaError("an earlier kernel may have failed")

    monkeypatch.setattr(dispatch.WAYS[SECOND], "sum_units", fail)
    with pytest.raises(CudaError, match="an earlier kernel"):
        used()


@pytest.mark.parametrize("way", ["dense", "dense, channels last", "spectral"])
@pytest.mark.parametrize("wrong", [[1, 1, 3], [0, 4, 3], [0, 1, 2], [0, -1, 3], [2, 3, 5]])
def test_the_other_ways_assert_pointers_too(way, wrong, clock):
    clock[0][way] = 0.25
    x, weight, mu = torch.ones(1, 1, 4, 4), torch.ones(3), torch.zeros(2, 3)
    with daukit.tune():
        dau_conv2d(x, weight, mu, unit_ptr=torch.tensor([0, 1, 3], dtype=torch.int32))
    with ops.record_choices() as decisions, pytest.raises(RuntimeError, match="must rise from 0 to the number of"):
        dau_conv2d(x, weight, mu, unit_ptr=torch.tensor(wrong, dtype=torch.int32))
    assert decisions[0].way == way


def test_a_dilated_layer_has_the_kernels_alone(clock):
    _, timed = clock
    with daukit.tune():
        assert used("dilation")[0] == ["cuda"] and timed == list(KERNELS)


def test_another_tile_than_the_models_is_taken_where_it_is_faster_and_gives_the_same(clock, gpu):
    times, _ = clock
    _, expected = used()
    first = next(one.source for one in gpu.launched if one.kernel == "dau_forward")
    times["cuda, second tile"] = 0.5
    with daukit.tune():
        used()
    gpu.launched.clear()
    _, output = used()
    second = next(one.source for one in gpu.launched if one.kernel == "dau_forward")
    assert first.file == second.file and dict(first.macros) != dict(second.macros)
    torch.testing.assert_close(output, expected)


def test_what_is_chosen_can_be_asked_for_with_its_figures(clock, monkeypatch):
    times, _ = clock
    with ops.record_choices() as decisions:
        used(backward=True)
    assert [(one.step, one.way, one.by) for one in decisions] == [
        ("forward", "cuda", "rule"),
        ("backward", "cuda", "rule"),
    ]
    assert decisions[0].figures["cuda"] == 1 and set(decisions[0].figures) == {"cuda", *dispatch.NEAR}
    times.update({"spectral": 2e-3, "dense": torch.OutOfMemoryError("no memory")})
    with daukit.tune(), ops.record_choices() as decisions:
        used()
    (one,) = decisions
    assert (one.way, one.by, one.figures["spectral"], one.figures["dense"]) == ("spectral", "measurement", 2, None)
    with ops.record_choices() as decisions:
        pass
    used()
    assert not decisions


def forgotten():
    """As in another process."""
    tuning._times.clear()


def test_what_is_saved_is_used_by_later_processes_without_asking(clock):
    times, timed = clock
    times["spectral"] = 0.5
    with daukit.tune(save=True):
        used()
    forgotten()
    timed.clear()
    assert used()[0] == ["spectral"] and not timed
    content = json.loads(cache.read(tuning.FILE))
    assert content["daukit"] == __version__ and list(content["cards"]) == ["emulated card"]


@pytest.mark.parametrize("damage", ["cut", "no JSON", "another version", "another format", "another card", "a list"])
def test_a_file_that_is_damaged_or_of_others_is_as_none(clock, damage, tmp_path):
    times, _ = clock
    times["spectral"] = 0.5
    with daukit.tune(save=True):
        used()
    forgotten()
    content = json.loads(cache.read(tuning.FILE))
    if damage == "cut":
        path = tmp_path / "kernels" / tuning.FILE
        path.write_bytes(path.read_bytes()[:-1])
    else:
        changed = {
            "no JSON": "{",
            "another version": json.dumps({**content, "daukit": "0.0.1"}),
            "another format": json.dumps({**content, "format": 0}),
            "another card": json.dumps({**content, "cards": {"another": content["cards"]["emulated card"]}}),
            "a list": "[]",
        }
        cache.keep(tuning.FILE, changed[damage].encode())
    assert used()[0] == ["cuda"]
    times["dense"] = 0.25
    with daukit.tune(save=True):
        assert used()[0] == ["dense"]
    forgotten()
    assert used()[0] == ["dense"]


def test_a_way_that_this_version_does_not_know_is_timed_anew(clock):
    times, _ = clock
    with daukit.tune(save=True):
        used()
    content = json.loads(cache.read(tuning.FILE))
    for known in content["cards"].values():
        known.update({key: {"abacus": 1e-9} for key in known})
    cache.keep(tuning.FILE, json.dumps(content).encode())
    forgotten()
    times["dense"] = 0.5
    assert used()[0] == ["cuda"]
    with daukit.tune():
        assert used()[0] == ["dense"]


@pytest.mark.slow
def test_a_file_that_several_processes_write_at_once_stays_whole(clock, tmp_path):
    code = (
        "import sys; from daukit.ops.cuda import tuning as t; t._times['card'] = {sys.argv[1]: {'cuda': 1}}; t._save()"
    )
    for name in ("first", "second"):
        subprocess.run([sys.executable, "-c", code, name], check=True)
    assert tuning._read() == {"card": {"first": {"cuda": 1}, "second": {"cuda": 1}}}
    running = [subprocess.Popen([sys.executable, "-c", code, f"p{i}"]) for i in range(4)]
    assert [one.wait() for one in running] == [0] * 4
    # Whoever wrote last knew those who had written before it began, and the file is whole.
    assert {"first", "second"} <= set(tuning._read()["card"])
