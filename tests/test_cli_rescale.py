"""``daukit rescale`` as a user runs it: what it prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import daukit
from daukit.checkpoint import from_model
from daukit.errors import OutputError
from daukit.models import create_model, record_of
from daukit.models.factory import resolve_factory
from daukit.preprocessing import Preprocessing
from daukit.rescale import Difference


class Run(NamedTuple):
    code: object
    out: str
    err: str


COMMAND = "rescale"
Command = Callable[..., Run]


@pytest.fixture
def command(run: Callable[..., tuple[int, str, str]]) -> Command:
    return lambda *arguments: Run(*run(*arguments))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A network whose displacements are all +-1.75 or, in one unit of conv3, 3."""
    torch.manual_seed(0)
    model = create_model("shallow_dau", channels=[2, 2, 3], units=4)
    with torch.no_grad():
        model.conv3.mu[0, 0, 0, 0] = -3.0
    record = record_of(model)
    assert record is not None
    record.preprocessing = Preprocessing((0.5,), (0.5,), "gray", (28, 28))
    daukit.save(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("│ ").split("│")]


def _rows(table: str) -> list[list[str]]:
    return [_cells(line) for line in table.splitlines() if line.startswith("│")]


def test_factor_writes_a_file_that_loads_and_reports_what_changed(
    command: Command, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.safetensors"
    run = command(source, "--factor", "conv3=2", "-o", output, "--json")
    assert run.code == 0
    result = json.loads(run.out)
    assert [(layer["name"], layer["factor"]) for layer in result["layers"]] == [
        ("conv1", 1),
        ("conv2", 1),
        ("conv3", 2),
    ]
    change = result["layers"][2]
    assert (change["limit_before"], change["limit_after"]) == (4, 8)
    assert (change["displacement_before"], change["displacement_after"]) == (3, 6)
    assert (change["clipped"], result["clipped"], result["mode"], result["pools"]) == (1, 1, "paper", [])
    assert (result["bytes_before"], result["bytes_after"]) == (source.stat().st_size, output.stat().st_size)
    before, after = daukit.load(source), daukit.load(output)
    assert torch.equal(after.conv3.mu, 2 * before.conv3.mu)
    assert after.conv3.max_displacement == 8
    assert from_model(after).header == daukit.read(output).header


def test_table_and_notes_say_what_changed(command: Command, source: Path, tmp_path: Path) -> None:
    run = command(source, "--factor", "conv3=2", "-o", tmp_path / "out.safetensors")
    row = next(line for line in run.out.splitlines() if "conv3" in line)
    assert _cells(row) == ["conv3", "DAUConv2d", "2", "4 -> 8", "3 -> 6", "1", "1"]
    assert "which would have clipped them: 1" in run.err
    assert f"-> {(tmp_path / 'out.safetensors').stat().st_size:,} bytes" in run.out
    assert f"wrote {tmp_path / 'out.safetensors'}" in run.err


def test_remove_pool_exact_proves_itself_on_noise(command: Command, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    arguments = ("--remove-pool", "pool2", "--remove-pool", "pool3", "--mode", "exact", "--verify")
    run = command(source, *arguments, "-o", output, "--json")
    assert run.code == 0
    result = json.loads(run.out)
    assert result["pools"] == ["pool2", "pool3"]
    factors = {layer["name"]: layer["factor"] for layer in result["layers"]}
    assert factors == {"conv1": 1, "conv2": 1, "conv3": 2, "classifier": 4}
    assert result["verify"]["relative"] <= 1e-6
    assert result["verify"]["positions"] >= 25
    before, after = daukit.load(source), daukit.load(output)
    image = torch.randn(1, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(after(image)[:, :, 0, 0], before(image))
    talk = command(source, *arguments, "-o", output, "--overwrite").err
    assert "pool2, pool3: kept at stride 1" in talk
    assert "on noise of 68 x 68, the largest difference at 36 common positions (0 missing) is" in talk
    assert "promises less than 1e-6" in talk and "does not promise" not in talk
    assert "checked on noise of 28 x 28: " in talk


@pytest.mark.parametrize("mode", ["paper", "exact"])
def test_verify_reports_the_errors_of_both_modes(command: Command, source: Path, mode: str) -> None:
    arguments = ("--remove-pool", "pool3", "--mode", mode, "--verify", "--dry-run")
    result = json.loads(command(source, *arguments, "--json").out)
    both = result["verify_modes"]
    assert both["exact"]["relative"] <= 1e-6 < 1e-3 < both["paper"]["relative"]
    assert both["exact"]["positions"] == both["paper"]["positions"] >= 25
    assert result["verify"] == both[mode]
    talk = command(source, *arguments).err
    for name in ("paper", "exact"):
        assert f"the largest difference at {both[name]['positions']} common positions (0 missing) is" in talk
        assert f"{both[name]['relative']:.2g} of the largest output" in talk


def test_the_plan_is_printed_before_anything_is_written(
    command: Command, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> int:
        raise OutputError("the disk is full")

    monkeypatch.setattr("daukit.workflows.rescale.write", full)
    run = command(source, "--remove-pool", "pool2", "-o", tmp_path / "out.safetensors")
    assert (run.code, list(tmp_path.iterdir())) == (1, [source])
    assert "the disk is full" in run.err
    rows = {cells[0]: cells for cells in _rows(run.out)}
    assert rows["conv3"][2:5] == ["2", "4 -> 8", "3 -> 6"]
    assert rows["classifier"][1:3] == ["Linear -> Conv2d", "2"]


def test_the_plan_of_a_second_definition_is_the_papers(command: Command, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"channels": [2, 2, 2, 2, 2], "hidden": 3, "num_classes": 2, "input_size": [67, 67]}
    daukit.save(create_model("alexnet_dau", **options), tmp_path / "alexnet.safetensors")
    arguments = (tmp_path / "alexnet.safetensors", "--like", "alexnet_dau", "--like-arg", "task=segmentation")
    result = json.loads(command(*arguments, "--dry-run", "--json").out)
    factors = {layer["name"]: layer["factor"] for layer in result["layers"]}
    assert factors == {"conv1": 1, "conv2": 1, "conv3": 2, "conv4": 2, "conv5": 2, "fc6": 4, "fc7": 4, "fc8": 4}
    assert (result["pools"], result["strides"]) == (["pool2", "pool5"], [])
    assert (result["like"]["pools"], result["like"]["missing"]) == (["pool2", "pool5"], ["fc8"])
    assert {"conv2", "conv3", "conv5", "fc6", "fc7"} < set(result["like"]["checked"])
    run = command(*arguments, "--dry-run")
    assert [(cells[0], cells[2]) for cells in _rows(run.out)] == [(n, f"{f:g}") for n, f in factors.items()]
    assert "the second one lacks fc8" in run.err
    near = command(*arguments[:-1], "tsk=segmentation", "--dry-run")
    assert (near.code, near.out) == (1, "")
    assert "no option 'tsk'; did you mean 'task'?" in near.err


def test_strides_of_layers_are_removed_and_shown(command: Command, tmp_path: Path) -> None:
    network = tmp_path / "network.py"
    network.write_text(
        "import daukit\nfrom torch import nn\n\n"
        "def make():\n"
        "    first = nn.Conv2d(1, 2, 3, stride=2, padding=1)\n"
        "    return nn.Sequential(first, daukit.DAUConv2d(2, 2, 2, stride=2), nn.Conv2d(2, 1, 3))\n"
    )
    factory = f"{network}:make"
    model = resolve_factory(factory)()
    daukit.save(model, tmp_path / "in.safetensors", architecture={"factory": factory, "config": {}})
    arguments = ("--model", factory, "--remove-stride", "0", "--remove-stride", "1", "--mode", "exact", "--verify")
    output = tmp_path / "out.safetensors"
    run = command(tmp_path / "in.safetensors", *arguments, "--size", "21,30", "-o", output)
    assert run.code == 0
    rows = {cells[0]: (cells[2], *cells[5:7]) for cells in _rows(run.out)}
    assert rows == {"0": ("1", "1", "2 -> 1"), "1": ("2", "1 -> 2", "2 -> 1"), "2": ("4", "1 -> 4", "1")}
    assert "0, 1: stride 1" in run.err
    image = torch.randn(1, 1, 21, 30)
    with torch.no_grad():
        fine = daukit.load(output, model=factory)(image)
        torch.testing.assert_close(fine[..., ::4, ::4], model(image))


def test_padded_heads_say_where_the_former_answer_lies(command: Command, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    arguments = ("--remove-pool", "pool3", "--mode", "exact", "--head-padding", "same", "--verify")
    run = command(source, *arguments, "-o", output, "--json")
    assert run.code == 0
    result = json.loads(run.out)
    assert result["head_position"] == [2, 2]  # 3 x 3 positions, 2 apart
    before, after = daukit.load(source), daukit.load(output)
    image = torch.randn(1, 1, 28, 28)
    with torch.no_grad():
        dense = after(image)
        torch.testing.assert_close(dense[:, :, 2, 2], before(image))
    assert dense.shape[2:] == (6, 6)  # 28, pooled twice to 7, and by 2 at stride 1
    assert "lies at position (2, 2)" in command(source, *arguments, "--dry-run").err


def test_displacements_that_training_will_clip_are_reported(command: Command, source: Path, tmp_path: Path) -> None:
    model = daukit.load(source)
    with torch.no_grad():
        model.conv2.mu[1, 0, 0, 0] = 4.5
    daukit.save(model, tmp_path / "over.safetensors")
    arguments = (tmp_path / "over.safetensors", "--factor", "conv2=2", "--dry-run")
    result = json.loads(command(*arguments, "--json").out)
    assert (result["clipped"], result["beyond"]) == (1, 1)
    assert "displacements beyond the new limits, as they were beyond the old ones: 1" in command(*arguments).err
    assert "beyond the new limits" not in command(source, "--factor", "conv2=2", "--dry-run").err


def test_exact_mode_writes_nothing_when_the_proof_fails(
    command: Command, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daukit.rescale.comparison.compare", lambda *_, **__: Difference(0.1, 0.02, 1, 0, (28, 28)))
    arguments = ("--remove-pool", "pool2", "--mode", "exact", "--verify", "-o", tmp_path / "out.safetensors")
    run = command(source, *arguments)
    assert run.code == 1
    assert "differs by 0.02 of the largest output" in run.err
    assert not (tmp_path / "out.safetensors").exists()


def test_the_default_mode_says_what_it_does_not_promise(command: Command, source: Path, tmp_path: Path) -> None:
    talk = command(source, "--remove-pool", "pool3", "-o", tmp_path / "out.safetensors").err
    assert "does not promise the former outputs: train the network further" in talk
    verified = command(source, "--remove-pool", "pool3", "--verify", "--dry-run").err
    assert "not the former outputs: train it further" in verified
    exact = command(source, "--remove-pool", "pool3", "--mode", "exact", "-o", tmp_path / "exact.safetensors").err
    assert "does not promise" not in exact and "outputs at the former positions differ by at most" in exact


def test_dry_run_reports_the_same_and_writes_nothing(command: Command, source: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    dry = command(source, "--remove-pool", "pool2", "--json", "--dry-run", "-o", tmp_path / "out.safetensors")
    assert (dry.code, sorted(tmp_path.iterdir())) == (0, before)
    real = command(source, "--remove-pool", "pool2", "--json", "-o", tmp_path / "out.safetensors")
    written = {"output", "bytes_before", "bytes_after"}
    assert {k: v for k, v in json.loads(real.out).items() if k not in written} == {
        k: v for k, v in json.loads(dry.out).items() if k not in written
    }
    assert "dry run: nothing was written" in command(source, "--remove-pool", "pool2", "--dry-run").err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--dry-run",),
        ("--factor", "conv3=2", "--remove-pool", "pool2", "--dry-run"),
        ("--factor", "conv3=2"),
        ("--factor", "conv3=0", "--dry-run"),
        ("--factor", "conv3=-2", "--dry-run"),
        ("--factor", "conv3=NaN", "--dry-run"),
        ("--factor", "conv3=true", "--dry-run"),
        ("--factor", "conv3=two", "--dry-run"),
        ("--factor", "conv3", "--dry-run"),
        ("--factor", "conv3=2", "--verify", "--dry-run"),
        ("--remove-pool", "pool2", "--size", "28,28,28", "--dry-run"),
        ("--remove-pool", "pool2", "--size", "28,0", "--dry-run"),
        ("--remove-pool", "pool2", "--mode", "both", "--dry-run"),
        ("--remove-pool", "pool2", "--head-padding", "full", "--dry-run"),
        ("--remove-pool", "pool2", "--like", "shallow_dau", "--dry-run"),
        ("--remove-stride", "conv1", "--factor", "conv3=2", "--dry-run"),
        ("--remove-pool", "pool2", "--like-arg", "units=2", "--dry-run"),
        ("--like", "shallow_dau", "--like-arg", "units", "--dry-run"),
        ("--factor", "conv3=2", "--head-padding", "same", "--dry-run"),
    ],
)
def test_wrong_usage_exits_2(command: Command, source: Path, arguments: tuple[str, ...]) -> None:
    run = command(source, *arguments)
    assert (run.code, run.out) == (2, "")
    assert "Usage:" in run.err


def test_a_factor_without_its_number_is_answered_in_the_words_of_the_help(command: Command, source: Path) -> None:
    assert "'conv3' is not LAYER=NUMBER" in command(source, "--factor", "conv3", "--dry-run").err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--factor", "con3=2"), "did you mean 'conv3'?"),
        (("--remove-pool", "pol3"), "did you mean 'pool3'?"),
        (("--remove-pool", "conv3"), "not a pool"),
        (("--remove-stride", "conv9"), "no strided layer 'conv9' (strided layers: none)"),
        (("--remove-stride", "conv3"), "has stride 1 already"),
        (("--like", "shalow_dau"), "did you mean 'shallow_dau'?"),
        (("--like", "shallow_dau"), "has every stride of the file's network"),
        (("--factor", "conv3=1.5", "--mode", "exact"), "a dilation is an integer"),
        (("--remove-pool", "pool2", "--size", "40,40"), "its forward failed on"),
    ],
)
def test_failures_exit_1_with_one_line(
    command: Command, source: Path, arguments: tuple[str, ...], message: str
) -> None:
    run = command(source, *arguments, "--dry-run")
    assert (run.code, run.out) == (1, "")
    assert message in run.err
    assert len(run.err.splitlines()) == 1


def test_an_existing_output_is_refused_before_any_work(command: Command, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    output.write_bytes(b"precious")
    run = command(tmp_path / "missing.safetensors", "--factor", "conv3=2", "-o", output)
    assert run.code == 1
    assert "exists already" in run.err
    assert output.read_bytes() == b"precious"
    assert command(source, "--factor", "conv3=2", "-o", output, "--overwrite").code == 0
    assert torch.equal(daukit.read(output).tensors["conv3.mu"], 2 * daukit.read(source).tensors["conv3.mu"])
