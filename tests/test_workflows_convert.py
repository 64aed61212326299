"""Imports and substitutions from Python as the command makes them."""

from pathlib import Path

import pytest
import torch

import daukit
from daukit.checkpoint import from_model
from daukit.errors import CheckpointError, OutputError
from daukit.models.structure import dau_layers
from daukit.workflows.convert import Destination, check_rewrite, import_file, rewrite_checkpoint
from daukit.workflows.substitute import substitute_layers, tabulate_units

TENSORFLOW = Path(__file__).parent / "data" / "dau.ckpt"


@pytest.fixture
def plain(tmp_path):
    torch.manual_seed(0)
    daukit.save(daukit.create_model("shallow", channels=[2, 2, 3]), tmp_path / "plain.safetensors")
    return daukit.read(tmp_path / "plain.safetensors")


def test_a_file_is_imported_described_and_written(tmp_path):
    output = tmp_path / "out.safetensors"
    result = import_file(TENSORFLOW, Destination(path=output), window=(9, 9))
    assert (result.file, result.source, result.output) == (TENSORFLOW, "tensorflow", output)
    assert [layer.name for layer in result.layers] == daukit.read(output).layer_names
    assert result.units == sum(layer.units for layer in result.layers) and result.bytes == output.stat().st_size
    assert import_file(TENSORFLOW, window=(9, 9)).output is None


def test_what_an_import_cannot_do_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="tensorflow files have no version"):
        import_file(TENSORFLOW, version="v0")
    data = TENSORFLOW.with_name("dau.ckpt.data-00000-of-00001")
    with pytest.raises(OutputError, match=data.name):
        import_file(TENSORFLOW, Destination(path=data, overwrite=True))


def test_convolutions_become_dau_layers(plain, tmp_path):
    output = tmp_path / "dau.safetensors"
    result = substitute_layers(plain, Destination(path=output), where="conv2", units=3)
    assert [layer.name for layer in result.substitution.layers] == ["conv2"]
    assert {name: layer.units for name, layer in dau_layers(daukit.load(output)).items()} == {"conv2": 3}
    assert daukit.read(output).header.history[-1]["source"] == plain.digest
    with pytest.raises(CheckpointError, match="no convolution has kernel_size 5x5"):
        substitute_layers(plain, kernel_size=5)
    with pytest.raises(CheckpointError, match="no convolution that a DAU layer can stand for"):
        substitute_layers(from_model(daukit.create_model("shallow_dau", channels=[2, 2, 2])))


def test_the_table_has_a_total_for_each_error(plain):
    shares = []
    table = tabulate_units(plain, where="conv1", on_progress=lambda share, _: shares.append(share))
    (layer,) = table.layers
    assert table.file == plain.path and shares[-1] == 1
    expected = [None if units is None else units * layer.filters for units in layer.units]
    assert list(table.total_units) == expected


def test_a_checkpoint_is_written_as_a_folder_and_never_as_it_is(plain, tmp_path):
    folder = tmp_path / "folder"
    result = rewrite_checkpoint(plain, Destination(path=folder, folder=True))
    assert result.bytes == (folder / "model.safetensors").stat().st_size
    check_rewrite(folder, folder=False)
    for file, as_folder in ((plain.path, False), (folder, True)):
        with pytest.raises(CheckpointError, match="nothing was converted"):
            check_rewrite(file, folder=as_folder)
