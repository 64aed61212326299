"""``daukit bake`` from outside."""

import json

import pytest
import torch

import daukit
from daukit.models.structure import dau_layers

COMMAND = "bake"


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    network = daukit.create_model("shallow_dau", channels=[3, 4, 5], units=2, input_size=[16, 16])
    for layer in dau_layers(network).values():
        layer.mu.data.normal_(0, 1.5)
    path = tmp_path / "model.safetensors"
    daukit.save(network, path)
    return path


def test_the_program_is_the_network_and_the_report_is_about_it(run, tmp_path, model):
    output = tmp_path / "m.pt2"
    dry = json.loads(run(model, "--dry-run", "--json")[1])
    assert not output.exists()
    code, out, err = run(model, "-o", output, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (dry.pop("output"), result["output"]) == (None, str(output))
    assert {k: dry[k] for k in ("layers", "difference", "bytes_before")} == {
        k: result[k] for k in ("layers", "difference", "bytes_before")
    }
    assert result["difference"] <= 1e-12 and result["rounding"] <= 1e-5
    assert (result["bytes_before"], result["bytes_after"]) == (model.stat().st_size, output.stat().st_size)
    assert result["time"]["input"] == [8, 1, 16, 16]
    assert [(layer["name"], layer["units"]) for layer in result["layers"]] == [
        ("conv1", 6), ("conv2", 24), ("conv3", 40),
    ]  # fmt: skip
    x = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        expected = daukit.load(model)(x)
        assert (torch.export.load(output).module()(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_pruned_file_is_baked_too_and_all_numbers_are_printed(run, tmp_path, model, daukit_command):
    pruned = tmp_path / "p.safetensors"
    daukit_command("prune", model, "--threshold", "0.5", "-o", pruned)
    code, out, err = run(pruned, "-o", tmp_path / "m.pt2")
    assert code == 0, err
    assert all(word in out for word in ("conv3", "in float64", "forward pass of 8 x 1 x 16 x 16", "file: "))
    assert err == f"wrote {tmp_path / 'm.pt2'}\n"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "--dry-run"),
        (("-o", "m.pth"), 2, "ends in .pt2"),
        (("-o", "taken.pt2"), 1, "exists already"),
        (("--dry-run", "--size", "9"), 1, "its forward failed on"),
        (("--dry-run", "--size", "x"), 2, "not a size"),
        (("--dry-run", "--device", "abacus"), 2, "cannot be used"),
    ],
)
def test_a_wrong_call_says_what_and_writes_nothing(run, tmp_path, monkeypatch, model, options, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.pt2").write_text("precious")
    returned, out, err = run(model, *options)
    assert returned == code and message in " ".join(err.replace("│", "").split()) and out == "", err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "taken.pt2"]
    assert (tmp_path / "taken.pt2").read_text() == "precious"


def test_a_file_that_does_not_tell_its_input_size_asks_for_it(run, tmp_path):
    path = tmp_path / "model.safetensors"
    daukit.save(daukit.create_model("resnet50_dau", width=2, depths=[1, 1, 1, 1], num_classes=3), path)
    assert run(path, "--dry-run")[2].endswith("give it with --size H,W\n")
    assert run(path, "--dry-run", "--size", "64,96")[0] == 0


def test_a_network_without_dau_layers_is_said_to_be_as_it_was(run, tmp_path):
    path = tmp_path / "model.safetensors"
    daukit.save(daukit.create_model("shallow", channels=[2, 2, 2], input_size=[16, 16]), path)
    code, _, err = run(path, "-o", tmp_path / "m.pt2")
    assert code == 0 and "nothing was baked" in err


def test_a_layer_with_hooks_is_one_line_and_no_file(run, tmp_path):
    network = tmp_path / "net.py"
    network.write_text(
        "import daukit\nfrom torch import nn\n\n\ndef make():\n    layer = daukit.DAUConv2d(1, 2, 1)\n"
        "    layer.register_forward_hook(lambda module, inputs, output: 2 * output)\n    return nn.Sequential(layer)\n"
    )
    from daukit.models.factory import resolve_factory

    path, factory = tmp_path / "model.safetensors", f"{network}:make"
    daukit.save(resolve_factory(factory)(), path, architecture={"factory": factory, "config": {}})
    code, out, err = run(path, "--model", factory, "--size", "9", "-o", tmp_path / "m.pt2")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "layer '0' cannot be baked: it has hooks" in err and not (tmp_path / "m.pt2").exists()
