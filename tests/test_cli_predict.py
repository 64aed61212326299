"""``daukit predict``: what is written is what the network says, file by file, and nothing is lost."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from example_files import write_example_files
from folders import names
from PIL import Image
from trees import picture

import daukit
from daukit.datasets import fitted, load_folder, load_imagenet
from daukit.models import record_of
from daukit.models.factory import build_architecture
from daukit.pictures import read_mask
from daukit.plots.palette import class_colors
from daukit.preprocessing import Preprocessing
from daukit.tasks import task_of

COMMAND = "predict"


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pictures(tmp_path):
    """Three pictures, one of them in a folder of its own, and what does not count."""
    picture(tmp_path / "in/b.jpg", (40, 33), seed=1)
    picture(tmp_path / "in/a.png", (35, 41), seed=2)
    picture(tmp_path / "in/more/a.png", (30, 30), seed=3)
    picture(tmp_path / "in/.hidden.png")
    (tmp_path / "in/notes.txt").write_text("no picture")
    return tmp_path / "in"


def network(name, **changes):
    """The name of one of the networks of the documents, written here."""
    write_example_files(Path(), name)
    if changes:
        model = daukit.load(name)
        record_of(model).preprocessing = Preprocessing(**changes)
        daukit.save(model, name, overwrite=True)
    return name


def said(model, path):
    seen = record_of(model).preprocessing
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
    with torch.no_grad():
        return model.eval()(seen.normalize(pixels)), seen


def test_masks_have_the_classes_as_their_values(pictures, tmp_path, run):
    Path("own.py").write_text("from torch import nn\n\ndef make():\n    return nn.Conv2d(3, 21, 3, padding=1)\n")
    model = build_architecture({"factory": "own.py:make", "config": {}})
    daukit.save(model, "own.safetensors", preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3, "rgb", (32, 32)))
    model = daukit.load("own.safetensors", model="own.py:make")
    own = ("--model", "own.py:make", "--task", "segmentation")
    code, out, err = run("own.safetensors", pictures, *own, "-o", "out", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert [entry["output"] for entry in result["pictures"]] == ["out/a.png", "out/b.png", "out/more/a.png"]
    assert result["task"] == "segmentation" and "output" not in result
    for entry in result["pictures"]:
        mask = read_mask(tmp_path / entry["output"])
        assert len(mask.unique()) > 2
        assert torch.equal(mask.long(), said(model, entry["picture"])[0].argmax(1)[0])
        image = Image.open(tmp_path / entry["output"])
        assert np.array_equal(np.array(image.convert("RGB")), np.array(class_colors(21), dtype=np.uint8)[mask])
    assert names(tmp_path / "out") == ["a.png", "b.png", "more"]


def test_sharp_pictures_have_the_colours_of_the_network_whatever_their_order(pictures, tmp_path, run):
    for order in ("rgb", "bgr"):
        Path("srn.safetensors").unlink(missing_ok=True)
        file = network("srn.safetensors", mean=(0.0,) * 3, std=(1.0,) * 3, channel_order=order, input_size=(16, 16))
        code, _, err = run(file, pictures / "a.png", "-o", order)
        assert code == 0 and err.endswith("wrote 1 picture\n")
        pixels = torch.from_numpy(np.array(Image.open(pictures / "a.png"))).permute(2, 0, 1)[None] / 255
        turn = (lambda image: image.flip(1)) if order == "bgr" else (lambda image: image)
        with torch.no_grad():
            wanted = turn(daukit.load(file).eval()(turn(pixels)))
        found = np.array(Image.open(tmp_path / order / "a.png"))
        assert np.array_equal(found, (255 * wanted.clamp(0, 1)).round().byte()[0].permute(1, 2, 0))


@pytest.fixture
def classifying(tmp_path):
    write_example_files(tmp_path, "examples/fashion-mnist pictures/")
    return tmp_path / "examples/fashion-mnist/shallow_dau.safetensors"


def test_a_classifier_writes_its_five_likeliest_classes(classifying, tmp_path, run):
    code, out, err = run(classifying, "pictures", "-o", "out", "--json")
    assert code == 0, err
    model, images = daukit.load(classifying), load_folder(classifying.parent, "test")
    seen = record_of(model).preprocessing
    with torch.no_grad():
        shares, classes = model(seen.normalize(images.images[:2])).double().softmax(1).topk(5)
    with (tmp_path / "out/classes.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["picture", "place", "class", "name", "probability"] and len(rows) == 10
    for i, row in enumerate(rows):
        k, place = divmod(i, 5)
        label = int(classes[k, place])
        assert row[:4] == [f"pictures/{k}.png", str(place + 1), str(label), seen.class_names[label]]
        assert np.isclose(float(row[4]), float(shares[k, place]), rtol=1e-6)
    answers = json.loads(out)["pictures"][1]["answers"]
    assert [answer["label"] for answer in answers] == classes[1].tolist()
    assert [answer["name"] for answer in answers] == [seen.class_names[label] for label in classes[1]]
    assert run(classifying, "pictures", "-o", "again", "--quiet")[1] == "again/classes.csv\n"


def test_pictures_of_another_size_are_read_as_evaluate_reads_them(classifying, tmp_path, run):
    picture(tmp_path / "data/val/x/big.png", (80, 64), mode="L")
    picture(tmp_path / "data/val/y/wide.png", (33, 90), seed=1, mode="L")
    (tmp_path / "data/classes.txt").write_text("x\ny\n")
    model = daukit.load(classifying)
    dataset = fitted(load_imagenet(tmp_path / "data", "test"), record_of(model).preprocessing)
    with torch.no_grad():
        first = task_of(model).predict(model.eval(), dataset.batch(slice(2)).images).double().softmax(1).max(1)
    result = json.loads(run(classifying, "data/val", "--dry-run", "--json")[1])
    found = [(entry["answers"][0]["label"], entry["answers"][0]["probability"]) for entry in result["pictures"]]
    assert [label for label, _ in found] == first.indices.tolist()
    assert np.allclose([share for _, share in found], first.values, rtol=1e-6)


def test_nothing_is_overwritten_unasked_and_a_dry_run_writes_nothing(pictures, tmp_path, run):
    file = network("voc.safetensors")
    assert run(file, pictures, "--dry-run")[0] == 0 and not (tmp_path / "out").exists()
    assert run(file, pictures)[0] == 2
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b.png").write_bytes(b"mine")
    code, _, err = run(file, pictures, "-o", "out")
    assert code == 1 and "out/b.png: exists already" in err and names(tmp_path / "out") == ["b.png"]
    code, out, _ = run(file, pictures, "-o", "out", "--overwrite", "--quiet")
    assert code == 0 and out == "out/a.png\nout/b.png\nout/more/a.png\n"


def test_no_picture_is_replaced_by_its_mask(pictures, run):
    before = (pictures / "a.png").read_bytes()
    code, _, err = run(network("voc.safetensors"), pictures / "a.png", "-o", "in", "--overwrite")
    assert code == 1 and "a.png: is read here" in err and (pictures / "a.png").read_bytes() == before


def test_two_pictures_of_one_name_are_an_error(pictures, run):
    code, _, err = run(network("voc.safetensors"), pictures / "a.png", pictures / "more/a.png", "-o", "out")
    assert code == 1 and "out/a.png: would be written for both" in err and err.count("\n") == 1


def test_masks_in_a_folder_of_pictures_are_not_read_again(pictures, tmp_path, run):
    file = network("voc.safetensors")
    for _ in range(2):
        code, out, _ = run(file, pictures, "-o", "in/masks", "--overwrite", "--quiet")
        assert code == 0 and len(out.splitlines()) == 3


@pytest.mark.parametrize("head", [b"", b"\x89PNG\r\n\x1a\n\0\0", b"GIF87a"])
def test_a_broken_picture_ends_it_before_anything_is_written(pictures, tmp_path, run, head):
    (pictures / "more/z.png").write_bytes(head)
    code, _, err = run(network("voc.safetensors"), pictures, "-o", "out")
    assert code == 1 and "in/more/z.png: cannot be read as a picture" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_picture_that_ends_early_keeps_what_was_written_before(pictures, tmp_path, run):
    whole = (pictures / "b.jpg").read_bytes()
    (pictures / "b.jpg").write_bytes(whole[: len(whole) // 2])
    code, _, err = run(network("voc.safetensors"), pictures, "-o", "out")
    assert code == 1 and "in/b.jpg: cannot be read as a picture" in err and names(tmp_path / "out") == ["a.png"]


@pytest.mark.parametrize(
    ("given", "words"), [("nowhere", "there is no such picture"), ("empty", "there is no picture")]
)
def test_what_is_not_there_is_one_line(tmp_path, run, given, words):
    (tmp_path / "empty").mkdir()
    code, _, err = run(network("voc.safetensors"), given, "-o", "out")
    assert code == 1 and f"{given}: {words}" in err and err.count("\n") == 1


def test_numbers_that_are_not_finite_are_told(pictures, run):
    file = network("voc.safetensors")
    model = daukit.load(file)
    for parameter in model.parameters():
        parameter.data.fill_(1e30)
    daukit.save(model, file, overwrite=True)
    code, _, err = run(file, pictures / "a.png", "-o", "out")
    assert code == 1 and "in/a.png: voc.safetensors's network says numbers of it that are not finite" in err


@pytest.mark.slow
def test_tiles_write_the_same_mask(tmp_path, run):
    picture(tmp_path / "tall.png", (700, 40))
    file = network("voc.safetensors")
    assert run(file, "tall.png", "-o", "whole")[0] == run(file, "tall.png", "-o", "tiles", "--tile", "640")[0] == 0
    assert torch.equal(read_mask(tmp_path / "whole/tall.png"), read_mask(tmp_path / "tiles/tall.png"))


def test_predict_names_what_the_network_cannot_take(pictures, tmp_path, run):
    shutil.copy(pictures / "a.png", tmp_path / "a.png")
    code, _, err = run(network("voc.safetensors"), "a.png", "-o", "out", "--task", "segmentation")
    assert code == 2 and "drop --task" in err
