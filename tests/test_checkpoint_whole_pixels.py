"""Files of layers that read at whole pixels: small displacements, the newer schema, and what is refused."""

import json

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

import daukit
from daukit.checkpoint import CheckpointFile, from_model, stored_bytes, write_folder
from daukit.errors import CheckpointError
from daukit.models.structure import apply_differences, build, describe, differences
from daukit.nn import DAUConv2d, settle
from daukit.pruning import Rule, prune, prune_file


def network(whole=(True, False), sigma=0.5):
    """Two layers, of which some read at whole pixels."""
    torch.manual_seed(0)
    options = [{"whole_pixels": True, "sigma": sigma} if one else {} for one in whole]
    model = nn.Sequential(DAUConv2d(2, 4, 3, **options[0]), nn.ReLU(), DAUConv2d(4, 3, 2, **options[1]))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.mu.uniform_(-3, 3)
    return model.eval()


def dense():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), DAUConv2d(4, 3, 2)).eval()


def bilinear():
    return network((False, False))


def saved(model, path, factory=network):
    daukit.save(model, path, architecture={"factory": factory})
    return path


def loaded(path, factory=network):
    return daukit.load(path, model=factory)


def types(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_slice(name).get_dtype() for name in file.keys()}


def header(path):
    with CheckpointFile(path) as file:
        return json.loads(file.metadata["daukit"])


@pytest.mark.parametrize(("farthest", "dtype"), [(3, "I8"), (127, "I8"), (128, "I16"), (-128, "I16"), (32767, "I16")])
def test_settled_displacements_are_stored_in_the_smallest_integers_and_come_back_the_same(tmp_path, farthest, dtype):
    model = network()
    settle(model)
    with torch.no_grad():
        model[0].mu[1, 0, 0, 0] = farthest
    path = saved(model, tmp_path / "m.safetensors")
    assert types(path) == {name: dtype if name == "0.mu" else "F32" for name in model.state_dict()}
    assert stored_bytes(from_model(model, architecture={"factory": network})) == path.stat().st_size
    again = loaded(path)
    assert again[0].whole_pixels and not again[2].whole_pixels
    for name, tensor in model.state_dict().items():
        assert again.state_dict()[name].dtype == torch.float32 and torch.equal(again.state_dict()[name], tensor)
    assert again[0].mu.requires_grad and isinstance(again[0].mu, nn.Parameter)
    second = tmp_path / "again.safetensors"
    daukit.save(again, second)
    assert types(second) == types(path) and torch.equal(loaded(second)[0].mu, model[0].mu)


def test_the_whole_file_shrinks_by_three_bytes_a_coordinate(tmp_path):
    model = network()
    before = saved(model, tmp_path / "between.safetensors").stat().st_size
    settle(model)
    after = saved(model, tmp_path / "settled.safetensors").stat().st_size
    # The header's text differs in the names of types and the places of tensors, and is filled up to eight bytes.
    assert before - after == pytest.approx(3 * model[0].mu.numel(), abs=16)


def test_displacements_between_pixels_are_stored_as_they_are(tmp_path):
    model = network()
    with torch.no_grad():
        model[0].mu.round_()[0, 0, 0, 0] = 0.25
    path = saved(model, tmp_path / "m.safetensors")
    assert set(types(path).values()) == {"F32"}
    assert torch.equal(loaded(path)[0].mu, model[0].mu)


