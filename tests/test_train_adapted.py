"""Networks that begin with the layers of others: what is taken, bit for bit, what is new, and what is refused."""

import json

import pytest
import torch
from pictures import class_folders
from trees import segmentation_tree

import daukit
from daukit.checkpoint import from_model, read
from daukit.datasets import open_dataset
from daukit.errors import CheckpointError
from daukit.models import record_of
from daukit.preprocessing import Preprocessing
from daukit.workflows.train_adapted import adapted_network

COMMAND = "train"
SIZES = {"channels": [3, 4, 5, 4, 3], "hidden": 6}
SEEN = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bgr", (227, 227))
RESNET = {"width": 2, "depths": [1, 1, 1, 1]}


def network(name, seed=1, **options):
    torch.manual_seed(seed)
    made = daukit.create_model(name, **options)
    for parameter in made.parameters():  # no layer as it is at the start
        parameter.data += 0.01 * torch.randn_like(parameter)
    record_of(made).preprocessing = SEEN
    return made.eval()


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    return segmentation_tree(tmp_path_factory.mktemp("data") / "masks", size=(40, 45))


@pytest.fixture(scope="module")
def images(masks):
    return open_dataset(masks, "train", task="segmentation")


@pytest.fixture(scope="module")
def classifier():
    return network("alexnet_dau", num_classes=5, input_size=[227, 227], **SIZES)


@pytest.fixture(scope="module")
def finer(classifier):
    return from_model(daukit.remove_pools(classifier, ["pool2", "pool5"])[0])


def same(one, other):
    return torch.equal(one.detach().flatten(), other.detach().flatten())


def test_a_rescaled_classifier_becomes_a_segmentation_network(images, classifier, finer):
    adapted = adapted_network("alexnet_dau", {"task": "segmentation", **SIZES}, images, finer)
    assert (adapted.new, adapted.left) == (("score",), ("fc8",))
    mine = adapted.network.state_dict()
    assert all(same(mine[name], tensor) for name, tensor in finer.tensors.items() if not name.startswith("fc8"))
    for name, factor in (("conv2", 1), ("conv3", 2), ("conv4", 2), ("conv5", 2)):
        assert torch.equal(mine[f"{name}.mu"], factor * classifier.state_dict()[f"{name}.mu"])
    assert not mine["score.weight"].any() and mine["score.weight"].shape[0] == 3
    fed = record_of(adapted.network).preprocessing
    assert (fed.mean, fed.std, fed.channel_order) == (SEEN.mean, SEEN.std, "bgr")
    assert fed.class_names == ("sky", "wall", "road")
    assert record_of(adapted.network).history == finer.header.history != []


def test_linear_layers_become_convolutions_that_say_at_a_position_what_they_said_before(images):
    """A plain classifier needs no rescaling: the segmentation network's dilations are those of finer maps."""
    before = network("alexnet", num_classes=5, input_size=[227, 227], **SIZES)
    adapted = adapted_network("alexnet", {"task": "segmentation", **SIZES}, images, from_model(before))
    assert (adapted.new, adapted.left) == (("score",), ("fc8",))
    after = adapted.network.eval()
    map5 = torch.rand(1, 3, 6, 6)
    spread = torch.zeros(1, 3, 21, 21)
    spread[:, :, ::4, ::4] = map5  # cells of fc6 are four apart
    told = after.fc6(spread)[0, :, 10, 10]
    torch.testing.assert_close(told, before.fc6(map5.flatten(1))[0])
    assert same(after.fc7.weight, before.fc7.weight)


def test_a_pruned_classifier_stays_pruned(images, finer):
    pruned, _ = daukit.prune(finer, threshold=0.5)
    adapted = adapted_network("alexnet_dau", {"task": "segmentation", **SIZES}, images, pruned)
    assert adapted.new == ("score",)
    layer = adapted.network.conv3
    assert layer.is_ragged and layer.weight.numel() == pruned.tensors["conv3.weight"].numel() < 4 * 5 * 2
    assert same(layer.mu, pruned.tensors["conv3.mu"])


def test_the_layers_of_a_resnet_are_those_of_a_deeplabs_backbone(images):
    before = from_model(network("resnet101", num_classes=5, **RESNET))
    adapted = adapted_network("deeplabv3plus", {"features": 2, **RESNET}, images, before)
    mine = adapted.network.state_dict()
    assert adapted.left == ("fc",)
    assert not [name for name in adapted.new if name.startswith("backbone")] and "score" in adapted.new
    shared = [name for name in before.tensors if not name.startswith("fc.")]
    assert shared and all(same(mine[f"backbone.{name}"], before.tensors[name]) for name in shared)


def test_units_that_were_learnt_on_coarser_maps_are_scaled_as_rescale_does_it(images, classifier, finer):
    made = [
        adapted_network("alexnet_dau", {"task": "segmentation", **SIZES}, images, source)
        for source in (from_model(classifier), finer)
    ]
    direct, rescaled = (one.network.state_dict() for one in made)
    assert all(same(tensor, rescaled[name]) for name, tensor in direct.items())
    assert [one.scaled for one in made] == [{"conv3": 2, "conv4": 2, "conv5": 2}, {}]
    assert [entry["operation"] for entry in record_of(made[0].network).history] == ["rescale"]


