"""Gridding: energies beside discrete Fourier sums window by window, closed forms, and what evaluate prints of them."""

import csv
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from trees import segmentation_tree

import daukit
from daukit.errors import DataError
from daukit.preprocessing import Preprocessing
from daukit.tasks import Segmentation
from daukit.tasks.gridding import GridEnergy, white_noise_share

COMMAND = "evaluate"
COLOURS = Preprocessing((0.5, 0.4, 0.3), (0.25, 0.3, 0.35), "rgb", (33, 33))


def measured(maps, period):
    grid = GridEnergy(period)
    grid.add(torch.as_tensor(maps))
    return grid.result()


def two_classes(map):
    """Scores of one image: the map, and its opposite."""
    map = torch.as_tensor(map, dtype=torch.float64)
    return torch.stack([map, -map])[None]


def fourier_energies(map, period):
    """Energy at the grid's frequencies and in all, by the definition in docs/math.md."""
    weights = 2 * period - np.abs(np.arange(1 - 2 * period, 2 * period))
    window = np.outer(weights, weights) / (2 * period) ** 4
    side = 4 * period - 1
    steps = np.arange(side)
    places = list(itertools.product(*(range(n - side + 1) for n in map.shape)))
    parts = [map[y : y + side, x : x + side] for y, x in places]
    mean = np.mean([(window * part).sum() for part in parts])
    grid = sum(
        abs((window * part * np.exp(-2j * np.pi * (ky * steps[:, None] + kx * steps) / period)).sum()) ** 2
        for part in parts
        for ky, kx in itertools.product(range(period), repeat=2)
        if (ky, kx) != (0, 0)
    )
    return grid, sum((window * (part - mean) ** 2).sum() for part in parts)


@pytest.mark.parametrize(("period", "size"), [(2, (9, 11)), (3, (12, 11))])
def test_the_share_is_that_of_the_fourier_sums_of_all_windows_and_maps(period, size):
    scores = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).cumsum(2) + 5
    maps = (scores.double() - scores.double().mean(1, keepdim=True)).reshape(-1, *size).numpy()
    grid, energy = np.sum([fourier_energies(map, period) for map in maps], axis=0)
    found = measured(scores, period)
    assert found.share == pytest.approx(grid / energy, rel=1e-12) and 0 < found.share < 1
    assert (found.period, found.images) == (period, 2)


@pytest.mark.parametrize("period", [2, 4])
def test_what_repeats_with_the_grid_is_all_gridding_and_a_slope_is_none(period):
    tile = torch.randn(period, period, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(17.0), torch.arange(21.0), indexing="ij")
    assert measured(two_classes(tile.repeat(6, 6)[:17, :21] + 3), period).share == pytest.approx(1, abs=1e-12)
    assert measured(two_classes(3 * y - 2 * x + 0.1), period).share == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("maps", [torch.zeros(1, 2, 9, 9), torch.full((1, 2, 9, 9), 0.1), torch.rand(1, 1, 9, 9)])
def test_maps_without_contrast_between_places_or_classes_have_no_share(maps):
    assert measured(maps.expand(1, 2, 9, 9), 2).share is None


@pytest.mark.parametrize("period", [2, 3])
def test_a_single_point_has_the_share_of_white_noise(period):
    size = 8 * period + 1
    point = torch.zeros(size, size + 2)
    point[size // 2, size // 2] = 1
    windows = (size - 4 * period + 2) * (size + 2 - 4 * period + 2)
    # Its mean goes off the energy; nothing of it is at the border, where fewer windows see a place.
    expected = white_noise_share(period) / (1 - 1 / windows)
    assert measured(two_classes(point), period).share == pytest.approx(expected, rel=1e-12)
    radius = 2 * period
    squares = sum(((radius - abs(j)) / radius**2) ** 2 for j in range(-radius, radius + 1))
    assert white_noise_share(period) == pytest.approx((period * squares) ** 2 - squares**2, rel=1e-12)


def test_a_dilated_filter_leaves_a_grid_and_the_same_filter_undilated_none():
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=torch.float64)
    noise = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain, dilated = (F.conv2d(noise, torch.outer(line, line)[None, None], dilation=d)[0, 0] for d in (1, 2))
    shares = [measured(two_classes(map), 2).share for map in (plain, dilated)]
    assert shares[0] < white_noise_share(2) < shares[1]


