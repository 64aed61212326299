"""Rescaling from Python as the command rescales."""

import pytest
import torch

import daukit
from daukit.errors import CheckpointError, OutputError
from daukit.preprocessing import Preprocessing
from daukit.rescale import Difference, check_exact
from daukit.workflows.rescale import rescale_checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = daukit.create_model("shallow_dau", channels=[2, 2, 3], units=2)
    path = tmp_path / "model.safetensors"
    daukit.save(model, path, preprocessing=Preprocessing((0.5,), (0.5,), "gray", (28, 28)))
    return daukit.read(path)


def test_it_writes_what_remove_pools_makes_and_compares_both_modes(checkpoint, tmp_path):
    output, plans = tmp_path / "out.safetensors", []
    result = rescale_checkpoint(
        checkpoint, pools=["pool3"], mode="exact", verify=True, output=output, on_plan=lambda *plan: plans.append(plan)
    )
    expected, report = daukit.remove_pools(checkpoint, ["pool3"], "exact")
    written = daukit.read(output)
    assert all(torch.equal(written.tensors[name], tensor) for name, tensor in expected.tensors.items())
    assert plans == [(report, None)] and result.layers == report.layers
    assert result.verify is result.verify_modes.exact and result.verify.is_exact
    assert not result.verify_modes.paper.is_exact
    assert (result.bytes_before, result.bytes_after) == (checkpoint.file_size, output.stat().st_size)


def test_without_an_output_nothing_is_written(checkpoint, tmp_path):
    result = rescale_checkpoint(checkpoint, factors={"conv3": 2.0})
    assert result.output is result.bytes_after is None and list(tmp_path.iterdir()) == [checkpoint.path]
    with pytest.raises(OutputError, match="is read here"):
        rescale_checkpoint(checkpoint, factors={"conv3": 2.0}, output=checkpoint.path)


def test_contradictory_arguments_are_value_errors_and_wrong_files_are_named(checkpoint):
    for arguments in ({}, {"factors": {"conv3": 2.0}, "pools": ["pool3"]}, {"like": "shallow", "strides": ["conv1"]}):
        with pytest.raises(ValueError, match="give either factors"):
            rescale_checkpoint(checkpoint, **arguments)
    with pytest.raises(ValueError, match="drop verify"):
        rescale_checkpoint(checkpoint, factors={"conv3": 2.0}, verify=True)
    with pytest.raises(CheckpointError, match="there is no pool 'pol3'"):
        rescale_checkpoint(checkpoint, pools=["pol3"])


def test_a_difference_above_the_limit_or_a_missing_position_is_not_exact():
    check_exact(Difference(1e-7, 1e-7, 4, 0, (28, 28)))
    for relative, missing in ((1e-5, 0), (0.0, 1)):
        with pytest.raises(ValueError, match=f"and lacks {missing}, where mode exact allows 1e-06"):
            check_exact(Difference(1.0, relative, 4, missing, (28, 28)))
