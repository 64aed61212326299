"""Training from Python as the command trains: what is prepared, written and refused."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch
from idx import toy_folder
from trees import segmentation_tree

import daukit
from daukit.errors import CheckpointError, OutputError
from daukit.training import Recipe, TrainingOptions, read_recipe
from daukit.workflows.train import prepare_training, run_training
from daukit.workflows.train_runs import Keeping

OPTIONS = TrainingOptions(epochs=2, batch_size=6, mu_lr=0.01)
CONFIG = {"channels": [2, 2, 2], "units": 1}
RECIPE = Recipe(OPTIONS, config=CONFIG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_folder(tmp_path_factory.mktemp("data") / "toy", 12, 8)


def test_it_trains_what_the_command_trains(folder, tmp_path, daukit_command):
    recipe = read_recipe("shallow-dau").with_values({"training.epochs": 2, "training.batch_size": 6})
    recipe = replace(recipe, config={**recipe.config, **CONFIG}, name=None)
    run = prepare_training(folder, tmp_path / "a.safetensors", recipe, keeping=Keeping(best=True))
    shares, epochs = [], []
    result = run_training(run, on_progress=lambda share, _: shares.append(share), on_epoch=epochs.append)
    assert shares == [0.25, 0.5, 0.75, 1] and [len(results) for results in epochs] == [1, 2]
    assert (result.output, result.epochs, result.accuracy) == (run.files.output, 2, epochs[-1][-1].test_score)
    arguments = ("--channels", "2,2,2", "--units", 1, "--epochs", 2, "--batch-size", 6, "--best")
    assert daukit_command("train", "--data", folder, "-o", tmp_path / "b.safetensors", *arguments).returncode == 0
    for ending in ("", ".best", ".resume"):
        one, other = (safetensors.torch.load_file(tmp_path / f"{name}{ending}.safetensors") for name in "ab")
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_announcement_has_the_sizes_and_no_results(folder, tmp_path):
    announced = prepare_training(folder, tmp_path / "a.safetensors", RECIPE).announcement
    assert (announced.images, announced.steps, announced.epochs) == (12, 2, 2)
    assert announced.output is announced.log is announced.accuracy is None and not list(tmp_path.iterdir())


def test_what_cannot_be_trained_is_refused_in_words_of_python(folder, tmp_path):
    output = tmp_path / "a.safetensors"
    run_training(prepare_training(folder, output, RECIPE))
    start = daukit.read(output)
    for error, words, config, kept in (
        (OutputError, "pass resume=True to go on with it, overwrite=True to begin anew", {}, {}),
        (CheckpointError, "raise epochs above 2 and pass overwrite=True", {}, {"resume": True}),
        (TypeError, "unexpected keyword argument 'color'", {"color": 1}, {"overwrite": True}),
        (ValueError, "no epoch of 2 is a multiple of 3", {}, {"save_every": 3}),
    ):
        with pytest.raises(error, match=words):
            prepare_training(folder, output, Recipe(OPTIONS, config=config), keeping=Keeping(**kept))
    other = tmp_path / "b.safetensors"
    with pytest.raises(ValueError, match="is as it is; drop units"):
        prepare_training(folder, other, Recipe(OPTIONS, config={"units": 2}), initial_checkpoint=start)
    with pytest.raises(ValueError, match="is the name of a training's state"):
        prepare_training(folder, tmp_path / "a.resume.safetensors", Recipe(OPTIONS))
    with pytest.raises(OutputError, match="is read here"):
        prepare_training(
            folder, output, Recipe(OPTIONS), initial_checkpoint=start, keeping=Keeping(overwrite=True)
        )  # fmt: skip


def test_a_new_network_of_one_channel_reads_pictures_in_grey(tmp_path):
    small = {"channels": [2, 2], "task": "segmentation", "units": 1}
    tree = segmentation_tree(tmp_path / "data")
    for channels, order, width in ((1, "gray", 1), (None, "rgb", 3)):
        config = small if channels is None else {**small, "in_channels": channels}
        recipe = Recipe(TrainingOptions(epochs=1, batch_size=2), "shallow_dau", config, crop=(8, 8))
        run = prepare_training(tree, tmp_path / f"{order}.safetensors", recipe)
        assert run.task.preprocessing.channel_order == order
        assert run.train_set.batch([0]).images.shape == (1, width, 8, 8)
        assert run.network.conv1.in_channels == width
