"""``daukit convert --to``: a classifier becomes a segmentation network, which trains on without a recipe."""

import json

import pytest
import torch
from trees import segmentation_tree

import daukit
from daukit.checkpoint import read
from daukit.models import record_of
from daukit.preprocessing import Preprocessing

COMMAND = "convert"
SIZES = {"channels": [3, 4, 5, 4, 3], "hidden": 6}
SEGMENTATION = ("--to", "alexnet_dau", "--to-arg", "task=segmentation")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    torch.manual_seed(0)
    made = daukit.create_model("alexnet_dau", num_classes=5, **SIZES)
    record_of(made).preprocessing = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bgr", (227, 227))
    path = tmp_path_factory.mktemp("classifier") / "classifier.safetensors"
    daukit.save(made, path)
    return path


def test_a_classifier_becomes_a_segmentation_network_by_one_command(run, classifier, tmp_path):
    output, classes = tmp_path / "made.safetensors", tmp_path / "classes.txt"
    classes.write_text("sky\nwall\nroad\n")
    code, out, err = run(classifier, *SEGMENTATION, "--classes", classes, "-o", output)
    assert code == 0 and "4 -> 8" in out and "new, zero" in out and "not taken: fc8" in err
    before, after = daukit.load(classifier), daukit.load(output)
    assert torch.equal(after.conv3.mu, 2 * before.conv3.mu) and torch.equal(after.conv2.mu, before.conv2.mu)
    assert after(torch.rand(1, 3, 40, 48)).shape == (1, 3, 40, 48)
    header = read(output).header
    assert header.modules == {} and header.preprocessing.class_names == ("sky", "wall", "road")
    assert (header.preprocessing.mean, header.preprocessing.channel_order) == ((0.1, 0.2, 0.3), "bgr")
    assert [entry["operation"] for entry in header.history] == ["rescale", "adapt"]
    assert {entry["source"] for entry in header.history} == {read(classifier).digest}
    code, _, err = run(classifier, *SEGMENTATION, "-o", output)
    assert code == 1 and "exists" in err
    assert run(classifier, *SEGMENTATION, "-o", output, "--overwrite")[0] == 0


def test_a_dry_run_tells_it_layer_by_layer_and_writes_nothing(run, classifier):
    before = sorted(classifier.parent.iterdir())
    code, out, err = run(classifier, *SEGMENTATION, "--dry-run", "--json")
    assert code == 0 and "nothing was written" in err and sorted(classifier.parent.iterdir()) == before
    result = json.loads(out)
    assert result["output"] is None and result["left"] == ["fc8"] and result["notes"] == []
    layers = {layer["name"]: layer for layer in result["layers"]}
    assert {name: layer.get("factor") for name, layer in layers.items()} == {
        "conv1": 1, "conv2": 1, "conv3": 2, "conv4": 2, "conv5": 2, "fc6": 4, "fc7": 4, "score": None,
    }  # fmt: skip
    assert layers["fc6"]["type_before"] == "Linear" and layers["fc6"]["type"] == "Conv2d"
    assert layers["score"] == {"name": "score", "type": "Conv2d", "taken_from": None, "zero": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*SEGMENTATION, "--substitute"), "give one of the two"),
        ((*SEGMENTATION, "--substitute", "--sparse", "--units-table"), "give one of the four"),
        (("--to-arg", "task=segmentation"), "this needs --to"),
        (("--classes", "classes.txt"), "this needs --to"),
        (("--to", "alexnet_dau", "--model-arg", "task=segmentation"), "options of the --to network go to --to-arg"),
        ((*SEGMENTATION, "--units", 3), "needs --substitute"),
        ((*SEGMENTATION, "--where", "conv1"), "this needs --substitute"),
        ((*SEGMENTATION, "--time"), "this needs --sparse"),
        ((*SEGMENTATION, "--window", 3), "this is for files of other libraries"),
        ((*SEGMENTATION, "--from", "caffe"), "this is for networks"),
        (("--to", "alexnet_dau", "--to-arg", "tsak=segmentation"), "did you mean 'task'?"),
        (("--to", "alexnet_dau", "--to-arg", "task=5"), "option task of alexnet_dau must be"),
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(run, classifier, arguments, message):
    code, out, err = run(classifier, *arguments, "--dry-run")
    assert code == 2 and out == "" and message in " ".join(err.split()).replace("│ ", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "alexnte"), "there is no model 'alexnte'; did you mean 'alexnet'?"),
        (("--to", "alexnet_dau"), "is this network already, so nothing was converted"),
        (("--to", "srn_deblur"), "none of its layers fits srn_deblur"),
        ((*SEGMENTATION, "--to-arg", "sigma=0.7"), "layer 'conv2' has sigma 0.5, and 0.7 here"),
    ],
)
def test_what_cannot_be_made_is_one_line(run, classifier, arguments, message):
    code, out, err = run(classifier, *arguments, "--dry-run")
    assert code == 1 and out == "" and message in err and err.count("\n") == 1


@pytest.mark.slow
def test_training_goes_on_from_it_without_a_recipe(run, classifier, tmp_path, daukit_command):
    data, made = segmentation_tree(tmp_path / "masks", size=(40, 45)), tmp_path / "made.safetensors"
    assert run(classifier, *SEGMENTATION, "--to-arg", "num_classes=3", "-o", made)[0] == 0
    trained = tmp_path / "trained.safetensors"
    arguments = ("--data", data, "--initial-checkpoint", made, "--epochs", 1, "--batch-size", 2, "--crop-size", "65")
    done = daukit_command("train", *arguments, "-o", trained)
    assert done.returncode == 0, done.stderr
    assert daukit_command("evaluate", trained, "--data", data).returncode == 0
    header = read(trained).header
    assert [entry["operation"] for entry in header.history] == ["rescale", "adapt", "train"]
    assert header.preprocessing.class_names == ("sky", "wall", "road") and header.preprocessing.channel_order == "bgr"
