"""``daukit convert --to``: a classifier becomes a segmentation network, which trains on without a recipe."""

import json

import pytest
import torch
from safetensors.torch import save_file
from trees import segmentation_tree

import daukit
from daukit.checkpoint import read, write_folder
from daukit.errors import CheckpointError
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


def test_options_of_another_type_that_nobody_gave_are_told_from_the_others(run, tmp_path):
    daukit.save(daukit.create_model("shallow_dau", channels=[4, 4, 8], units=[8, 2, 3]), tmp_path / "shallow")
    code, out, err = run(tmp_path / "shallow", "--to", "deeplabv3plus_dau", "--dry-run")
    assert code == 1 and out == "" and err.count("\n") == 1
    assert "option units of deeplabv3plus_dau must be an integer from 0 to" in err and "got [8, 2, 3]" in err
    assert "(taken from " in err and "units" in err.rpartition("(taken from ")[2]
    code, _, err = run(tmp_path / "shallow", "--to", "deeplabv3plus_dau", "--to-arg", "units=[8,2,3]", "--dry-run")
    assert code == 2 and "taken from" not in err


def test_options_that_nobody_gave_are_told_from_the_others(run, tmp_path):
    daukit.save(daukit.create_model("shallow_dau", channels=[4, 4, 8], units=[8, 2, 3]), tmp_path / "shallow")
    code, out, err = run(tmp_path / "shallow", *SEGMENTATION, "--to-arg", "channels=4,4,4,4,4", "--dry-run")
    assert code == 1 and out == "" and err.count("\n") == 1
    assert "units must be four numbers, for layers 2 to 5, got [8, 2, 3] (" in err
    assert err.endswith("shallow: units; give others by --to-arg)\n")


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


DENSE = """
from torch import nn
import daukit

def make(stride=2):
    return nn.Sequential(nn.MaxPool2d(1, stride=stride), daukit.DAUConv2d(3, 4, 2, max_displacement=8.0 / stride))

def make_dense(stride=1):
    return make(stride)

def make_narrow():
    return nn.Sequential(nn.Identity(), daukit.DAUConv2d(3, 4, 2, max_displacement=4.0))
"""


@pytest.fixture
def own(tmp_path):
    """A trained file of a user's classifier, and the module with its finer twins."""
    (tmp_path / "net.py").write_text(DENSE)
    spec = f"{tmp_path / 'net.py'}:make"
    made = daukit.models.factory.resolve_factory(spec)()
    daukit.save(made, tmp_path / "own.safetensors", architecture={"factory": spec, "config": {}})
    return tmp_path / "own.safetensors", spec


def test_a_users_classifier_is_converted_by_names_of_its_own(run, own, tmp_path):
    path, spec = own
    output = tmp_path / "dense.safetensors"
    code, _, err = run(path, "--model", spec, "--to", f"{spec}_dense", "-o", output)
    assert code == 0, err
    after = daukit.load(output, model=f"{spec}_dense")
    assert torch.equal(after[1].mu, 2 * daukit.load(path, model=spec)[1].mu) and after[1].max_displacement == 8
    output = tmp_path / "same.safetensors"
    code, _, err = run(path, "--model", spec, "--to", spec, "--to-arg", "stride=1", "-o", output)
    assert code == 0 and read(output).header.architecture["config"] == {"stride": 1}


def test_a_file_that_is_read_as_a_finer_network_says_so(own, daukit_command):
    path, spec = own
    with pytest.raises(CheckpointError, match=r"4\.0, and 8\.0 .*adapt_checkpoint gives it this one's layers"):
        daukit.load(path, model=f"{spec}_dense")
    # A network that does not know of finer maps has the same limits, and then only its name tells.
    done = daukit_command("info", path, "--model", f"{spec}_narrow")
    assert done.returncode == 0 and f"is of {spec}, and is read as {spec}_narrow" in done.stderr
    with pytest.warns(UserWarning, match=r"displacements as they are; .*adapt_checkpoint multiplies them"):
        daukit.load(path, model=f"{spec}_narrow")
    assert "is read as" not in daukit_command("info", path, "--model", spec).stderr


def test_a_classifiers_file_is_refused_as_a_segmentation_network_with_the_next_step(classifier, daukit_command):
    for arguments in (("--model-arg", "task=segmentation"), ("--model", "resnet50_dau")):
        done = daukit_command("info", classifier, *arguments)
        assert done.returncode in (1, 2)
        if "--model" in arguments:
            assert "make another network of it by daukit convert --to" in done.stderr
    with pytest.raises(CheckpointError, match=r"or make another network of it by daukit\.workflows\.adapt"):
        daukit.load(classifier, model="alexnet_dau", config={"task": "segmentation"})


@pytest.mark.slow
def test_a_state_dict_of_a_classifier_is_refused_with_the_next_step(run, tmp_path):
    options = {"width": 2, "depths": [1, 1, 1, 1]}
    state, output = daukit.create_model("resnet50_dau", **options).state_dict(), tmp_path / "made.safetensors"
    torch.save(state, tmp_path / "state.pth")
    with pytest.raises(CheckpointError, match=r"another configuration\? daukit\.workflows\.adapt.* takes what fits"):
        daukit.load(tmp_path / "state.pth", model="resnet50_dau", config={"task": "segmentation", **options})
    named = ("--model", "resnet50_dau", "--model-arg", "width=2", "--model-arg", "depths=1,1,1,1")
    code, _, err = run(tmp_path / "state.pth", *named, "--to", "resnet50_dau", *SEGMENTATION[2:], "-o", output)
    assert code == 0, err
    assert torch.equal(read(output).tensors["stage4.0.conv2.mu"], 2 * state["stage4.0.conv2.mu"])


def test_a_folder_whose_description_tells_of_coarser_maps_is_refused(own, tmp_path):
    path, spec = own
    write_folder(read(path), tmp_path / "folder")
    tensors = read(path).tensors
    save_file(tensors, tmp_path / "folder" / "model.safetensors")  # by another program, without a header
    with pytest.raises(CheckpointError, match=r"max_displacement 4\.0 by its config\.json, and 8\.0 in the network"):
        daukit.load(tmp_path / "folder", model=f"{spec}_dense")
    assert torch.equal(daukit.load(tmp_path / "folder", model=spec)[1].mu, tensors["1.mu"])
