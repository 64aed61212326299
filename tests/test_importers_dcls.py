"""State dicts of dcls: the imported layer computes what dcls computes, and comes back as it went."""

import numpy as np
import pytest
import safetensors.torch
import torch
from DCLS.construct.modules import Dcls1d, Dcls2d, Dcls2dK1d
from imported import layer_of, response
from torch import nn

import daukit
from daukit.checkpoint import write
from daukit.errors import CheckpointError
from daukit.importers import import_checkpoint, to_dcls
from daukit.nn import DAUConv2d
from daukit.pruning import prune

VERSIONS = ("v0", "v1", "max", "gauss")


def dcls_layer(version, window=(7, 7), kind=Dcls2d, *, reach=1.0, sig=None, seed=0, channels=(4, 6), **options):
    """A layer of dcls whose units lie within ``reach`` times half the window."""
    torch.manual_seed(seed)
    padding = [side // 2 for side in window]
    window, padding = (window[0], padding[0]) if kind is Dcls1d else (window, padding)
    layer = kind(*channels, kernel_count=3, dilated_kernel_size=window, padding=padding, version=version, **options)
    with torch.no_grad():
        for axis, side in zip(layer.P, np.atleast_1d(window), strict=True):
            half = float(side // 2)
            axis.uniform_(-reach * half, reach * half)
        layer.P[..., 0].round_()  # also units on pixels
        if sig is not None:
            layer.SIG.uniform_(*sig)
    return layer


def imported(folder, layer, version, window, name="net.pth", **options):
    path = folder / name
    torch.save({"model": {f"block.{key}": tensor for key, tensor in layer.state_dict().items()}}, path)
    checkpoint = import_checkpoint(path, version=version, window={"*": window}, **options)
    return layer_of(checkpoint, "block"), checkpoint


def assert_same(actual, expected):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


X = torch.randn(2, 4, 11, 13, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"stride": 2}, {"bias": False}])
@pytest.mark.parametrize("version", VERSIONS)
def test_outputs_are_those_of_dcls(tmp_path, version, options):
    layer = dcls_layer(version, **options)
    found, checkpoint = imported(
        tmp_path, layer, version, (7, 7), **{k: {"*": v} for k, v in options.items() if k != "bias"}
    )
    assert_same(found(X), layer(X))
    assert found.units == 3 and not found.is_ragged and found.form == ("gaussian" if version == "gauss" else "bilinear")
    assert found.max_displacement == 3 and "notes" not in checkpoint.header.history[-1]["arguments"]


