"""Plots of displacements as Python calls them."""

import json

import pytest
import torch

import daukit
from daukit.results import as_json
from daukit.workflows.offsets import ChangePlot, DisplacementPlot, SigmaPlot, plot_offsets


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    daukit.save(daukit.create_model("shallow_dau", channels=[2, 2, 3], units=2), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("kind", "result_type"), [(None, DisplacementPlot), ("2d", DisplacementPlot), ("sigma", SigmaPlot)]
)
def test_the_result_is_what_the_command_prints(path, daukit_command, kind, result_type):
    result = plot_offsets(daukit.read(path), kind=kind)
    printed = daukit_command("plot-offsets", path, *(("--kind", kind) if kind else ()), "--json").stdout
    assert isinstance(result, result_type) and as_json(result) == json.loads(printed)


def test_a_second_checkpoint_makes_it_a_change(path, tmp_path):
    checkpoint = daukit.read(path)
    result = plot_offsets(checkpoint, before=checkpoint, csv=tmp_path / "moves.csv", near=0)
    assert isinstance(result, ChangePlot) and result.before == path
    assert {layer.unmoved.units for layer in result.layers} == {1}
    assert (tmp_path / "moves.csv").read_text().startswith("layer,")


def test_contradictory_arguments_and_outputs_that_exist_are_refused(path):
    checkpoint = daukit.read(path)
    for wrong in ({"kind": "change"}, {"kind": "1d", "before": checkpoint}, {"width": "column"}, {"stages": ["x"]}):
        with pytest.raises(ValueError, match=r"before|column|stage"):
            plot_offsets(checkpoint, **wrong)
    with pytest.raises(daukit.OutputError, match="is read here"):
        plot_offsets(checkpoint, csv=path, overwrite=True)
