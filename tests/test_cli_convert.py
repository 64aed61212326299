"""``daukit convert`` as a user runs it: what it prints, writes and refuses, and what its files are good for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from imported import Net, add_layer, full, units

import daukit
from daukit.errors import CheckpointError
from daukit.importers import recognize
from daukit.importers.layers import assemble
from daukit.workflows.layers import stored_layer_fields

COMMAND = "convert"
TENSORFLOW = Path(__file__).parent / "data" / "dau.ckpt"


@pytest.fixture
def caffemodel(tmp_path):
    net = Net(name="net")
    for name, seed in (("conv2", 0), ("conv3", 1)):
        w, mu1, mu2, bias = units(seed, inputs=3, outputs=3)
        add_layer(net, name, "DAUConvolution", (w, mu1, mu2, full(w, 0.5), bias), kernel_size=[9])
    add_layer(net, "fc", "InnerProduct", (np.ones((2, 3)), np.ones(2)))
    path = tmp_path / "net.caffemodel"
    path.write_bytes(net.SerializeToString())
    return path


@pytest.fixture
def state_dict(tmp_path):
    torch.manual_seed(0)
    shared, state = torch.empty(2, 4, 1, 3).uniform_(-3, 3), {}
    for block in ("stage.0", "stage.1"):
        state |= {f"{block}.weight": torch.randn(4, 1, 3), f"{block}.P": shared, f"{block}.bias": torch.zeros(4)}
    torch.save(state, tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_a_caffe_file_is_written_and_reported(run, caffemodel, tmp_path):
    output = tmp_path / "out.safetensors"
    code, out, err = run(caffemodel, "-o", output)
    assert code == 0 and "conv2, conv3: displacements are taken to count from the window's centre" in err
    assert "36 units, 2 other tensors" in out and f"file: {output.stat().st_size:,} bytes" in out
    checkpoint = daukit.read(output)
    assert checkpoint.layer_names == ["conv2", "conv3"] and checkpoint.header.history[0]["operation"] == "import"


def test_json_is_alone_on_stdout(run, caffemodel, tmp_path):
    output = tmp_path / "out.safetensors"
    code, out, err = run(caffemodel, "-o", output, "--offsets", "centred", "--json")
    result = json.loads(out)
    assert code == 0 and err == f"wrote {output}\n" and result["notes"] == []
    assert (result["source"], result["architecture"]) == ("caffe", {"imported": "caffe"})
    assert (result["units"], result["other_tensors"], result["bytes"]) == (36, 2, output.stat().st_size)
    assert [(layer["name"], layer["units"], layer["sigma"]) for layer in result["layers"]] == [
        ("conv2", 18, 0.5),
        ("conv3", 18, 0.5),
    ]


def test_the_commands_that_need_no_network_work_on_the_file(run, daukit_command, caffemodel, tmp_path):
    output = tmp_path / "out.safetensors"
    assert run(caffemodel, "-o", output)[0] == 0
    information = json.loads(daukit_command("info", output, "--json").stdout)
    assert information["units"] == 36 and information["history"][0]["arguments"]["source"] == "caffe"
    pruned = tmp_path / "pruned.safetensors"
    assert daukit_command("prune", output, "--threshold", "0.5", "-o", pruned).returncode == 0
    assert daukit_command("rescale", pruned, "--factor", "conv3=2", "--dry-run").returncode == 0
    assert daukit_command("plot-offsets", pruned, "-o", tmp_path / "plot.png").returncode == 0
    done = daukit_command("erf", output, "-o", tmp_path / "erf.png")
    assert done.returncode == 1 and "holds the layers of a caffe file, not a whole network" in done.stderr


def test_a_tensorflow_checkpoint_is_named_by_its_prefix(run, tmp_path):
    code, out, err = run(TENSORFLOW, "--window", "9", "--window", "DAUConv=17", "-o", tmp_path / "out", "--json")
    limits = {layer["name"]: layer["max_displacement"] for layer in json.loads(out)["layers"]}
    assert code == 0 and limits == {"DAUConv": 7.99, "dau_conv1.dau_conv1_1": 3.99} and err.startswith("wrote ")


def test_options_of_dcls_reach_single_layers(run, state_dict, tmp_path):
    output = tmp_path / "out.safetensors"
    code, out, _ = run(
        state_dict, "-o", output, "--dcls-version", "v0", "--window", "7,7", "--stride", "stage.1=2", "--groups",
        "stage.1=2", "--json",
    )  # fmt: skip
    layers = json.loads(out)["layers"]
    assert code == 0 and [layer["groups"] for layer in layers] == [4, 2]
    assert [layer["stride"] for layer in layers] == [[1, 1], [2, 2]]
    assert daukit.read(output).header.tied == {"stage.1.mu": "stage.0.mu"}


def test_a_dry_run_writes_nothing(run, caffemodel, tmp_path):
    before = sorted(tmp_path.iterdir())
    code, out, err = run(caffemodel, "-o", tmp_path / "out", "--dry-run")
    assert code == 0 and "36 units" in out and "nothing was written" in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name the file to write"),
        (("--dry-run", "--window", "9x9"), "'9x9' is not a size like 9 or 9,5"),
        (("--dry-run", "--window", "1,2,3"), "'1,2,3' is not a size like 9 or 9,5"),
        (("--dry-run", "--stride", "conv2=0"), "'0' is not a whole number above 0"),
        (("--dry-run", "--groups", "two"), "'two' is not a whole number above 0"),
        (("--dry-run", "--from", "keras"), "'keras'"),
        (("--dry-run", "--model-arg", "units=2"), "is for networks, not for files of another library"),
        (("--dry-run", "--from", "caffe", "--substitute"), "is for networks, not for files of another library"),
        (("--dry-run", "--substitute", "--offsets", "corner"), "is for files of other libraries, not for networks"),
        (("--dry-run", "--model", "shallow", "--window", "9"), "is for files of other libraries, not for networks"),
    ],
)
def test_wrong_usage_exits_with_2(run, caffemodel, options, message):
    code, out, err = run(caffemodel, *options)
    assert code == 2 and message in " ".join(err.split()) and out == ""


def test_failures_exit_with_1_and_one_line(run, caffemodel, state_dict, tmp_path):
    taken, wrong = tmp_path / "taken", tmp_path / "wrong.caffemodel"
    taken.write_text("precious")
    wrong.write_bytes(caffemodel.read_bytes()[:-3])
    for arguments, message in (
        ((caffemodel, "-o", taken), "exists already"),
        ((caffemodel, "-o", tmp_path / "out", "--dcls-version", "v0"), "caffe files have no version"),
        ((wrong, "-o", tmp_path / "out"), "not a complete NetParameter"),
        ((state_dict, "-o", tmp_path / "out"), "(--dcls-version, --window)"),
        ((tmp_path / "no", "-o", tmp_path / "out"), "there is no such file"),
        ((caffemodel, "-o", tmp_path / "out", "--prototxt", tmp_path / "no"), "no: cannot be read"),
    ):
        code, out, err = run(*arguments)
        assert code == 1 and message in err and err.count("\n") == 1 and out == "", err
    assert taken.read_text() == "precious" and not (tmp_path / "out").exists()


def test_the_largest_displacement_is_the_one_that_info_prints(run, daukit_command, caffemodel, tmp_path):
    output = tmp_path / "out.safetensors"
    printed = json.loads(run(caffemodel, "-o", output, "--json")[1])["layers"]
    told = json.loads(daukit_command("info", output, "--json").stdout)["layers"]
    assert [e["largest_displacement"] for e in printed] == [e["largest_displacement"] for e in told]


def test_displacements_are_counted_in_input_pixels(tmp_path):
    layer = daukit.DAUConv2d(2, 3, 2, dilation=(2, 3), max_displacement=3.0)
    with torch.no_grad():
        layer.mu[:] = torch.tensor([1.0, 2.0])[:, None, None, None]
    checkpoint = assemble(tmp_path / "x", "0" * 64, {"a": layer}, {}, {"source": "dcls"})
    assert stored_layer_fields(checkpoint.layer("a"))["largest_displacement"] == pytest.approx((2**2 + 6**2) ** 0.5)


def test_a_tensorflow_folder_is_imported_by_its_name(run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for part in TENSORFLOW.parent.glob("dau.ckpt.*"):
        (folder / part.name).write_bytes(part.read_bytes())
    (folder / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/dau.ckpt"\n')
    code, out, _ = run(folder, "-o", tmp_path / "out.safetensors", "--json")
    assert code == 0 and json.loads(out)["source"] == "tensorflow"
    (folder / "checkpoint").write_text('model_checkpoint_path: "dau.ckpt-9"\n')
    code, _, err = run(folder, "--dry-run")
    assert code == 1 and "no index of a checkpoint dau.ckpt-9.index beside it" in err and err.count("\n") == 1


def test_an_output_that_the_command_reads_is_refused(run, caffemodel, tmp_path):
    text, folder = caffemodel.with_suffix(".prototxt"), tmp_path / "tf"
    text.write_text("name: 'net'")
    folder.mkdir()
    for part in TENSORFLOW.parent.glob("dau.ckpt.*"):
        (folder / part.name).write_bytes(part.read_bytes())
    link = tmp_path / "link.safetensors"
    link.symlink_to(caffemodel)
    data = folder / "dau.ckpt.data-00000-of-00001"
    for source, output in ((caffemodel, link), (caffemodel, text), (folder / "dau.ckpt", data)):
        before = output.read_bytes()
        code, _, err = run(source, "-o", output, "--overwrite")
        assert code == 1 and err.count("\n") == 1 and output.read_bytes() == before
    assert run(caffemodel, "-o", tmp_path / "x.png")[0] == 1 and not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("place", [".", "/", ".."])
def test_a_folder_that_holds_no_checkpoint_is_no_traceback(run, place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="is not a file"):
        recognize(place)
    code, _, err = run(place, "--dry-run")
    assert code == 1 and err.count("\n") == 1
