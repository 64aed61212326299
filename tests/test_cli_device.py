"""``--device auto``: the GPU that computes, and words about it; elsewhere the CPU, in silence."""

import pytest
import torch
import typer

from daukit import distributed
from daukit.cli import devices

GPU = "NVIDIA Imagination 9"


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that torch sees; computing on it works, unless the test says otherwise."""
    zeros = torch.zeros
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: GPU)
    monkeypatch.setattr(torch, "zeros", lambda *size, device: zeros(*size, device=str(device).replace("cuda", "cpu")))


def test_a_gpu_is_taken_and_named(gpu, capsys):
    assert devices.choose("auto") == "cuda"
    said = capsys.readouterr().err
    assert GPU in said and "--device cpu" in said


def test_one_that_cannot_compute_is_left_alone_and_the_reason_is_said(gpu, monkeypatch, capsys):
    def fail(*size, device):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore lines")

    monkeypatch.setattr(torch, "zeros", fail)
    assert devices.choose("auto") == "cpu"
    said = capsys.readouterr().err
    assert "no kernel image" in said and "more lines" not in said and "on the CPU" in said
    with pytest.raises(typer.BadParameter, match="no kernel image"):
        devices.choose("cuda")


def test_none_is_touched_where_nothing_is_computed(gpu, capsys):
    assert devices.choose("auto", used=False) == "cpu" and capsys.readouterr().err == ""


def test_without_a_gpu_it_is_the_cpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.choose("auto") == "cpu" and capsys.readouterr().err == ""


def test_a_device_that_is_named_is_taken_or_refused(gpu):
    assert devices.choose("cuda:0") == "cuda:0"
    with pytest.raises(typer.BadParameter, match="give auto, cpu, cuda, cuda:1 or mps"):
        devices.choose("abacus")
    with pytest.raises(typer.BadParameter, match="holds no numbers"):
        devices.choose("meta")


def test_each_of_several_processes_takes_a_gpu_of_its_own_or_none_does(gpu, monkeypatch, capsys):
    taken = []
    monkeypatch.setattr(distributed, "_here", distributed.Ranks(3, 4, local=1))
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert devices.choose("auto") == devices.choose("cuda") == "cuda:1" and taken == ["cuda:1"] * 2
    assert devices.choose("cpu") == "cpu" and len(taken) == 2

    def fail(*size, device):
        raise RuntimeError("CUDA error: invalid device ordinal")

    monkeypatch.setattr(torch, "zeros", fail)
    with pytest.raises(typer.BadParameter, match=r"^'cuda:1' cannot be used: CUDA error: invalid device ordinal"):
        devices.choose("auto")
