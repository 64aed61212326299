"""The loops know no task: a network that deblurs trains and is measured, on images read when their turn comes."""

import json
import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

import daukit
from daukit.datasets import Batch, DatasetInfo
from daukit.errors import CheckpointError, DataError
from daukit.evaluation import evaluate
from daukit.models import record_of
from daukit.preprocessing import Preprocessing
from daukit.tasks import Classification, Headline
from daukit.training import RunFiles, TrainingOptions, keep_checkpoints, read_state, train

EXPECTED = Preprocessing((0.0,), (1.0,), "gray", (8, 8))


class Blurred:
    """Noise and its blur, made when it is asked for."""

    info = DatasetInfo(0)

    def __init__(self, number, seed=0):
        self.number, self.seed, self.read = number, seed, []

    def __len__(self):
        return self.number

    def batch(self, indices):
        numbers = torch.arange(self.number)[indices].tolist()
        self.read.append(numbers)
        draws = [torch.Generator().manual_seed(100 * self.seed + i) for i in numbers]
        sharp = torch.stack([torch.rand(1, 8, 8, generator=draw) for draw in draws])
        return Batch((255 * F.avg_pool2d(sharp, 3, 1, 1)).byte(), (255 * sharp).byte())

    def preprocessing(self):
        return EXPECTED

    def digest(self):
        return f"{self.number} images of seed {self.seed}"


@dataclass(frozen=True)
class Figures:
    loss: float
    psnr: float


class Errors:
    def __init__(self):
        self.images, self.squares, self.decibels, self.largest = 0, 0.0, 0.0, 0

    def add(self, outputs, targets):
        errors = (outputs - targets / 255).double().square().mean((1, 2, 3))
        self.images += len(errors)
        self.squares += errors.sum().item()
        self.decibels += (-10 * errors.log10()).sum().item()
        self.largest = max(self.largest, len(errors))

    def merge(self, other):
        raise NotImplementedError

    def result(self):
        return Figures(self.squares / self.images, self.decibels / self.images)


class Deblurring:
    """The loss needs the scales, which the network does not predict."""

    headline: ClassVar[Headline] = Headline("psnr", math.inf)

    def loss(self, model, batch, *, reduction="mean"):
        scales = model.forward_scales(EXPECTED.normalize(batch.images))
        sharp = EXPECTED.normalize(batch.targets)
        return sum((scale - F.interpolate(sharp, scale.shape[-2:])).square().mean() for scale in scales)

    def guessing_loss(self, info):
        return 1.0

    def predict(self, model, images):
        return model(EXPECTED.normalize(images))

    def metrics(self, info):
        return Errors()

    def check_fits(self, model, dataset, device, *, network="the network", images="the images"):
        if dataset.batch(slice(1)).images.shape[1] != 1:
            raise DataError(f"{network} takes gray images")


def new_network():
    torch.manual_seed(2)
    network = daukit.create_model("srn_deblur_dau", in_channels=1, width=2, blocks=1, scales=2, units=1)
    record_of(network).preprocessing = EXPECTED
    return network


def run(network, place, *, epochs, task=None, resume=False):
    options, files = TrainingOptions(epochs=epochs, batch_size=4, lr=0.02, mu_lr_factor=1.0), RunFiles(place)
    return train(
        network, task or Deblurring(), Blurred(10), Blurred(6, seed=1), options, resume_path=files.state,
        log_path=files.log, resume=resume, on_epoch=keep_checkpoints(files, options, best=True),
    )  # fmt: skip


def test_it_trains_and_its_files_name_its_score(tmp_path):
    results = run(new_network(), tmp_path / "m.safetensors", epochs=3)
    assert results[-1].train_loss < results[0].train_loss
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    keys = ["epoch", "lr", "train_loss", "test_loss", "test_psnr", "seconds", "moves"]
    assert [list(line) for line in lines] == 3 * [keys]
    assert [line["test_psnr"] for line in lines] == [result.test_score for result in results]
    assert all(result.test_score > 1 for result in results)  # decibels
    assert read_state(tmp_path / "m.resume.safetensors").results == results
    (entry,) = record_of(daukit.load(tmp_path / "m.best.safetensors")).history
    assert entry["arguments"]["chosen_by"] == "test psnr"
    assert entry["arguments"]["test_psnr"] == max(result.test_score for result in results)


def test_it_goes_on_bit_for_bit_and_as_no_other_task(tmp_path):
    whole, rest = new_network(), new_network()
    run(whole, tmp_path / "whole.safetensors", epochs=2)
    run(new_network(), tmp_path / "m.safetensors", epochs=1)
    with pytest.raises(CheckpointError, match="has a log that is none"):
        run(rest, tmp_path / "m.safetensors", epochs=2, resume=True, task=_Renamed())
    run(rest, tmp_path / "m.safetensors", epochs=2, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), rest.state_dict().values(), strict=True))


class _Renamed(Deblurring):
    headline = Classification.headline


def test_an_evaluation_reads_each_image_once_and_keeps_no_more_than_a_batch():
    images, metrics = Blurred(10), Errors()
    task = Deblurring()
    task.metrics = lambda info: metrics
    batches, whole = evaluate(new_network(), task, images, batch_size=4), evaluate(new_network(), Deblurring(), images)
    assert images.read[:4] == [[0], [0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] and metrics.largest == 4
    assert math.isclose(batches.psnr, whole.psnr, rel_tol=1e-6) and math.isclose(batches.loss, whole.loss, rel_tol=1e-6)
