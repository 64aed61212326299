"""``daukit erf`` as a user meets it: files in, numbers, figures and errors out."""

import gzip
import json
import math
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import nn

import daukit
from daukit.checkpoint import from_model, history_entry, write
from daukit.preprocessing import Preprocessing

COMMAND = "erf"
DOCS = Path(__file__).parent.parent / "docs"


def save(path, name="shallow_dau", preprocessing=None, history=(), **config):
    torch.manual_seed(0)
    checkpoint = from_model(daukit.create_model(name, channels=[3, 2, 4], **config))
    write(
        replace(checkpoint, header=replace(checkpoint.header, preprocessing=preprocessing, history=list(history))), path
    )
    return path


@pytest.fixture
def dau(tmp_path):
    return save(tmp_path / "dau.safetensors", units=2)


@pytest.fixture
def plain(tmp_path):
    return save(tmp_path / "plain.safetensors", "shallow")


def idx_folder(folder, images):
    """Test images (N, H, W) with labels 0, as IDX files."""
    folder.mkdir()
    header = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in images.shape)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.numpy().tobytes()))
    labels = b"\0\0\x08\x01" + len(images).to_bytes(4, "big") + bytes(len(images))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(labels)
    return folder


def test_json_numbers_agree_with_a_recount_of_the_maps(run, dau, tmp_path):
    npz = tmp_path / "maps.npz"
    code, out, _ = run(dau, "--json", "--npz", npz, "--images", 2, "--size", "48,50")
    result = json.loads(out)
    assert code == 0
    expected = {
        "measure": "absolute", "images": 2, "size": [48, 50], "seed": 0, "data": None, "trained": None, "compare": None,
        "probes": None, "until_stable": None, "about": "center", "images_limit": 2,
    }  # fmt: skip
    assert {key: result[key] for key in expected} == expected
    with np.load(npz) as archive:
        maps = dict(archive)
    assert sorted(maps) == [layer["name"] for layer in result["layers"]] == ["conv1", "conv2", "conv3"]
    for layer in result["layers"]:
        share = np.sort(maps[layer["name"]].ravel())[::-1].cumsum()
        areas = [int((share < mass - 1e-12).sum()) + 1 for mass in (0.25, 0.5, 0.75, 0.999)]
        assert [contour["mass"] for contour in layer["contours"]] == [0.25, 0.5, 0.75, 0.999]
        assert [contour["area"] for contour in layer["contours"]] == areas
        assert [contour["radius"] for contour in layer["contours"]] == [math.sqrt(area / math.pi) for area in areas]
        rows = maps[layer["name"]].sum(1) @ np.arange(48)
        assert layer["centroid"][0] == pytest.approx(rows, rel=1e-12)
    assert [layer["center"] for layer in result["layers"]] == [[24, 25], [24.5, 24.5], [25.5, 25.5]]


