"""``daukit prune`` of networks that segment and deblur: figures of the task, its loss, its batches of one picture."""

import json
import shutil

import pytest
import torch
from pixel_networks import COLOURS, KINDS, deblurring, normalized, saved, segmenting
from torch.optim.swa_utils import update_bn
from trees import bands, deblurring_tree, gopro_tree, mask, picture, segmentation_tree

import daukit
from daukit.checkpoint import build_model
from daukit.models.factory import build_architecture
from daukit.models.structure import dau_layers
from daukit.pictures import read_mask
from daukit.workflows.recalibration import Recalibrator
from daukit.workflows.scores import taylor_scores

COMMAND = "prune"


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    """The name of the figure, a network and a folder of its task."""
    network, tree, size = KINDS[request.param]
    return request.param, network(tmp_path), tree(tmp_path / "data", size=size)


def data(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_sweeps_column_is_what_evaluate_says_of_each_pruned_file(kind, tmp_path, daukit_command):
    figure, source, folder = kind
    table, pruned = tmp_path / "sweep.csv", tmp_path / "pruned.safetensors"
    words = ("prune", source, "--data", folder, "--thresholds", "0,0.6", "--random", "--csv", table)
    found = data(daukit_command(*words, "--json"))
    whole, point = found["sweep"]
    assert set(whole) == set(point) == {"threshold", "units", figure, "random"}
    once = data(daukit_command("prune", source, "--threshold", "0.6", "-o", pruned, "--data", folder, "--json"))
    assert once[f"{figure}_after"] == point[figure] == evaluated(pruned, folder, figure, daukit_command)
    assert once[f"{figure}_before"] == whole[figure] == whole["random"] != point[figure]
    assert "accuracy_before" not in once
    daukit_command("prune", source, "--threshold", "0.6", "--random", "-o", pruned, "--overwrite")
    assert point["random"] == evaluated(pruned, folder, figure, daukit_command)
    rows = [line.split(",") for line in table.read_text().splitlines()]
    assert rows[0][-2:] == [figure, "random"] and rows[-1][-2:] == [str(point[figure]), str(point["random"])]
    shown = daukit_command(*words, "--overwrite").stdout
    title, text = ("mean IoU", "{:.2%}") if figure == "mean_iou" else ("PSNR", "{:.2f} dB")
    assert title in shown and text.format(point[figure]) in shown


def evaluated(file, folder, figure, daukit_command):
    return data(daukit_command("evaluate", file, "--data", folder, "--json"))[figure]


@pytest.mark.parametrize("figure", ["mean_iou", pytest.param("psnr", marks=pytest.mark.slow)])
def test_the_sensitivity_of_a_layer_is_the_figure_of_the_file_without_its_units(figure, tmp_path, daukit_command):
    network, tree, size = KINDS[figure]
    source, folder = network(tmp_path), tree(tmp_path / "data", size=size)
    table, pruned = tmp_path / "layers.csv", tmp_path / "pruned.safetensors"
    words = ("prune", source, "--data", folder, "--thresholds", "0.6", "--sensitivity", "--csv", table, "--json")
    found = data(daukit_command(*words))
    entry = found["sensitivity"][-1]
    daukit_command("prune", source, "--threshold", f"{entry['layer']}=0.6", "-o", pruned)
    assert entry[figure] == evaluated(pruned, folder, figure, daukit_command)
    assert entry[f"{figure}_change"] == entry[figure] - found[figure] and "accuracy" not in found | entry
    assert found[figure] == evaluated(source, folder, figure, daukit_command)
    names = ["layer", "threshold", "units_before", "units_after", figure, "loss", f"{figure}_change", "loss_change"]
    assert table.read_text().splitlines()[0] == ",".join(names)
    title = "change (points)" if figure == "mean_iou" else "change (dB)"
    assert title in daukit_command(*words[:-3]).stdout


def test_taylor_scores_of_a_network_that_segments_are_those_of_each_picture_alone(tmp_path):
    source, folder = segmenting(tmp_path, double=True), segmentation_tree(tmp_path / "data", size=(35, 41))
    picture(folder / "train/images/c.png", (33, 38), seed=5)  # of another size
    mask(folder / "train/masks/c.png", bands((33, 38)))
    network = daukit.load(source)
    layers = dau_layers(network)
    weights = [layer.weight for layer in layers.values()]
    expected = [torch.zeros_like(weight) for weight in weights]
    for name in "abc":
        labels = read_mask(folder / "train/masks" / f"{name}.png").long()
        scores = network(normalized(folder / "train/images" / f"{name}.png").double())[0]
        logs = scores.log_softmax(0)
        places = [(y, x) for y, x in (labels != 255).nonzero().tolist()]
        loss = -sum(logs[labels[y, x], y, x] for y, x in places) / len(places)
        for total, weight, grad in zip(expected, weights, torch.autograd.grad(loss, weights), strict=True):
            total += (weight * grad).detach().abs()
    found = taylor_scores(daukit.read(source), folder)
    assert list(found) == list(layers)
    for name, total in zip(layers, expected, strict=True):
        assert found[name].shape == total.shape and total.max() > 0
        # Sums of a few thousand float64 numbers in another order.
        assert torch.allclose(found[name], total, rtol=1e-9, atol=1e-9 * float(total.max()))


def test_recalibrated_statistics_are_the_mean_over_pictures_of_those_of_each(tmp_path):
    source = saved(tmp_path, "deeplabv3plus_dau", width=4, depths=[1, 1, 1, 1], features=4, num_classes=3, double=True)
    folder = segmentation_tree(tmp_path / "data", size=(35, 41))
    picture(folder / "train/images/b.png", (40, 33), seed=5)
    mask(folder / "train/masks/b.png", bands((40, 33)))
    recalibrate = Recalibrator(folder)
    after = build_model(recalibrate(daukit.read(source)))
    pictures = [normalized(folder / "train/images" / name).double() for name in ("a.png", "b.png")]
    network = daukit.load(source)
    update_bn(pictures, network)
    assert recalibrate.images == 2
    for (name, found), expected in zip(after.state_dict().items(), network.state_dict().values(), strict=True):
        assert torch.equal(found, expected), name
    first, norm = first_normalized(after, pictures[0])
    maps = [first(image) for image in pictures]
    means = [each.mean((0, 2, 3)) for each in maps]
    variances = [
        (each - mean[:, None, None]).square().sum((0, 2, 3)) / (each[0, 0].numel() - 1)
        for each, mean in zip(maps, means, strict=True)
    ]
    assert torch.allclose(norm.running_mean, sum(means) / 2, rtol=1e-12)
    assert torch.allclose(norm.running_var, sum(variances) / 2, rtol=1e-12)


def first_normalized(network, image):
    """What comes before the first batch norm that is called, and that batch norm."""
    called = []
    hooks = [
        module.register_forward_hook(lambda module, args, output: called.append((module, args[0])))
        for module in network.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    network(image)
    for hook in hooks:
        hook.remove()
    norm = called[0][0]

    def before(image):
        called.clear()
        hook = norm.register_forward_pre_hook(lambda module, args: called.append(args[0].detach()))
        network(image)
        hook.remove()
        return called[0]

    return before, norm


def test_rounds_train_on_crops_and_measure_in_decibels(tmp_path, daukit_command):
    source, folder, output = deblurring(tmp_path), gopro_tree(tmp_path / "data", (20, 26)), tmp_path / "out.safetensors"
    words = ("prune", source, "--remove", "0.5", "--iterate", "1", "--epochs-between", "1", "--data", folder)
    words += (
        "--train-arg",
        "lr=0.001",
        "--train-arg",
        "mu_lr_factor=1",
        "--layout",
        "gopro-gamma",
        "-o",
        output,
        "--json",
    )
    result = data(daukit_command(*words, "--train-arg", "crop=16,12"))
    assert result["accuracy_before"] is result["accuracy_after"] is result["rounds"][0]["accuracy"] is None
    (only,) = result["rounds"]
    for key, file in (("psnr_pruned", "out.round01.pruned.safetensors"), ("psnr", "out.safetensors")):
        evaluation = daukit_command("evaluate", tmp_path / file, "--data", folder, "--layout", "gopro-gamma", "--json")
        assert only[key] == data(evaluation)["psnr"]
    assert result["psnr_after"] == only["psnr"] and result["units_after"] == -(-result["units_before"] // 2)
    entry = daukit.read(tmp_path / "out.round01.pruned.safetensors").header.history[-1]
    assert entry["arguments"]["crop"] == [16, 12]
    shown = daukit_command(*words[:-1], "--train-arg", "crop=16,12", "--dry-run", "--overwrite").stdout
    assert "multiply-adds" in shown and "accuracy" not in shown
    done = daukit_command(*words, "--train-arg", "crop=12,12", "--resume", "--overwrite")
    assert done.returncode == 1 and "belongs to another run (crop: [16, 12] there, [12, 12] here)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--thresholds", "0.1", "--layout", "idx"),
            "layout idx is for classification, and the network for deblurring",
        ),
        (("ITERATE", "--train-arg", "scale=0.5,2"), "a network for deblurring takes no scale; drop it"),
        (("ITERATE", "--train-arg", "crop=8"), "crop must be a list of a height and a width of at least 1, got 8"),
    ],
)
def test_what_the_task_does_not_know_is_a_usage_error(tmp_path, daukit_command, arguments, said):
    rounds = ("--remove", "0.5", "--iterate", "1", "--epochs-between", "1", "-o", tmp_path / "out.safetensors")
    words = [word for each in arguments for word in (rounds if each == "ITERATE" else (each,))]
    done = daukit_command("prune", deblurring(tmp_path), "--data", deblurring_tree(tmp_path / "data"), *words)
    assert done.returncode == 2 and said in " ".join(done.stderr.replace("│", " ").split())


