"""What ``daukit erf`` probes and with what: networks without files, several networks, pictures, enough images."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from idx import write_idx
from PIL import Image
from torch import nn

import daukit
from daukit.checkpoint import from_model, history_entry, write
from daukit.preprocessing import Preprocessing

COMMAND = "erf"

NETWORK = """
import torch
from torch import nn

def make(kernel=5, channels=3):
    return nn.Sequential(nn.Conv2d(channels, 4, kernel), nn.ReLU(), nn.Conv2d(4, 8, kernel))

def dead():
    model = make(3, 1)
    nn.init.zeros_(model[2].weight)
    return model

def overflowing():
    model = make(3, 1)
    nn.init.constant_(model[2].weight, 3e38)
    nn.init.constant_(model[0].weight, 3e38)
    return model

def number():
    return 3
"""


@pytest.fixture
def factory(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    return lambda name: f"{tmp_path / 'net.py'}:{name}"


def save(path, preprocessing=None, history=(), name="shallow_dau", **config):
    torch.manual_seed(0)
    checkpoint = from_model(daukit.create_model(name, channels=[3, 2, 4], **config))
    header = replace(checkpoint.header, preprocessing=preprocessing, history=list(history))
    write(replace(checkpoint, header=header), path)
    return path


def test_a_factory_needs_no_file(run, factory):
    arguments = ("--model", factory("make"), "--model-arg", "kernel=3", "--images", 2, "--size", 11, "--json")
    code, out, err = run(*arguments)
    result = json.loads(out)
    assert code == 0
    assert (result["file"], result["network"], result["trained"]) == (None, factory("make"), None)
    assert [layer["name"] for layer in result["layers"]] == ["0", "2"]
    assert [layer["size"] for layer in result["layers"]] == [[3, 3], [5, 5]]
    assert result["layers"][1]["contours"][-1]["area"] == 25
    assert "training" not in err  # nobody knows, and the table says so
    assert run(*arguments)[1] == out  # initial weights repeat with the seed
    assert run(*arguments, "--seed", 1)[1] != out


def test_a_factory_of_a_package_and_a_network_of_daukits_need_no_file(run):
    code, out, _ = run("--model", "torch.nn:Conv2d", "--model-arg", "in_channels=1", "--model-arg", "out_channels=2",
                       "--model-arg", "kernel_size=3", "--layer", "missing", "--json")  # fmt: skip
    assert (code, out) == (1, "")
    options = ("--model-arg", "channels=[3,2,4]", "--layer", "conv1", "--images", 1, "--json")
    code, out, err = run("--model", "shallow_dau", *options)
    assert json.loads(out)["trained"] is False
    assert "initial weights" in err


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("missing", [], "cannot import the factory"),
        ("number", [], "not a torch.nn.Module"),
        ("make", ["--layer", "3"], "there is no layer '3'"),
        ("dead", ["--layer", "2", "--size", "9"], "layer '2': nothing influences the probed output"),
        ("overflowing", ["--size", "9"], "layer '2': its gradient holds NaN or infinity"),
        ("make", ["--size", "3"], "its forward failed on (1, 3, 3, 3)"),
    ],
)
def test_what_a_factorys_network_does_wrong_is_one_line_that_names_it(run, factory, name, options, message):
    code, out, err = run("--model", factory(name), *options)
    assert (code, out) == (1, "")
    assert message in err and factory(name) in err
    assert err.strip().count("\n") == 0


def test_a_dead_layer_of_a_file_names_the_file_and_the_layer(run, tmp_path):
    model = daukit.create_model("shallow_dau", channels=[3, 2, 4], units=1)
    nn.init.zeros_(model.conv2.weight)
    write(from_model(model), tmp_path / "dead.safetensors")
    code, _, err = run(tmp_path / "dead.safetensors", "--size", 28)
    assert code == 1
    assert f"{tmp_path / 'dead.safetensors'}: layer 'conv2': nothing influences the probed output" in err


def test_neither_a_file_nor_a_network_is_wrong_usage(run):
    code, _, err = run("--size", 8)
    assert code == 2
    assert "--model" in err


@pytest.mark.slow
def test_any_number_of_networks_stand_in_one_table_and_one_figure(run, factory, tmp_path):
    dau = save(tmp_path / "dau.safetensors", units=2, history=[history_entry("train", {}, None)])
    plain = save(tmp_path / "plain.safetensors", name="shallow")
    torch.save(daukit.create_model("shallow", channels=[3, 2, 4]).state_dict(), tmp_path / "bare.pt")
    others = [option for other in (plain, "shallow", tmp_path / "bare.pt") for option in ("--compare", other)]
    options = (
        "--compare-model", "shallow", "--compare-model-arg", "channels=[3,2,4]", "--layer", "conv1", "--layer", "conv2",
        "--images", 2, "--size", 28, "--npz", tmp_path / "maps.npz", "-o", tmp_path / "four.png", "--overwrite",
    )  # fmt: skip
    code, out, _ = run(dau, *others, *options, "--json")
    result = json.loads(out)
    assert code == 0
    assert [entry["trained"] for entry in result["networks"]] == [True, None, False, None]
    assert result["compare"] == result["networks"][1]
    assert {key: result[key] for key in result["networks"][0]} == result["networks"][0]
    with np.load(tmp_path / "maps.npz") as archive:
        prefixes = ("", "compare/", "compare2/", "compare3/")
        assert sorted(archive) == sorted(prefix + layer for prefix in prefixes for layer in ("conv1", "conv2"))
    assert (tmp_path / "four.png").read_bytes().startswith(b"\x89PNG")
    _, out, _ = run(dau, *others, *options)
    assert out.count(" trained") == 1 and out.count("untrained") == 1 and out.count("training unknown") == 2
    assert out.count("│ conv2") == 4 * (4 + 1)  # networks, contours, and one row of places


def test_probes_state_their_error_and_enough_images_are_enough(run, factory):
    arguments = ("--model", factory("make"), "--measure", "squared", "--size", 15, "--images", 40, "--layer", "0")
    code, out, err = run(*arguments, "--probes", 2, "--until-stable", 0.1, "--json")
    result = json.loads(out)
    assert code == 0
    assert 8 <= result["images"] < result["images_limit"] == 40
    assert f"stable to 10 % after {result['images']} images" in err
    half = result["layers"][0]["contours"][1]
    low, high = half["radius_interval"]
    assert low <= half["radius"] <= high and half["radius_error"] > 0
    assert half["area_interval"] == pytest.approx([math.pi * low**2, math.pi * high**2])
    code, out, err = run(*arguments, "--until-stable", 1e-9, "--probes", 2)
    assert "error of probes" in out and "95 % interval" in out
    assert "took all 40 images" in err


def pictures(folder, number):
    """Noise of 30 x 40 pixels as PNG and JPEG files, in a folder and one in it."""
    (folder / "inner").mkdir(parents=True)
    dice = np.random.default_rng(0)
    for i in range(number):
        path = folder / ("inner" if i % 2 else ".") / f"{i}.{'png' if i % 3 else 'jpg'}"
        Image.fromarray(dice.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return folder


GRAY = Preprocessing(mean=(0.25,), std=(0.5,), channel_order="gray", input_size=(20, 24))


def test_pictures_are_fitted_and_preprocessed_as_the_file_says(run, tmp_path):
    path = save(tmp_path / "net.safetensors", GRAY, units=2)
    folder = pictures(tmp_path / "pictures", 5)
    code, out, _ = run(path, "--data", folder, "--images", 9, "--layer", "conv2", "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["images"], result["size"]) == (5, [20, 24])
    inputs = []
    for file in sorted(folder.rglob("*.*g")):
        gray = np.asarray(Image.open(file).convert("RGB"), dtype=np.float64) @ [0.299, 0.587, 0.114]
        # 30 x 40 covers 20 x 24 at 20 x 26 2/3: scaled by torch, and cut in the middle.
        scaled = nn.functional.interpolate(
            torch.tensor(gray)[None, None, :, 2:38], (20, 24), mode="bilinear", antialias=True
        )
        inputs.append((scaled[0] / 255 - 0.25) / 0.5)
    (field,) = daukit.effective_receptive_field(daukit.load(path), "conv2", torch.stack(inputs).float())
    # Pillow's pixels are whole numbers, and its two filters round one after the other.
    assert result["layers"][0]["centroid"] == pytest.approx(field.centroid, abs=0.05)
    assert result["layers"][0]["std"] == pytest.approx(field.std, abs=0.05)


def test_the_order_of_colours_is_the_files(run, tmp_path):
    results = []
    folder = pictures(tmp_path / "pictures", 1)
    for order in ("rgb", "bgr"):
        fed = Preprocessing(mean=(0.2, 0.5, 0.9), std=(1, 1, 1), channel_order=order, input_size=(24, 24))
        path = save(tmp_path / f"{order}.safetensors", fed, units=1, in_channels=3)
        results.append(json.loads(run(path, "--data", folder, "--layer", "conv2", "--json")[1])["layers"])
    assert results[0] != results[1]


def test_a_network_without_preprocessing_is_told_by_mean_and_std(run, factory, tmp_path):
    folder = pictures(tmp_path / "pictures", 2)
    options = ("--model", factory("make"), "--data", folder, "--mean", "0.5,0.4,0.3", "--std", "0.2,0.2,0.2")
    code, out, _ = run(*options, "--size", "16,20", "--json")
    assert code == 0
    assert json.loads(out)["size"] == [16, 20]
    code, _, err = run(*options)
    assert code == 2 and "does not tell its input size" in err
    code, _, err = run("--model", factory("make"), "--data", folder)
    assert code == 1 and factory("make") in err and "--mean and --std" in err


@pytest.mark.parametrize("broken", ["empty", "text", "cut", "missing"])
def test_pictures_that_cannot_be_read_are_one_line_that_names_them(run, tmp_path, broken):
    path = save(tmp_path / "net.safetensors", GRAY, units=2)
    folder = pictures(tmp_path / "pictures", 2)
    named = folder / "0.jpg"
    if broken == "empty":
        named = tmp_path / "empty"
        named.mkdir()
    elif broken == "missing":
        named = tmp_path / "missing"
    else:
        data = named.read_bytes()
        named.write_bytes(b"no picture" if broken == "text" else data[: len(data) // 2])
    code, out, err = run(path, "--data", named if broken in ("empty", "missing") else folder, "--layer", "conv1")
    assert (code, out) == (1, "")
    assert str(named) in err and err.strip().count("\n") == 0


def test_images_of_other_channels_than_the_networks_are_refused(run, tmp_path):
    path = save(tmp_path / "net.safetensors", replace(GRAY, mean=(0.5, 0.5), std=(1, 1)), units=2)
    code, _, err = run(path, "--data", pictures(tmp_path / "pictures", 2), "--layer", "conv1")
    assert code == 1
    assert str(path) in err and "2 channels" in err


@pytest.mark.parametrize("said_by", ["the file", "the options"])
def test_of_several_networks_the_one_that_takes_other_images_is_named(run, tmp_path, said_by):
    Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)).save(tmp_path / "a.png")
    write_idx(tmp_path / "t10k-images-idx3-ubyte", torch.arange(144, dtype=torch.uint8).reshape(1, 12, 12))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", torch.zeros(1, dtype=torch.uint8))
    fed = {n: Preprocessing((0.5,) * n, (0.25,) * n, {1: "gray", 3: "rgb"}[n], (12, 12)) for n in (1, 3)}
    one, three = (
        save(tmp_path / f"{n}.safetensors", fed[n] if said_by == "the file" else None, in_channels=n) for n in (1, 3)
    )
    options = () if said_by == "the file" else ("--mean", "0.5", "--std", "0.25")
    code, out, err = run(one, "--compare", three, "--data", tmp_path, "--layer", "conv1", *options)
    assert (code, out) == (1, "") and err.startswith(f"error: {three}: ")
    said = {"the file": "takes images of 3 channels, those of", "the options": "its forward failed on (1, 1, 12, 12)"}
    assert said[said_by] in err and len(err.splitlines()) == 1