@pytest.mark.parametrize("version", VERSIONS)
def test_units_that_lean_out_of_the_window_lose_what_dcls_loses(tmp_path, version):
    layer = dcls_layer(version, reach=1.5)
    found, checkpoint = imported(tmp_path, layer, version, (7, 7))
    assert_same(found(X), layer(X))
    outside = int((layer.P.abs() > 3).any(0).sum())
    assert (
        f"{outside} of 72 units lie outside a window of 7 x 7" in checkpoint.header.history[-1]["arguments"]["notes"][0]
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_depthwise_layers_are_recognised(tmp_path, version):
    layer = dcls_layer(version, channels=(4, 4), groups=4)
    found, _ = imported(tmp_path, layer, version, (7, 7))
    assert found.groups == 4
    assert_same(found(X), layer(X))


@pytest.mark.parametrize("version", ["v0", "v1", "max"])
@pytest.mark.parametrize("window", [(5, 9), (9, 5)])
def test_windows_that_are_not_square_are_off_centre_as_in_dcls(tmp_path, version, window):
    layer = dcls_layer(version, window)
    found, _ = imported(tmp_path, layer, version, window)
    assert_same(found(X), layer(X))


def test_gaussians_on_a_window_that_is_not_square_are_refused_or_split(tmp_path):
    layer = dcls_layer("gauss", (5, 9))
    with pytest.raises(CheckpointError, match="5 x 9; daukit has square ones only"):
        imported(tmp_path, layer, "gauss", (5, 9))
    found, checkpoint = imported(tmp_path, layer, "gauss", (5, 9), sigma_axes="split")
    assert_same(found(X), layer(X))
    assert "units without a blur, exactly" in checkpoint.header.history[-1]["arguments"]["notes"][-1]


def test_wide_triangles_become_several_units_that_compute_the_same(tmp_path):
    layer = dcls_layer("max", reach=1.2, sig=(-1.5, 1.5))
    found, checkpoint = imported(tmp_path, layer, "max", (7, 7))
    assert found.is_ragged and found.weight.numel() > layer.weight.numel() and (found.weight != 0).all()
    assert_same(found(X), layer(X))
    assert "each unit became up to" in checkpoint.header.history[-1]["arguments"]["notes"][-1]


def test_gaussians_with_a_sigma_per_axis_are_refused_averaged_or_split(tmp_path):
    layer = dcls_layer("gauss", reach=1.2, sig=(-0.6, 0.6))
    with pytest.raises(CheckpointError, match=r"'block': SIG differs between the axes in 72 of 72 units"):
        imported(tmp_path, layer, "gauss", (7, 7))
    split, _ = imported(tmp_path, layer, "gauss", (7, 7), sigma_axes="split")
    assert_same(split(X), layer(X))
    mean, checkpoint = imported(tmp_path, layer, "gauss", (7, 7), sigma_axes="mean")
    torch.testing.assert_close(mean.sigma.detach(), layer.SIG.abs().mean(0) + 0.27)
    assert mean.weight.shape == layer.weight.shape
    assert "differ from those of dcls" in checkpoint.header.history[-1]["arguments"]["notes"][-1]


@pytest.mark.parametrize("sig", [None, (-0.8, 0.8)])
@pytest.mark.parametrize("version", VERSIONS)
def test_layers_of_one_dimension_compute_the_same_on_one_row(tmp_path, version, sig):
    if sig is not None and version in ("v0", "v1"):
        sig = None
    layer = dcls_layer(version, (9,), Dcls1d, reach=1.2, sig=sig)
    found, _ = imported(tmp_path, layer, version, (1, 9))
    line = torch.randn(2, 4, 21, generator=torch.Generator().manual_seed(1))
    assert_same(found(line[:, :, None])[:, :, 0], layer(line))
    assert (found.mu[0] == 0).all()


@pytest.mark.parametrize("flat_dim", [0, 1])
@pytest.mark.parametrize("version", VERSIONS)
def test_layers_of_one_axis_on_images_are_columns_or_rows_as_the_window_says(tmp_path, version, flat_dim):
    torch.manual_seed(0)
    padding = (0, 4) if flat_dim else (4, 0)
    layer = Dcls2dK1d(
        4, 6, kernel_count=3, dilated_kernel_size=9, padding=padding, version=version, flat_dim=flat_dim
    )  # fmt: skip
    with torch.no_grad():
        layer.P.uniform_(-4.5, 4.5)
    window = (1, 9) if flat_dim else (9, 1)
    with pytest.raises(CheckpointError, match=r"'block': P has one axis, .* pass window=\(1, 9\) or \(9, 1\)"):
        imported(tmp_path, layer, version, (9, 9))
    options = {"sigma_axes": "split"} if version == "gauss" else {}
    found, _ = imported(tmp_path, layer, version, window, **options)
    assert_same(found(X), layer(X))
    assert (found.mu[flat_dim - 1 if flat_dim else 1] == 0).all()


def test_gaussians_of_one_axis_are_split_where_they_stand_in_images(tmp_path):
    layer = Dcls2dK1d(4, 6, kernel_count=3, dilated_kernel_size=9, padding=(4, 0), version="gauss")
    with pytest.raises(CheckpointError, match="9 x 1; daukit has square ones only"):
        imported(tmp_path, layer, "gauss", (9, 1))
    _, checkpoint = imported(tmp_path, layer, "gauss", (1, 9))
    assert "right for inputs of one row" in checkpoint.header.history[-1]["arguments"]["notes"][0]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_planted_unit_answers_where_that_of_dcls_does(tmp_path, version, axis):
    layer = Dcls2d(1, 1, kernel_count=1, dilated_kernel_size=9, padding=4, version=version, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.P.zero_()
        layer.P[axis] = 2
    found, _ = imported(tmp_path, layer, version, (9, 9))
    is_row = (version == "v0") == (axis == 0)  # measured on dcls itself, whose P[0] is y in v0 and x elsewhere
    assert list(response(found)) == list(response(layer)) == [(2, 4) if is_row else (4, 2)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_layer_goes_to_dcls_and_back(tmp_path, version):
    layer = DAUConv2d(
        4, 6, 3, groups=2, max_displacement=3.0, init={"name": "uniform", "low": -3, "high": 3},
        **({"form": "gaussian", "window": 7} if version == "gauss" else {"sigma": 0.1}),
    ).eval()  # fmt: skip
    if version == "gauss":
        with torch.no_grad():
            layer.sigma.uniform_(0.3, 1.2)
    peer = Dcls2d(4, 6, kernel_count=3, dilated_kernel_size=7, padding=3, groups=2, version=version)
    peer.load_state_dict(to_dcls(layer, version))
    assert_same(peer(X), layer(X))
    back, _ = imported(tmp_path, peer, version, (7, 7), groups={"*": 2})
    assert torch.equal(back.mu, layer.mu)
    for name in ("weight", "bias", *(["sigma"] if version == "gauss" else [])):
        torch.testing.assert_close(getattr(back, name), getattr(layer, name), rtol=2e-6, atol=0)


def test_layers_that_dcls_has_no_words_for_are_refused():
    plain, general = DAUConv2d(2, 3, 2), DAUConv2d(2, 3, 2, form="gaussian", sigma=0.2)
    ragged = DAUConv2d(2, 3, 2, sigma=0.01)
    ragged.keep_units(ragged.weight > 0)
    far = DAUConv2d(2, 3, 2, sigma=0.01)
    nn.init.constant_(far.mu, 5.0)
    for layer, version, message in (
        (plain, "v0", "has no blur"),
        (plain, "gauss", "is the general form"),
        (general, "gauss", "no sigma below 0.27"),
        (general, "v1", "has no blur"),
        (ragged, "v0", "no ragged"),
        (DAUConv2d(2, 3, 2, sigma=0.01, dilation=2), "v0", "no dilated"),
        (DAUConv2d(2, 3, 2, sigma=0.01, max_displacement=None), "v0", "whole pixels"),
        (far, "v0", "whole pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            to_dcls(layer, version)


class Stage(nn.Module):
    """Two blocks that share their positions, as the stages of ConvNeXt-dcls do, and one that does not."""

    def __init__(self):
        super().__init__()
        for name in ("a", "b", "c"):
            setattr(self, name, dcls_layer("v0", channels=(4, 4), groups=4, seed=ord(name)))
        self.b.P = self.a.P
        self.norm = nn.LayerNorm(4)


def saved_stage(folder, kind):
    path, stage = folder / f"stage.{kind}", Stage()
    if kind == "safetensors":
        safetensors.torch.save_model(stage, path)
    else:
        torch.save({f"module.{name}": tensor for name, tensor in stage.state_dict().items()}, path)
    return path, stage


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_shared_positions_are_stored_once(tmp_path, kind):
    source, stage = saved_stage(tmp_path, kind)
    checkpoint = import_checkpoint(source, version="v0", window=(7, 7))
    path = tmp_path / "out.safetensors"
    write(checkpoint, path)
    stored = safetensors.torch.load_file(path)
    assert set(stored) == {"a.weight", "a.mu", "a.bias", "b.weight", "b.bias", "c.weight", "c.mu", "c.bias"} | {
        "norm.weight", "norm.bias",
    }  # fmt: skip
    again = daukit.read(path)
    assert again.header.tied == {"b.mu": "a.mu"} and again.layer_names == ["a", "b", "c"]
    x = torch.randn(1, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    for name in again.layer_names:
        assert_same(layer_of(again, name)(x), getattr(stage, name)(x))
    with daukit.open(path) as file:
        assert torch.equal(file.tensor("b.mu"), stored["a.mu"]) and "b.mu" in file.keys()


def test_tied_layers_part_when_one_of_them_changes(tmp_path):
    source, _ = saved_stage(tmp_path, "pth")
    whole, path = tmp_path / "whole.safetensors", tmp_path / "pruned.safetensors"
    write(import_checkpoint(source, version="v0", window=(7, 7)), whole)
    pruned, _ = prune(daukit.read(whole), 0.3)
    write(pruned, path)
    again = daukit.read(path)
    assert again.header.tied == {}
    for name in ("a", "b"):
        before, after = daukit.read(whole).layer(name), again.layer(name)
        keep = before.weight.abs() >= 0.3 * before.weight.abs().max()
        assert torch.equal(after.mu, before.mu[:, keep]) and 0 < after.weight.numel() < before.weight.numel()


def test_a_damaged_tie_is_named(tmp_path):
    source, _ = saved_stage(tmp_path, "pth")
    path = tmp_path / "out.safetensors"
    write(import_checkpoint(source, version="v0", window=(7, 7)), path)
    header, stored = daukit.read(path).header, safetensors.torch.load_file(path)
    for text, message in (
        (header.to_json().replace('"b.mu": "a.mu"', '"b.mu": "z.mu"'), "there is no tensor 'b.mu'"),
        (header.to_json().replace('"b.mu": "a.mu"', '"b.mu": 3'), "'tied' must map names to names"),
    ):
        safetensors.torch.save_file(stored, path, {"daukit": text})
        with pytest.raises(CheckpointError, match=message):
            daukit.read(path)


def test_whole_networks_need_to_be_named(tmp_path):
    source, _ = saved_stage(tmp_path, "pth")
    path = tmp_path / "out.safetensors"
    write(import_checkpoint(source, version="v0", window=(7, 7)), path)
    with pytest.raises(CheckpointError, match="holds the layers of a dcls file, not a whole network; name one"):
        daukit.load(path)
    factory = tmp_path / "nets.py"
    factory.write_text(
        "from torch import nn\nfrom daukit import DAUConv2d\ndef stage():\n    net = nn.Module()\n"
        "    for name in 'abc':\n        setattr(net, name, DAUConv2d(4, 4, 3, groups=4, sigma=1e-3))\n"
        "    net.norm = nn.LayerNorm(4)\n    return net\n"
    )
    network = daukit.load(path, model=f"{factory}:stage")
    assert torch.equal(network.b.mu, network.a.mu) and not torch.equal(network.c.mu, network.a.mu)