def test_figure_and_archive_are_written_again_byte_for_byte(run, dau, tmp_path):
    for name in ("a", "b"):
        code, _, _ = run(
            dau, "-o", tmp_path / f"{name}.png", "--npz", tmp_path / f"{name}.npz", "--images", 1, "--size", 32
        )
        assert code == 0
    for suffix in ("png", "npz"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    dates = {member.date_time for member in zipfile.ZipFile(tmp_path / "a.npz").infolist()}
    assert dates == {(1980, 1, 1, 0, 0, 0)}


def test_two_networks_are_measured_on_the_same_size_and_shown_together(run, dau, plain, tmp_path):
    npz = tmp_path / "both.npz"
    code, out, err = run(plain, "--compare", dau, "-o", tmp_path / "both.svg", "--npz", npz, "--images", 1, "--json")
    result = json.loads(out)
    assert code == 0
    assert result["file"].endswith("plain.safetensors")
    assert result["compare"]["file"].endswith("dau.safetensors")
    assert [layer["name"] for layer in result["compare"]["layers"]] == ["conv1", "conv2", "conv3"]
    with np.load(npz) as archive:
        names = sorted(archive)
    assert names == ["compare/conv1", "compare/conv2", "compare/conv3", "conv1", "conv2", "conv3"]
    assert not any(layer["clipped"] for report in (result, result["compare"]) for layer in report["layers"])
    assert "both.svg" in err


def test_tables_name_every_contour_and_the_talk_says_what_to_mind(run, dau):
    code, out, err = run(dau, "--size", "12", "--images", 1, "--layer", "conv3")
    assert code == 0
    for text in ("25 %", "50 %", "75 %", "99.9 %", "radius (px)", "centroid (y, x)"):
        assert text in out
    assert out.count("training unknown") == 1 and "training" not in err
    assert "conv3 may be clipped" in err
    assert "--size 24,24" in err


def test_a_trained_file_says_so(run, tmp_path):
    path = save(tmp_path / "trained.safetensors", units=1, history=[history_entry("train", {}, None)])
    _, out, err = run(path, "--json", "--layer", "conv1", "--images", 1)
    assert json.loads(out)["trained"] is True
    assert "training" not in err


def test_images_of_a_folder_are_preprocessed_as_the_file_says(run, tmp_path):
    preprocessing = Preprocessing(mean=(0.25,), std=(0.5,), channel_order="gray", input_size=(28, 28))
    path = save(tmp_path / "net.safetensors", units=2, preprocessing=preprocessing)
    pixels = torch.randint(0, 256, (6, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    folder = idx_folder(tmp_path / "images", pixels)
    code, out, _ = run(path, "--data", folder, "--images", 6, "--layer", "conv2", "--json")
    inputs = (pixels[:, None].float() / 255 - 0.25) / 0.5
    (field,) = daukit.effective_receptive_field(daukit.load(path), "conv2", inputs)
    result = json.loads(out)
    assert code == 0
    assert (result["images"], result["size"], result["data"]) == (6, [28, 28], str(folder))
    # The images come in another order and the pixels were scaled in another one: float32 all the same.
    assert result["layers"][0]["centroid"] == pytest.approx(field.centroid, rel=1e-5)
    assert result["layers"][0]["std"] == pytest.approx(field.std, rel=1e-5)


def test_images_without_preprocessing_are_refused(run, dau, tmp_path):
    folder = idx_folder(tmp_path / "images", torch.zeros(2, 28, 28, dtype=torch.uint8))
    code, _, err = run(dau, "--data", folder)
    assert code == 1
    assert str(dau) in err and "give --mean and --std" in err


def test_the_input_begins_at_the_networks_size_and_grows_with_its_fields(run, tmp_path):
    preprocessing = Preprocessing(mean=(0.0,), std=(1.0,), channel_order="gray", input_size=(14, 16))
    path = save(tmp_path / "net.safetensors", units=2, preprocessing=preprocessing)
    _, out, _ = run(path, "--json", "--images", 1, "--layer", "conv1")
    assert json.loads(out)["size"] == [14, 16]
    _, out, _ = run(path, "--json", "--images", 1, "--layer", "conv2")
    assert json.loads(out)["size"] == [28, 32]


def test_any_network_of_the_users_own_is_measured_from_its_state_dict(run, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef make(kernel):\n    return nn.Sequential(nn.Conv2d(3, 2, kernel), nn.Flatten())\n"
    )
    torch.save(nn.Sequential(nn.Conv2d(3, 2, 5), nn.Flatten()).state_dict(), tmp_path / "net.pt")
    model = f"{tmp_path / 'net.py'}:make"
    code, out, _ = run(tmp_path / "net.pt", "--model", model, "--model-arg", "kernel=5", "--size", 9, "--json")
    (layer,) = json.loads(out)["layers"]
    assert code == 0
    assert (layer["name"], layer["center"], layer["contours"][-1]["area"]) == ("0", [4, 4], 25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "conv4"], "did you mean 'conv"),
        (["--layer", "classifier", "--size", "28"], "must give maps"),
        (["-o", "figure.txt"], ".png, .jpg, .pdf, .svg"),
        (["--npz", "maps.npy"], "NumPy archive is .npz"),
        (["--compare", "missing.safetensors"], "missing.safetensors"),
    ],
)
def test_what_goes_wrong_is_one_line_and_exit_code_1(run, dau, arguments, message):
    code, out, err = run(dau, *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "0"], "is not a size"),
        (["--size", "8,8,8"], "is not a size"),
        (["--probes", "8"], "--measure squared only"),
        (["--probes", "0", "--measure", "squared"], "--probes"),
        (["--until-stable", "2"], "not a share"),
        (["--about", "middle"], "center"),
        (["--mean", "0.5"], "--mean and --std together"),
        (["--mean", "0.5", "--std", "0.5"], "with --data"),
        (["--mean", "0.5", "--std", "0", "--data", "."], "none of them 0"),
        (["--compare", "a.pt", "--compare-model", "shallow", "--compare-model", "shallow"], "one for each"),
        (["--measure", "relu"], "absolute"),
        (["--images", "0"], "--images"),
    ],
)
def test_wrong_usage_is_exit_code_2(run, dau, arguments, message):
    code, out, err = run(dau, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_networks_of_different_depth_need_layers_by_name(run, dau, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Conv2d(1, 2, 3))\n"
    )
    torch.save(nn.Sequential(nn.Conv2d(1, 2, 3)).state_dict(), tmp_path / "net.pt")
    code, _, err = run(dau, "--compare", tmp_path / "net.pt", "--compare-model", f"{tmp_path / 'net.py'}:make")
    assert code == 2
    assert "3 layers" in err