def test_sums_of_several_processes_and_batches_add_up():
    scores = torch.randn(5, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    one, other = GridEnergy(2), GridEnergy(2)
    for grid, part in ((one, scores[:2]), (other, scores[2:3]), (other, scores[3:]), (other, scores[:1, :, :6])):
        grid.add(part)  # the last one is too small
    one.merge(other)
    assert one.result().images == 5
    assert one.result().share == pytest.approx(measured(scores, 2).share, rel=1e-14)


def test_maps_that_are_all_too_small_name_what_they_would_need():
    grid, other = GridEnergy(4), GridEnergy(4)
    grid.add(torch.rand(1, 3, 20, 9))
    other.add(torch.rand(1, 3, 12, 13))
    grid.merge(other)
    with pytest.raises(DataError, match=r"on score maps of 15x15 or more, .* are 12x13 at most; .* gridding=\.\.\."):
        grid.result()


class Coarse(nn.Module):
    """Three classes at every fourth pixel, resized or not."""

    def __init__(self, resizes=True):
        super().__init__()
        self.conv, self.resizes = nn.Conv2d(3, 3, 3, stride=4, padding=1), resizes

    def forward(self, input):
        small = self.conv(input)
        return F.interpolate(small, input.shape[2:], mode="bilinear", align_corners=True) if self.resizes else small


class Telling(Coarse):
    def scores(self, input):
        return self.conv(input)


@pytest.mark.parametrize("make", [lambda: Coarse(resizes=False), Telling])
def test_scores_are_taken_before_they_are_resized(make):
    torch.manual_seed(0)
    network, task = make(), Segmentation(COLOURS)
    images = torch.randint(256, (2, 3, 33, 41), dtype=torch.uint8)
    assert torch.equal(task.score_maps(network, images), network.conv(COLOURS.normalize(images)))


def test_a_network_that_does_not_tell_its_scores_is_told_how_to():
    with pytest.raises(DataError, match=r"Coarse: scores every pixel, .* give the network a method scores\(images\)"):
        Segmentation(COLOURS).score_maps(Coarse(), torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"within \[2, 64\], got 1"):
        GridEnergy(1)


@pytest.fixture
def segmenting(tmp_path):
    """A network that resizes its scores as areas, not as points."""
    torch.manual_seed(0)
    sizes = {"channels": [4, 6, 6], "units": 2, "num_classes": 3, "in_channels": 3}
    model = daukit.create_model("shallow_dau", task="segmentation", **sizes)
    nn.init.normal_(model.score.weight)
    daukit.save(model, tmp_path / "net.safetensors", preprocessing=COLOURS)
    return tmp_path / "net.safetensors"


def test_evaluate_prints_the_gridding_of_a_network(segmenting, tmp_path, run):
    folder = segmentation_tree(tmp_path / "data", size=(25, 33))
    code, out, err = run(segmenting, "--data", folder, "--gridding", "2,3", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert [grid["period"] for grid in result["gridding"]] == [2, 3]
    assert [grid["white_noise"] for grid in result["gridding"]] == [white_noise_share(2), white_noise_share(3)]
    model = daukit.load(segmenting)
    picture = torch.from_numpy(np.array(Image.open(folder / "val/images/c.png"))).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = [measured(model.scores(COLOURS.normalize(picture)), period).share for period in (2, 3)]
    assert [grid["share"] for grid in result["gridding"]] == pytest.approx(expected, rel=1e-5)
    plain = json.loads(run(segmenting, "--data", folder, "--json")[1])
    assert {**plain, "gridding": result["gridding"]} == result
    assert run(segmenting, "--data", folder, "--gridding", "2,3", "--csv", tmp_path / "grids.csv")[0] == 0
    *_, mean, two, three = csv.DictReader((tmp_path / "grids.csv").read_text().splitlines())
    assert (mean["name"], float(mean["iou"]), mean["share"]) == ("mean", result["mean_iou"], "")
    assert [(row["name"], float(row["share"]), row["iou"]) for row in (two, three)] == [
        (f"gridding {grid['period']}", grid["share"], "") for grid in result["gridding"]
    ]
    assert "gridding of the score maps" in run(segmenting, "--data", folder, "--gridding", "2")[1]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--gridding", "1"), 2, "1 is not within [2, 64]"),
        (("--gridding", "2.5"), 2, "not a list of whole numbers like 2,4"),
        (("--gridding", "2,4,2"), 2, "names a period twice; drop one"),
        (("--gridding", "2", "--tile", "1024"), 2, "whole images, so it takes no tiles"),
        (("--gridding", "4"), 1, "score maps of 15x15 or more, and those of the images are 6x7 at most"),
    ],
)
def test_gridding_that_cannot_be_measured_is_one_line(segmenting, tmp_path, run, options, code, message):
    folder = segmentation_tree(tmp_path / "data", size=(13, 14))
    returned, out, err = run(segmenting, "--data", folder, *options)
    assert returned == code and message in " ".join(err.replace("│", "").split()) and out == "", err
