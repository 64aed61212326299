"""What changed from one file to another."""

import json

import pytest
import torch

import daukit
from daukit.models import create_model


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    daukit.save(create_model("shallow_dau", channels=[2, 2, 3], units=2), path)
    return path


def changed(path, change, name="other.safetensors"):
    """The file of ``path`` with tensors that ``change`` has worked on."""
    network = daukit.load(path)
    with torch.no_grad():
        change(network)
    daukit.save(network, path.with_name(name))
    return path.with_name(name)


def difference(daukit_command, *arguments):
    done = daukit_command("diff", *arguments, "--json")
    result = json.loads(done.stdout)
    assert done.returncode == (0 if result["same"] else 1)
    return result


def test_a_file_is_the_same_as_one_made_alike_at_another_time(model, daukit_command):
    other = changed(model, lambda network: None)
    result = difference(daukit_command, model, other)
    assert result["same"] and not result["tensors"] and not result["header"]
    assert result["equal_tensors"] == len(daukit.read(model).tensors)
    assert daukit_command("diff", model, other).stdout == "nothing differs\n"
    assert daukit_command("diff", model, other, "-q").stdout == ""


def test_values_that_differ_have_the_norm_and_the_largest_of_their_differences(model, daukit_command):
    def change(network):
        network.conv2.weight.zero_()
        network.conv2.weight[0, 0, 0] = 12

    first = changed(model, change, "first.safetensors")

    def change_more(network):
        network.conv2.weight[0, 0, 0] += 4
        network.conv2.weight[1, 1, 1] -= 3

    result = difference(daukit_command, first, changed(first, change_more))
    form = "float32 [2, 2, 2]"
    (tensor,) = result["tensors"]
    assert tensor == {
        "name": "conv2.weight", "kind": "values", "before": form, "after": form,
        "norm": 12.0, "difference": 5.0, "largest": 4.0,
    }  # fmt: skip
    assert not result["header"] and not result["units"]


def test_a_pruned_file_has_fewer_units_and_tensors_of_other_shapes(model, tmp_path, daukit_command):
    daukit_command("prune", model, "--keep-units", "10", "-o", tmp_path / "pruned.safetensors")
    result = difference(daukit_command, model, tmp_path / "pruned.safetensors")
    units = {name: daukit.read(model).layer(name).weight.numel() for name in ("conv1", "conv2", "conv3")}
    left = {each["layer"]: each["after"] for each in result["units"]}
    assert {each["layer"]: each["before"] for each in result["units"]}.items() <= units.items()
    assert sum(units.values()) - sum(units[name] - left[name] for name in left) == 10
    assert {"conv3.weight", "conv3.mu"} <= {each["name"] for each in result["tensors"] if each["kind"] == "shape"}
    assert "conv3.unit_counts" in {each["name"] for each in result["tensors"] if each["kind"] == "added"}
    assert [entry["operation"] for entry in result["other_history"]] == ["prune"] and not result["history"]
    assert "layers.conv3.ragged" in daukit_command("diff", model, tmp_path / "pruned.safetensors", "-q").stdout.split()


def test_headers_are_compared_value_by_value(model, tmp_path, daukit_command):
    other = tmp_path / "sigma.safetensors"
    daukit.save(create_model("shallow_dau", channels=[2, 2, 3], units=2, sigma=0.25), other)
    keys = {each["key"]: (each["before"], each["after"]) for each in difference(daukit_command, model, other)["header"]}
    assert keys["layers.conv1.sigma"] == (0.5, 0.25) and keys["architecture.config.sigma"] == (None, 0.25)
    daukit_command("rescale", model, "--factor", "conv2=2", "-o", tmp_path / "scaled.safetensors")
    header = difference(daukit_command, model, tmp_path / "scaled.safetensors")["header"]
    layers = {each["key"]: each["after"] for each in header if each["key"].startswith("layers")}
    assert layers == {"layers.conv2.max_displacement": 8.0, "layers.conv2.initialization.scale": 2.0}


def test_infinities_that_both_have_do_not_differ(tmp_path, daukit_command):
    network = torch.nn.Linear(2, 2)
    network.register_buffer("mask", torch.tensor([float("inf"), 1.0]))
    (tmp_path / "net.py").write_text(
        "import torch\n\ndef make():\n    network = torch.nn.Linear(2, 2)\n"
        "    network.register_buffer('mask', torch.tensor([float('inf'), 1.0]))\n    return network\n"
    )
    torch.save(network.state_dict(), tmp_path / "a.pth")
    network.mask[1] = 3
    torch.save(network.state_dict(), tmp_path / "b.pth")
    spec = f"{tmp_path / 'net.py'}:make"
    (tensor,) = difference(daukit_command, tmp_path / "a.pth", tmp_path / "b.pth", "--model", spec)["tensors"]
    assert (tensor["name"], tensor["norm"], tensor["difference"], tensor["largest"]) == ("mask", None, 2.0, 2.0)


def test_a_file_that_is_not_there_is_an_error_and_no_difference(model, tmp_path, daukit_command):
    done = daukit_command("diff", model, tmp_path / "nothing.safetensors")
    assert done.returncode == 1 and "no such file" in done.stderr and not done.stdout