@pytest.mark.parametrize("option", ["-o", "--npz"])
def test_an_existing_output_is_refused_before_any_work(run, tmp_path, option):
    taken = tmp_path / ("taken.png" if option == "-o" else "taken.npz")
    taken.write_bytes(b"mine")
    code, _, err = run(tmp_path / "no-such-file.safetensors", option, taken)
    assert code == 1
    assert "taken" in err
    assert taken.read_bytes() == b"mine"


def test_overwrite_replaces_the_outputs(run, dau, tmp_path):
    taken = tmp_path / "taken.png"
    taken.write_bytes(b"mine")
    code, _, _ = run(dau, "-o", taken, "--overwrite", "--images", 1, "--size", 16, "--layer", "conv1")
    assert code == 0
    assert taken.read_bytes().startswith(b"\x89PNG")


def test_the_page_explains_every_option_and_no_other(run):
    _, text, _ = run("--help")
    page, common = ((DOCS / name).read_text(encoding="utf-8") for name in ("erf.md", "cli.md"))
    options = {option for option in re.findall(r"--[a-z][a-z-]+", text) if f"--no{option[1:]}" not in text}
    named = set(re.findall(r"--[a-z][a-z-]+", page))
    assert options - {"--output", "--help"} <= named | set(re.findall(r"--[a-z][a-z-]+", common))
    assert named <= set(re.findall(r"--[a-z][a-z-]+", text))


def test_a_dry_run_reports_the_same_and_writes_nothing(run, tmp_path, dau):
    options = ("--size", "12", "--images", 1, "--layer", "conv1", "--json")
    outputs = ("-o", tmp_path / "a.png", "--npz", tmp_path / "a.npz")
    code, out, err = run(dau, *options, *outputs, "--dry-run")
    assert code == 0 and "dry run: nothing was written" in err
    assert not list(tmp_path.glob("a.*"))
    (tmp_path / "a.png").touch()  # what exists does not matter where nothing is written
    assert run(dau, *options, *outputs, "--dry-run")[1] == out == run(dau, *options)[1]
    code, _, err = run(dau, *options, "-o", tmp_path / "a.bmp", "--dry-run")
    assert code == 1 and "a figure is .png" in err


def test_a_figure_may_be_as_wide_as_a_column(run, tmp_path, dau):
    for width in ("page", "column"):
        path = tmp_path / f"{width}.png"
        options = ("--size", "12", "--images", 1, "--layer", "conv1", "--layer", "conv2", "--layer", "conv3")
        assert run(dau, *options, "--width", width, "-o", path)[0] == 0
    widths = [matplotlib.image.imread(tmp_path / f"{width}.png").shape[1] for width in ("page", "column")]
    # At 200 dots an inch, and with the 0.1 inches that matplotlib leaves around a figure.
    assert widths[0] <= 200 * (6.9 + 0.2) and widths[1] <= 200 * (3.5 + 0.2)
    code, _, err = run(dau, "--width", "column")
    assert code == 2 and "--width" in err
