"""Segmentation: the loss and the figures of pixels that have a class, beside torchmetrics and by hand."""

import math
import pickle

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_jaccard_index,
    multiclass_recall,
)  # fmt: skip

import daukit
from daukit.datasets import Batch, DatasetInfo
from daukit.errors import DataError
from daukit.preprocessing import Preprocessing
from daukit.tasks import Segmentation

PLAIN = Preprocessing((0.0,), (1.0,), "gray", (9, 9))
TASK = Segmentation(PLAIN)


def scores_and_targets(number=6, classes=5, size=(7, 9), seed=0, ignored=255):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(number, classes, *size, generator=generator)
    targets = torch.randint(classes, (number, *size), generator=generator).to(torch.uint8)
    targets[torch.rand(targets.shape, generator=generator) < 0.3] = ignored
    return scores, targets


def counted(scores, targets, size=4, **info):
    metrics = TASK.metrics(DatasetInfo(scores.shape[1], **info))
    for part in zip(scores.split(size), targets.split(size), strict=True):
        metrics.add(*part)
    return metrics


def one_hot(labels, classes):
    """Scores that say ``labels``."""
    return F.one_hot(torch.as_tensor(labels), classes).movedim(-1, 1).float()


@pytest.mark.parametrize("ignored", [255, 0])
def test_figures_are_those_of_torchmetrics(ignored):
    scores, targets = scores_and_targets(ignored=ignored)
    result = counted(scores, targets, ignore_index=ignored).result()
    given = {"preds": scores, "target": targets.long(), "num_classes": 5, "ignore_index": ignored}
    iou = multiclass_jaccard_index(**given, average="none").double()
    known = [i for i in range(5) if i != ignored]
    assert torch.allclose(torch.tensor([result.class_iou[i] for i in known]).double(), iou[known], atol=1e-6)
    assert math.isclose(result.mean_iou, multiclass_jaccard_index(**given, average="macro"), rel_tol=1e-6)
    assert math.isclose(result.pixel_accuracy, multiclass_accuracy(**given, average="micro"), rel_tol=1e-6)
    recall = multiclass_recall(**given, average="none")
    assert torch.allclose(torch.tensor([result.class_accuracy[i] for i in known]), recall[known], atol=1e-6)
    assert math.isclose(result.mean_accuracy, recall[known].mean(), rel_tol=1e-6)
    assert math.isclose(
        result.loss, F.cross_entropy(scores.double(), targets.long(), ignore_index=ignored), rel_tol=1e-6
    )
    if ignored == 0:
        assert result.class_iou[0] is result.class_accuracy[0] is None


def test_figures_by_hand():
    """Of six pixels one has no class; class 2 never occurs, class 3 is only said."""
    targets = torch.tensor([[[0, 0, 0], [1, 1, 255]]], dtype=torch.uint8)
    result = counted(one_hot([[[0, 0, 1], [1, 3, 0]]], 4), targets).result()
    assert result.class_iou == (2 / 3, 1 / 3, None, 0.0)
    assert result.mean_iou == (2 / 3 + 1 / 3) / 3
    assert result.class_accuracy == (2 / 3, 1 / 2, None, None)
    assert (result.mean_accuracy, result.pixel_accuracy, result.images) == ((2 / 3 + 1 / 2) / 2, 3 / 5, 1)


def test_a_class_that_the_images_do_not_know_is_a_wrong_answer():
    metrics = TASK.metrics(DatasetInfo(2))
    metrics.add(one_hot([[[0, 4], [1, 4]]], 5), torch.tensor([[[0, 0], [1, 1]]], dtype=torch.uint8))
    assert metrics.result().class_iou == (1 / 2, 1 / 2)


def test_metrics_of_parts_add_up_to_those_of_all():
    scores, targets = scores_and_targets()
    whole, first, second = (counted(scores[part], targets[part]) for part in (slice(6), slice(2), slice(2, 6)))
    first.merge(pickle.loads(pickle.dumps(second)))
    merged, result = first.result(), whole.result()
    assert math.isclose(merged.loss, result.loss, rel_tol=1e-14)
    assert (merged.class_iou, merged.class_accuracy, merged.images) == (
        result.class_iou, result.class_accuracy, result.images,
    )  # fmt: skip


def test_where_no_pixel_has_a_class_there_is_no_loss_and_no_figure():
    network = torch.nn.Conv2d(1, 3, 1)
    nowhere = torch.full((2, 4, 4), 255, dtype=torch.uint8)
    loss = TASK.loss(network, Batch(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), nowhere))
    loss.backward()
    assert loss.item() == 0 and torch.equal(network.weight.grad, torch.zeros(3, 1, 1, 1))
    with pytest.raises(DataError, match="no pixel of the images has a class"):
        counted(torch.zeros(2, 3, 4, 4), nowhere).result()


def test_the_loss_counts_each_pixel_of_a_class_alike_and_its_sum_the_images():
    _, targets = scores_and_targets(classes=3, size=(9, 9))
    images = torch.randint(256, (6, 1, 9, 9), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    network = torch.nn.Conv2d(1, 3, 3, padding=1)
    targets[targets != 255] %= 3
    rows = network(images / 255).movedim(1, -1)[targets != 255]  # (pixels, classes)
    expected = F.cross_entropy(rows.double(), targets[targets != 255].long())
    batch = Batch(images, targets)
    assert math.isclose(TASK.loss(network, batch).item(), expected.item(), rel_tol=1e-6)
    assert math.isclose(TASK.loss(network, batch, reduction="sum").item(), 6 * expected.item(), rel_tol=1e-6)


def test_scores_at_every_eighth_pixel_are_resized_to_the_image():
    """Corners meet corners: between positions 8 pixels apart scores are straight lines."""
    network = torch.nn.Conv2d(1, 2, 1, stride=8)
    image = (2 * torch.arange(17)[:, None] + torch.arange(17)).to(torch.uint8)[None, None]
    expected = network.weight[:, :, 0] * image[0] / 255 + network.bias[:, None, None]
    assert torch.allclose(TASK.predict(network, image)[0], expected, atol=1e-6)


class Images:
    def __init__(self, channels=3, classes=3, size=(9, 9)):
        self.info = DatasetInfo(classes)
        self._batch = Batch(
            torch.zeros(1, channels, *size, dtype=torch.uint8), torch.zeros(1, *size, dtype=torch.uint8)
        )

    def batch(self, _):
        return self._batch


def test_a_network_that_does_not_fit_is_refused_by_what_is_wrong():
    colours = Segmentation(Preprocessing((0.0,) * 3, (1.0,) * 3, "rgb", (9, 9)))
    network = daukit.create_model("alexnet", task="segmentation", num_classes=2, channels=[2] * 5, hidden=2).eval()
    colours.check_fits(network, Images(classes=2, size=(33, 40)), "cpu")
    with pytest.raises(DataError, match="the network has 2 classes, the images have 3"):
        colours.check_fits(network, Images(size=(33, 40)), "cpu")
    with pytest.raises(DataError, match=r"the network takes 3 channels, the images have 1 channel$"):
        colours.check_fits(network, Images(channels=1), "cpu")
    with pytest.raises(DataError, match=r"segmentation needs scores \(N, classes, height, width\), got \(1, 243\)"):
        colours.check_fits(torch.nn.Flatten(), Images(), "cpu")
