"""State dicts of dcls that are damaged, or of layers that daukit has none of: each gets one line that names it."""

import pytest
import torch
from DCLS.construct.modules import Dcls2d, Dcls3_1d, Dcls3d

import daukit
from daukit.errors import CheckpointError
from daukit.importers import import_checkpoint


def dcls_layer(version):
    torch.manual_seed(0)
    return Dcls2d(4, 6, kernel_count=3, dilated_kernel_size=7, padding=3, version=version)


def broken_states():
    v0, gauss = dcls_layer("v0").state_dict(), dcls_layer("gauss").state_dict()
    v0_options, gauss_options = {"version": "v0", "window": (7, 7)}, {"version": "gauss", "window": (7, 7)}
    yield {k: t for k, t in v0.items() if k != "weight"}, v0_options, "there is P, but no weight"
    yield {**v0, "weight": v0["weight"][0]}, v0_options, "there is P, but no weight"
    yield {**v0, "P": v0["P"][:, :2]}, v0_options, "P must be"
    yield {**v0, "P": torch.zeros(4, *v0["weight"].shape)}, v0_options, "P must be"
    for other in (
        Dcls3d(4, 6, 3, dilated_kernel_size=7),
        Dcls3_1d(4, 6, 3, dense_kernel_size=3, dilated_kernel_size=7),
    ):
        yield other.state_dict(), {**v0_options, "version": "v1"}, "of three dimensions"
    flat = torch.zeros(6, 4, 3, 3)
    yield {"weight": flat, "P": flat[None]}, v0_options, r"dense along other axes \(Dcls2_1d\)"
    yield {**v0, "weight": v0["weight"].int()}, v0_options, "weight is of int32, not of float numbers"
    yield {**v0, "P": v0["P"].to(torch.complex64)}, v0_options, "of complex64, not of float numbers|complex"
    yield v0, {**v0_options, "window": (10**9 + 1, 7)}, "1 to 1023 pixels"
    yield {**v0, "bias": torch.zeros(5)}, v0_options, "5 biases for 6 outputs"
    yield {**v0, "P": v0["P"] / 0}, v0_options, "NaN or infinity"
    yield {**gauss, "SIG": gauss["SIG"][:1]}, gauss_options, "SIG .* is not like P"
    yield v0, gauss_options, "has no SIG, so its version is not gauss"
    yield gauss, v0_options, "has a SIG, so its version is not v0"
    yield v0, {**v0_options, "window": (8, 8)}, "odd sides"
    yield v0, {**v0_options, "window": {"blok": (7, 7)}}, "did you mean 'block'"
    yield v0, {**v0_options, "window": {}}, "its window is not in the file"
    yield v0, {**v0_options, "groups": 4}, "6 outputs are not a multiple of 4 groups"
    yield {"weight": torch.zeros(2, 2, 3, 3)}, v0_options, "holds no layer of displaced units"


def test_every_broken_file_gets_one_line_that_names_it(tmp_path):
    path = tmp_path / "net.pth"
    for state, options, message in broken_states():
        torch.save({f"block.{key}": tensor for key, tensor in state.items()}, path)
        with pytest.raises(CheckpointError, match=message) as caught:
            import_checkpoint(path, source="dcls", **options)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="does not tell its layers' version and window"):
        import_checkpoint(path)


def test_a_daukit_file_is_not_imported_again(tmp_path):
    path = tmp_path / "model.safetensors"
    daukit.save(daukit.create_model("shallow_dau", channels=[2, 2, 2], units=1), path)
    with pytest.raises(CheckpointError, match="is a daukit file already"):
        import_checkpoint(path)