def test_units_at_whole_pixels_stay_at_whole_pixels(images):
    before = network("alexnet_dau", num_classes=5, input_size=[227, 227], **SIZES)
    before.conv3.whole_pixels = True
    before.conv3.settle()
    made = adapted_network("alexnet_dau", {"task": "segmentation", **SIZES}, images, from_model(before)).network
    assert torch.equal(made.conv3.mu, 2 * before.conv3.mu) and not made.conv3.mu.requires_grad
    assert made.conv4.mu.requires_grad and not made.conv4.whole_pixels


def test_units_with_another_blur_are_refused(images):
    wide = from_model(network("alexnet_dau", num_classes=5, sigma=0.8, task="segmentation", **SIZES))
    with pytest.raises(CheckpointError, match=r"layer 'conv2' has sigma 0\.8, and 0\.5 here"):
        adapted_network("alexnet_dau", {"task": "segmentation", **SIZES}, images, wide)


def test_a_file_of_which_nothing_fits_is_refused(images, finer):
    with pytest.raises(CheckpointError, match="none of its layers fits srn_deblur; is it the right file"):
        adapted_network("srn_deblur", {"width": 7, "blocks": 1}, images, finer)


def test_a_file_of_which_nothing_but_normalisations_fits_is_refused(images):
    units = from_model(network("shallow_dau", channels=[4, 4, 8], units=2))
    with pytest.raises(CheckpointError, match="none of its layers but normalisations fits shallow; is it the right fi"):
        adapted_network("shallow", {"channels": [4, 4, 8]}, images, units)


def test_a_file_of_the_very_same_network_is_taken_as_it_is(images):
    config = {"task": "segmentation", **SIZES}
    first = adapted_network("alexnet_dau", config, images, from_model(network("alexnet_dau", num_classes=5, **config)))
    pruned, _ = daukit.prune(from_model(first.network), threshold=0.5)
    again = adapted_network("alexnet_dau", config, images, pruned)
    assert (again.new, again.left) == ((), ())
    assert all(same(tensor, pruned.tensors[name]) for name, tensor in again.network.state_dict().items())


def test_a_recipe_that_starts_from_a_file_asks_for_it(masks, tmp_path, run):
    code, _, err = run("--recipe", "alexnet-dau-voc", "--data", masks, "-o", tmp_path / "net.safetensors")
    words = " ".join(err.replace("│", " ").split())
    assert code == 2 and "alexnet-dau-voc starts from a classifier trained by alexnet-dau-medium" in words
    assert "give it as --initial-checkpoint" in words


@pytest.mark.slow
def test_from_pictures_by_class_to_a_measured_segmentation_network(masks, tmp_path, daukit_command):
    """Section 4.3 from end to end: train a classifier, take two pools out, train on masks, go on, measure."""
    data = class_folders(tmp_path / "pictures", train=2, val=1)
    sizes = [f"--set=network.options.{key}={value}" for key, value in SIZES.items()]
    little = [*sizes, "--set=training.epochs=1", "--set=training.batch_size=2"]
    first, finer, last = (tmp_path / f"{name}.safetensors" for name in ("first", "finer", "last"))

    def call(*arguments):
        done = daukit_command(*arguments)
        assert done.returncode == 0, done.stderr
        return done

    call("train", "--recipe", "alexnet-dau-medium", "--data", data, "-o", first, *little)
    call("rescale", first, "--remove-pool", "pool2", "--remove-pool", "pool5", "-o", finer)
    command = ("train", "--recipe", "alexnet-dau-voc", "--data", masks, "--from", finer, "-o", last, *little)
    direct = tmp_path / "direct.safetensors"
    words = [{finer: first, last: direct}.get(word, word) for word in command]
    done = call(*words, "--set=data.crop=[65, 65]")
    assert "displacements and limits times 2, for maps that are as much finer: conv3, conv4, conv5" in done.stderr
    done = call(*command, "--set=data.crop=[65, 65]")
    assert all(torch.equal(tensor, read(last).tensors[name]) for name, tensor in read(direct).tensors.items())
    assert "new layers, which begin anew: score" in done.stderr and "not taken: fc8" in done.stderr
    told = json.loads(call("evaluate", last, "--data", masks, "--json").stdout)
    history = [(e["operation"], e["arguments"].get("recipe")) for e in read(last).header.history]
    assert history == [("train", "alexnet-dau-medium"), ("rescale", None), ("train", "alexnet-dau-voc")]
    entry = read(last).header.history[-1]
    assert (entry["arguments"]["new_layers"], entry["arguments"]["crop"]) == (["score"], [65, 65])
    assert entry["source"] == read(finer).digest and entry["arguments"]["test_mean_iou"] == told["mean_iou"]
    call(*command, "--set=data.crop=[65, 65]", "--set=training.epochs=2", "--resume", "--overwrite")


def test_a_trained_file_says_the_size_that_it_was_trained_at(masks, tmp_path, daukit_command):
    torch.manual_seed(0)
    start = daukit.create_model("shallow_dau", task="segmentation", channels=[2, 2, 3], in_channels=3, num_classes=4)
    record_of(start).preprocessing = SEEN  # 227 pixels, by a training before
    daukit.save(start, tmp_path / "start.safetensors")
    trained = tmp_path / "trained.safetensors"
    done = daukit_command(
        "train", "--data", masks, "--crop-size", "16,24", "--epochs", "1", "--batch-size", "2",
        "--initial-checkpoint", tmp_path / "start.safetensors", "-o", trained,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = read(trained).header.preprocessing
    assert seen.input_size == (16, 24) and (seen.mean, seen.std, seen.channel_order) == (SEEN.mean, SEEN.std, "bgr")