def test_farther_than_integers_reach_is_one_error_that_names_the_layer_and_the_value(tmp_path):
    model = network()
    settle(model)
    with torch.no_grad():
        model[0].mu[0, 0, 0, 0] = -32768
    with pytest.raises(CheckpointError, match=r"layer '0': a unit reads 32,768 pixels away.*up to 32,767"):
        saved(model, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_as_ever(tmp_path, value):
    model = network()
    settle(model)
    with torch.no_grad():
        model[0].mu[0, 0, 0, 0] = value
    with pytest.raises(CheckpointError, match="layer '0': 1 of 48 values of mu are NaN or infinite"):
        saved(model, tmp_path / "m.safetensors")


@pytest.mark.parametrize("sigma", [0.5, 0])
def test_double_ragged_and_unblurred_layers_come_back(tmp_path, sigma):
    model = network(sigma=sigma).double()
    settle(model)
    model[0].keep_units(torch.arange(24).reshape(4, 2, 3) % 5 > 0)
    path = saved(model, tmp_path / "m.safetensors")
    assert types(path)["0.mu"] == "I8"
    again, x = loaded(path), torch.randn(1, 2, 9, 8, dtype=torch.float64)
    assert again[0].mu.dtype == torch.float64 and again[0].sigma == sigma and again[0].is_ragged
    assert torch.equal(again(x), model(x))
    assert again[0].mu.requires_grad == (sigma > 0)


def test_only_files_with_such_layers_have_the_newer_schema_and_the_key(tmp_path):
    plain, whole = saved(bilinear(), tmp_path / "a.safetensors", bilinear), saved(network(), tmp_path / "b.safetensors")
    assert header(plain)["schema"] == 1 and not any("whole_pixels" in layer for layer in header(plain)["layers"])
    assert header(whole)["schema"] == 2
    assert [layer.get("whole_pixels") for layer in header(whole)["layers"]] == [True, None]


@pytest.mark.parametrize(
    ("model", "factory"),
    [(network(), dense), (network(), bilinear), (bilinear(), network), (network(sigma=0), bilinear)],
)
def test_a_network_that_differs_from_its_factorys_is_rebuilt(tmp_path, model, factory):
    path, x = saved(model, tmp_path / "m.safetensors", factory), torch.randn(1, 2, 9, 8)
    again = loaded(path, factory)
    assert [layer.whole_pixels for layer in (again[0], again[2])] == [model[0].whole_pixels, model[2].whole_pixels]
    assert torch.equal(again(x), model(x))


def test_differences_say_that_a_layer_reads_at_whole_pixels_and_that_it_does_not():
    one, other = network(), bilinear()
    assert differences(one, other) == {"0": {"type": "DAUConv2d", "whole_pixels": True}}
    assert differences(other, one) == {"0": {"type": "DAUConv2d", "whole_pixels": False}}
    apply_differences(other, differences(one, other))
    assert other[0].whole_pixels and build(describe(one[0])).whole_pixels
    assert "whole_pixels" not in describe(one[2]) and not build(describe(one[2])).whole_pixels


def test_every_reader_sees_numbers_of_floating_point(tmp_path):
    model = network()
    settle(model)
    path = saved(model, tmp_path / "m.safetensors")
    with daukit.open(path) as file:
        assert file.tensor("0.mu").dtype == file.layer("0").mu.dtype == torch.float32
        assert file.part("0").tensors["0.mu"].dtype == torch.float32
    assert daukit.read(path).tensors["0.mu"].dtype == torch.float32
    folder = tmp_path / "folder"
    write_folder(daukit.read(path), folder)
    assert types(folder / "model.safetensors")["0.mu"] == "I8"
    assert torch.equal(loaded(folder)[0].mu, model[0].mu)
    # Somebody stores the tensors again, without the header, which config.json repeats.
    bare = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file(bare, folder / "model.safetensors")
    assert torch.equal(daukit.load(folder, model=network)[0].mu, model[0].mu)
    # A state dict of such integers is that of a network that reads at whole pixels, and of no other.
    safetensors.torch.save_file(bare, tmp_path / "bare.safetensors")
    assert torch.equal(loaded(tmp_path / "bare.safetensors")[0].mu, model[0].mu)
    with pytest.raises(CheckpointError, match=r"0\.mu is stored as torch.int8"):
        loaded(tmp_path / "bare.safetensors", bilinear)
    model[0].load_state_dict({name.removeprefix("0."): value for name, value in bare.items() if name[0] == "0"})
    assert model[0].mu.dtype == torch.float32


def test_layers_that_share_displacements_store_them_once(tmp_path):
    for whole, dtype in (((True, True), "I8"), ((True, False), "F32")):
        model = nn.Sequential(*(DAUConv2d(2, 2, 2, whole_pixels=one) for one in whole)).eval()
        model[0].mu.data.round_()
        model[1].mu = model[0].mu
        path = tmp_path / f"{dtype}.safetensors"
        write = from_model(model, architecture={"factory": lambda: nn.Sequential(*(DAUConv2d(2, 2, 2) for _ in "ab"))})
        daukit.write(write, path)
        assert types(path)["0.mu"] == dtype and "1.mu" not in types(path)
        again = daukit.read(path)
        assert torch.equal(again.tensors["1.mu"], model[0].mu) and again.tensors["1.mu"].dtype == torch.float32


@pytest.mark.parametrize("rule", [{"threshold": 0.3}, {"units": 10}, {"remove": 0.5}])
def test_pruned_files_store_what_is_left_as_integers(tmp_path, rule):
    model = network()
    settle(model)
    path, output = saved(model, tmp_path / "m.safetensors"), tmp_path / "pruned.safetensors"
    expected, _ = prune(path, **rule)
    report = prune_file(path, Rule(**rule), output)
    assert types(output)["0.mu"] == "I8" and report.bytes_after == output.stat().st_size == stored_bytes(expected)
    assert expected.tensors["0.mu"].dtype == torch.float32
    assert torch.equal(daukit.read(output).tensors["0.mu"], expected.tensors["0.mu"])
    x = torch.randn(1, 2, 9, 8)
    assert torch.equal(loaded(output)(x), daukit.checkpoint.build_model(expected, model=network)(x))


# Refused


@pytest.fixture
def refused(tmp_path):
    """That a settled file with a changed header, or other tensors, is refused in one line."""
    model = network()
    settle(model)
    path = saved(model, tmp_path / "sound.safetensors")
    tensors = safetensors.torch.load_file(path)

    def check(match, changes=(), layer=(), load=daukit.read, **values):
        said = {**header(path), **dict(changes)}
        said["layers"] = [{**said["layers"][0], **dict(layer)}, *said["layers"][1:]]
        broken = tmp_path / "broken.safetensors"
        safetensors.torch.save_file({**tensors, **values}, broken, {"daukit": json.dumps(said)})
        with pytest.raises(CheckpointError, match=match) as caught:
            checkpoint = load(broken)
            for name in checkpoint.layer_names:
                checkpoint.layer(name)
        assert str(broken) in str(caught.value) and "\n" not in str(caught.value)

    return check


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bool, torch.uint16])
def test_other_integers_are_refused(refused, dtype):
    mu = torch.zeros(2, 4, 2, 3, dtype=dtype)
    refused(f"layer '0': mu is stored as {dtype}, and its values are floating-point numbers", **{"0.mu": mu})


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
def test_integers_in_a_layer_that_reads_between_pixels_are_refused(refused, dtype):
    mu = torch.zeros(2, 3, 4, 2, dtype=dtype)
    refused(f"layer '2': mu is stored as {dtype}, and its values are floating-point numbers", **{"2.mu": mu})
    refused("layer '0': mu is stored as torch.int8", {"schema": 1}, {"whole_pixels": False})


