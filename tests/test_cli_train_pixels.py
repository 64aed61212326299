"""``daukit train`` of networks that segment and deblur, from a folder to a table."""

import json

import pytest
from trees import deblurring_tree, segmentation_tree

COMMAND = "train"
SIZES = {
    "deeplabv3plus_dau": ("--model-arg", "width=4", "--model-arg", "depths=1,1,1,1", "--model-arg", "features=4"),
    "srn_deblur": ("--model-arg", "width=2", "--model-arg", "blocks=1"),
}
KINDS = {
    # With these rates and the schedule of steps a longer run may go on.
    "mean_iou": (
        "deeplabv3plus_dau",
        segmentation_tree,
        ("--crop-size", "33,33", "--scale", "0.5,2", "--mirror", "--mu-lr", "0.01"),
    ),
    "psnr": ("srn_deblur", deblurring_tree, ("--crop-size", "16,12")),
}


@pytest.mark.parametrize("figure", [pytest.param("mean_iou", marks=pytest.mark.slow), "psnr"])
def test_a_training_goes_on_and_its_file_is_measured_as_it_says(tmp_path, run, daukit_command, figure):
    model, tree, changes = KINDS[figure]
    folder, output = tree(tmp_path / "data", size=(40, 45)), tmp_path / "net.safetensors"
    common = ("--data", folder, "--model", model, *SIZES[model], "--batch-size", "2", "--lr", "0.001", "-o", output)
    common = (*common, "--schedule", "step")
    code, _, err = run(*common, *changes, "--epochs", "1", "--quiet")
    assert code == 0, err
    code, out, err = run(*common, *changes, "--epochs", "2", "--resume", "--overwrite", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["accuracy"] is None and (result["images"], result["epochs"]) == (2, 2)
    last = json.loads((tmp_path / "net.jsonl").read_text().splitlines()[-1])
    measured = json.loads(daukit_command("evaluate", output, "--data", folder, "--json").stdout)
    assert result[figure] == last[f"test_{figure}"] == measured[figure]
    assert result["loss"] == measured["loss"]


@pytest.mark.parametrize(
    ("model", "arguments", "said"),
    [
        ("shallow", ("--crop-size", "8,8"), "a network for classification takes no crop; drop it"),
        ("srn_deblur", ("--crop-size", "8,8", "--scale", "1,2"), "a network for deblurring takes no scale; drop it"),
        ("srn_deblur", ("--shift", "2"), "a network for deblurring takes no shift; drop it"),
        ("deeplabv3plus", ("--scale", "2,1"), "the larger one last"),
        ("deeplabv3plus", ("--crop-size", "8,0"), "'8,0' is not a size like 128 or 96,128"),
        ("deeplabv3plus", ("--crop-size", "8,8,8"), "'8,8,8' is not a size like 128 or 96,128"),
        ("deeplabv3plus", ("--scale", "2"), "'2' is not two numbers with a comma between"),
        # One number stands for both: the crop is refused for what it is of.
        ("shallow", ("--crop-size", "8"), "a network for classification takes no crop; drop it"),
        ("deeplabv3plus", ("--layout", "idx"), "layout idx is for classification, and the network for segmentation"),
    ],
)
def test_what_a_network_does_not_learn_from_is_a_usage_error(tmp_path, run, model, arguments, said):
    code, _, err = run("--data", tmp_path, "--model", model, *arguments, "-o", tmp_path / "net.safetensors")
    assert code == 2 and said in " ".join(err.replace("│", " ").split())


def test_pictures_to_deblur_have_no_classes(tmp_path, run):
    folder = deblurring_tree(tmp_path / "data")
    (tmp_path / "names.txt").write_text("a\n")
    words = ("--model", "srn_deblur", "--classes", tmp_path / "names.txt", "-o", tmp_path / "net.safetensors")
    code, _, err = run("--data", folder, *words)
    assert code == 1 and "pictures to deblur have no classes; drop --classes" in err and err.count("\n") == 1


def test_pictures_smaller_than_the_crop_are_refused_before_the_first_step(tmp_path, run):
    common = ("--data", deblurring_tree(tmp_path / "data", size=(40, 45)), "-o", tmp_path / "net.safetensors")
    code, _, err = run(*common, "--model", "srn_deblur", *SIZES["srn_deblur"])
    assert (
        code == 1
        and "train/blurred/a.png: the image has 40x45 pixels, and crops have 256x256; take smaller ones" in err
    )
