"""Networks that segment and deblur are trained on folders of pictures, and go on bit for bit."""

from dataclasses import replace

import pytest
import torch
from trees import deblurring_tree, segmentation_tree

import daukit
from daukit.datasets import load_deblurring, load_segmentation
from daukit.errors import CheckpointError
from daukit.models import record_of
from daukit.tasks import Deblurring, Segmentation
from daukit.training import TrainingOptions, train
from daukit.transforms import CropPair, Cropped, ScaleAndCrop
from daukit.workflows.train_sets import open_sets

KINDS = {
    "segmentation": (
        segmentation_tree, load_segmentation, ScaleAndCrop((33, 33), (0.5, 2.0), mirror=True), Segmentation,
        ("deeplabv3plus_dau", {"num_classes": 3, "width": 4, "depths": (1, 1, 1, 1), "features": 4}),
    ),
    "deblurring": (
        deblurring_tree, load_deblurring, CropPair((16, 16)), Deblurring, ("srn_deblur_dau", {"width": 2, "blocks": 1}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_on_a_folder_goes_on_bit_for_bit(tmp_path, kind):
    tree, load, crop, task, (name, sizes) = KINDS[kind]
    folder = tree(tmp_path / "data", size=(40, 45))
    images, measured = Cropped(load(folder, "train"), crop, seed=3), load(folder, "test")

    def run(file, epochs, images=images, **more):
        torch.manual_seed(0)
        network = daukit.create_model(name, **sizes)
        record_of(network).preprocessing = images.preprocessing()
        options = TrainingOptions(epochs=epochs, batch_size=2, lr=0.001, mu_lr_factor=1.0, seed=3)
        paths = {"resume_path": tmp_path / f"{file}.resume.safetensors", "log_path": tmp_path / f"{file}.jsonl"}
        results = train(network, task(images.preprocessing()), images, measured, options, **paths, **more)
        return network, results

    whole, results = run("whole", 2)
    run("parts", 1)
    rest, same = run("parts", 2, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), rest.state_dict().values(), strict=True))
    assert [r.test_score for r in same] == [r.test_score for r in results]
    assert results[0].headline == task.headline.name and results[0].test_score > 0
    with pytest.raises(CheckpointError, match="it learnt from other images or labels"):
        run("parts", 3, Cropped(images.dataset, crop, seed=4), resume=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_mirrored_by_seed_epoch_and_index_alone(tmp_path, kind):
    """Whatever batch it is in; the loop changes nothing more."""
    tree, _, _, task, (name, sizes) = KINDS[kind]
    folder, seen = tree(tmp_path / "data", size=(40, 45)), []
    options = TrainingOptions(epochs=3, batch_size=2, lr=0.0, mu_lr_factor=1.0, seed=1, mirror=True)

    class Watched(task):
        def loss(self, model, batch, **more):
            if model.training:
                seen.append(batch)
            return super().loss(model, batch, **more)

    def sets(mirror):
        return open_sets(kind, folder, replace(options, mirror=mirror), crop=(33, 33))

    (images, measured), (plain, _) = sets(True), sets(False)
    network = daukit.create_model(name, **sizes)
    record_of(network).preprocessing = images.preprocessing()
    paths = {"resume_path": tmp_path / "x.resume.safetensors", "log_path": tmp_path / "x.jsonl"}
    train(network, Watched(images.preprocessing()), images, measured, options, **paths)
    flips = []
    for epoch, batch in enumerate(seen):
        whole, unchanged = (data.in_epoch(epoch).batch(slice(None)) for data in (images, plain))
        for i in range(2):
            (place,) = (k for k in range(2) if torch.equal(batch.images[k], whole.images[i]))
            assert torch.equal(batch.targets[place], whole.targets[i])
            flip = torch.equal(whole.images[i], unchanged.images[i].flip(-1))
            assert flip or torch.equal(whole.images[i], unchanged.images[i])
            assert torch.equal(whole.targets[i], unchanged.targets[i].flip(-1) if flip else unchanged.targets[i])
            flips.append(flip)
    assert {True, False} == set(flips)