def test_integers_as_weights_are_refused(refused):
    refused("layer '0': weight is stored as torch.int8", **{"0.weight": torch.zeros(4, 2, 3, dtype=torch.int8)})


@pytest.mark.parametrize("value", [None, 1, 0, "true", [], 1.0])
def test_the_key_is_true_or_false(refused, value):
    refused("header key 'layers': whole_pixels missing or wrong", layer={"whole_pixels": value})


def test_a_header_that_contradicts_itself_is_refused(refused):
    refused("header schema 1 has no layers that read at whole pixels", {"schema": 1})
    refused(r"whole_pixels \(the general form", layer={"form": "gaussian", "sigma": None, "window": 9})
    refused(r"sigma \(0, no blur, goes with whole_pixels\)", layer={"whole_pixels": False, "sigma": 0.0})
    refused("header key 'layers': sigma missing or wrong", layer={"sigma": 1e-4})
    refused("header schema 3; this daukit .* reads 1 to 2", {"schema": 3})
    modules = {"0": {"type": "DAUConv2d", "whole_pixels": False}}
    refused("'layers' contradicts 'modules': '0' has whole_pixels True and False", {"modules": modules})


def test_a_header_that_contradicts_its_network_is_refused(refused):
    refused(
        "layer '0' has whole_pixels True, and False in the network that is built",
        load=lambda path: daukit.load(path, model=bilinear),
    )
    refused(
        "layer '2' has whole_pixels False, and True in the network that is built",
        load=lambda path: daukit.load(path, model=lambda: network((True, True))),
    )