def test_a_folder_of_test_images_alone_is_told_how_to_be_read(tmp_path, daukit_command):
    folder = deblurring_tree(tmp_path / "data", size=(20, 26))
    shutil.rmtree(folder / "train")
    words = ("prune", deblurring(tmp_path), "--threshold", "0.1", "--score", "taylor", "--data", folder, "--dry-run")
    done = daukit_command(*words)
    said = "there is no folder train in it; it has test; --split test takes its test images"
    assert done.returncode == 1 and said in done.stderr
    assert data(daukit_command(*words, "--split", "test", "--json"))["score"] == "taylor"


def test_a_layout_without_a_folder_is_a_usage_error(tmp_path, daukit_command):
    done = daukit_command("prune", deblurring(tmp_path), "--threshold", "0.1", "--dry-run", "--layout", "gopro")
    assert done.returncode == 2 and "no folder is read without --data" in " ".join(done.stderr.split())


OWN = """
from torch import nn
from daukit import DAUConv2d

def make():
    layer = DAUConv2d(3, 4, 2, max_displacement=3.0)
    return nn.Sequential(layer, nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))
"""


def test_a_network_of_ones_own_is_pruned_and_snapped_for_the_task_that_is_named(tmp_path, monkeypatch, daukit_command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    torch.manual_seed(0)
    daukit.save(build_architecture({"factory": "own.py:make", "config": {}}), "own.safetensors", preprocessing=COLOURS)
    folder = segmentation_tree(tmp_path / "data", size=(20, 26))
    own = ("own.safetensors", "--model", "own.py:make", "--data", folder, "--task", "segmentation")
    words = ("--threshold", "0.5", "--score", "taylor", "--recalibrate", folder, "-o", "pruned.safetensors", "--json")
    found = data(daukit_command("prune", *own, *words))
    evaluated = data(daukit_command("evaluate", "pruned.safetensors", *own[1:], "--json"))
    assert found["mean_iou_after"] == evaluated["mean_iou"] and found["recalibrated"] == 2
    swept = data(daukit_command("prune", *own, "--thresholds", "0,0.5", "--sensitivity", "--json"))
    assert swept["mean_iou"] == found["mean_iou_before"]
    assert data(daukit_command("snap", *own, "--dry-run", "--json"))["mean_iou_before"] == found["mean_iou_before"]


def test_a_network_of_daukits_keeps_its_task(tmp_path, daukit_command):
    source, folder = deblurring(tmp_path), deblurring_tree(tmp_path / "data", size=(20, 26))
    for command in (("prune", source, "--threshold", "0.1"), ("snap", source)):
        done = daukit_command(*command, "--dry-run", "--data", folder, "--task", "segmentation")
        assert done.returncode == 2 and "says itself that its network is for deblurring; drop --task" in done.stderr
