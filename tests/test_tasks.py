"""Tasks: their loss is torch's, and their figures do not depend on how images are cut into batches."""

import math
import pickle

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_accuracy

from daukit.datasets import Batch, DatasetInfo
from daukit.errors import DataError
from daukit.preprocessing import Preprocessing
from daukit.tasks import Classification, task_of
from daukit.tasks.classification import ClassificationMetrics, places_of
from daukit.tasks.sums import CascadeSum

TASK = Classification(Preprocessing((0.25,), (0.5,), "gray", (2, 2)))


def scores_and_labels(number, classes=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(number, classes, generator=generator)
    return scores, torch.randint(classes - 1, (number,), generator=generator)  # none is of the last class


def counted(scores, labels, size):
    metrics = ClassificationMetrics(scores.shape[1])
    for part in zip(scores.split(size), labels.split(size), strict=True):
        metrics.add(*part)
    return metrics


@pytest.mark.parametrize("number", [1, 16, 17, 603, 4097])
@pytest.mark.parametrize("size", [1, 16, 250, 5000])
def test_figures_are_those_of_all_images_at_once_bit_for_bit(number, size):
    scores, labels = scores_and_labels(number)
    result = counted(scores, labels, size).result()
    assert result.loss == float(F.cross_entropy(scores.double(), labels))
    correct = scores.argmax(1) == labels
    assert (result.accuracy, result.images) == (float(correct.double().mean()), number)
    of = [correct[labels == label] for label in range(7)]
    assert result.class_accuracy == tuple(float(c.double().mean()) if len(c) else None for c in of)
    assert result.class_accuracy[6] is None


def test_metrics_of_parts_add_up_also_when_they_come_from_other_processes():
    scores, labels = scores_and_labels(1000)
    whole, first, second = (
        counted(scores[part], labels[part], 90) for part in (slice(None), slice(0, 300), slice(300, None))
    )
    first.merge(pickle.loads(pickle.dumps(second)))
    merged, result = first.result(), whole.result()
    assert math.isclose(merged.loss, result.loss, rel_tol=1e-15)
    assert (merged.accuracy, merged.images, merged.class_accuracy) == (
        result.accuracy, result.images, result.class_accuracy,
    )  # fmt: skip


def test_a_sum_is_within_its_rounding_errors_of_the_exact_one():
    values = (torch.rand(70_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.2).tolist()
    total = CascadeSum()
    for start in range(0, len(values), 999):
        total.add(values[start : start + 999])
    # An addend goes through at most 16 additions on each of five levels, and 8 in the end.
    assert abs(total.total - math.fsum(values)) <= 88 * 2**-53 * math.fsum(map(abs, values))


def test_the_loss_is_the_cross_entropy_of_what_the_network_says_of_normalized_images():
    batch = Batch(torch.tensor([[0, 255, 51, 102]], dtype=torch.uint8).reshape(1, 1, 2, 2), torch.tensor([2]))
    scores = torch.tensor([[-0.5, 1.5, -0.1, 0.3]])  # (x / 255 - 0.25) / 0.5
    network = torch.nn.Flatten()
    assert torch.allclose(TASK.predict(network, batch.images), scores)
    expected = math.log(sum(math.exp(x) for x in scores[0].tolist())) + 0.1
    assert math.isclose(TASK.loss(network, batch).item(), expected, rel_tol=1e-6)
    twice = Batch(batch.images.repeat(2, 1, 1, 1), batch.targets.repeat(2))
    assert math.isclose(TASK.loss(network, twice, reduction="sum").item(), 2 * expected, rel_tol=1e-6)


def test_guessing_costs_the_logarithm_of_the_classes_and_never_less_than_one():
    assert [TASK.guessing_loss(DatasetInfo(n)) for n in (1, 2, 100)] == [1, 1, math.log(100)]


def test_the_task_of_a_network_needs_its_preprocessing():
    with pytest.raises(DataError, match=r"^net\.pt: carries no preprocessing"):
        task_of(torch.nn.Linear(2, 2), "net.pt")


def few_values(seed, number=500, classes=9):
    """Scores with many ties."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(4, (number, classes), generator=generator).float()
    return scores, torch.randint(classes, (number,), generator=generator)


@pytest.mark.parametrize("classes", [6, 7, 100])
def test_top_5_is_that_of_torchmetrics(classes):
    generator = torch.Generator().manual_seed(classes)
    scores = torch.randn(300, classes, generator=generator)
    labels = torch.randint(classes, (300,), generator=generator)
    result = counted(scores, labels, 64).result()
    for figure, top in ((result.accuracy, 1), (result.top_5, 5)):
        theirs = multiclass_accuracy(scores, labels, num_classes=classes, average="micro", top_k=top)
        assert math.isclose(figure, theirs, rel_tol=1e-6)


def test_of_equal_scores_the_class_of_the_lower_number_comes_first():
    scores, labels = few_values(0)
    order = [sorted(range(9), key=lambda c: (-row[c], c)) for row in scores.tolist()]
    places = [row.index(label) for row, label in zip(order, labels.tolist(), strict=True)]
    assert places_of(labels, scores).tolist() == places
    assert counted(scores, labels, 64).result().top_5 == sum(place < 5 for place in places) / 500


def test_a_label_whose_score_is_no_number_is_never_among_the_five():
    scores = torch.zeros(1, 9)
    scores[0, 0] = math.nan
    assert places_of(torch.tensor([0]), scores).item() == 9
    assert places_of(torch.tensor([1]), scores).item() == 1


def test_top_5_is_left_out_where_it_says_nothing():
    assert counted(*few_values(1, classes=5), 64).result().top_5 is None
    first, second = counted(*few_values(1), 64), counted(*few_values(2), 64)
    expected = (first.result().top_5 + second.result().top_5) / 2
    first.merge(second)
    assert math.isclose(first.result().top_5, expected, rel_tol=1e-15)
