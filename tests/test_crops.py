"""Crops of images and their targets: both show the same place, and chance depends on seed, epoch and image alone."""

import hashlib

import pytest
import torch

from daukit.datasets import Batch, DatasetInfo
from daukit.errors import DataError
from daukit.preprocessing import Preprocessing
from daukit.training.batches import Batches
from daukit.transforms import CropPair, Cropped, MirrorAndShift, ScaleAndCrop, epoch_generator, sample_generator


def numbered(height=9, width=11):
    """An image whose pixels are all different, and labels that say which pixel it is."""
    pixels = torch.arange(height * width).reshape(1, height, width).to(torch.uint8)
    return Batch(pixels[:, None].repeat(1, 3, 1, 1), pixels)


def draws(transform, batch, number=200):
    return [transform(batch, sample_generator(3, 0, i)) for i in range(number)]


def test_every_window_comes_up_and_targets_are_those_of_its_pixels():
    batch = numbered()
    whole, found = batch.targets[0], set()
    for crop in draws(ScaleAndCrop((7, 8), mirror=True), batch):
        assert torch.equal(crop.images, crop.targets[:, None].repeat(1, 3, 1, 1))
        corner, right = crop.targets[0, 0, 0].item(), crop.targets[0, 0, 1].item()
        mirrored = right < corner
        row, column = divmod(corner - 7 * mirrored, 11)
        window = whole[row : row + 7, column : column + 8]
        assert torch.equal(crop.targets[0], window.flip(-1) if mirrored else window)
        found.add((row, column, mirrored))
    assert len(found) == 3 * 4 * 2


def test_what_lies_beyond_the_image_is_ignored_and_has_its_mean_colour():
    batch = numbered(4, 5)
    crop = ScaleAndCrop((6, 7), ignore_index=0)(batch, sample_generator(0, 0, 0))
    assert torch.equal(crop.targets[0, :4, :5], batch.targets[0]) and torch.equal(
        crop.images[..., :4, :5], batch.images
    )
    beyond = torch.ones(6, 7, dtype=torch.bool)
    beyond[:4, :5] = False
    assert crop.targets[0, beyond].eq(0).all() and crop.images[0, :, beyond].eq(10).all()  # 9.5, to even


def test_scales_are_uniform_between_their_bounds():
    """The label of the last row at a scale tells its size: rows are 0 to 99."""
    rows = torch.arange(100).to(torch.uint8)[None, :, None].expand(1, 100, 100)
    batch = Batch(rows[:, None].repeat(1, 3, 1, 1), rows)
    sizes = []
    for crop in draws(ScaleAndCrop((256, 256), (0.5, 2.0)), batch, number=300):
        inside = (crop.targets[0] != 255).sum(0)
        sizes.append(inside.max().item())
        labels = crop.targets[0, : sizes[-1], 0]
        steps = labels.long().diff()
        assert steps.ge(0).all() and steps.max() <= (2 if sizes[-1] < 100 else 1)  # labels are never mixed
        image = crop.images[0, 0, : sizes[-1], 0].long()
        assert (image - labels.long()).abs().max() <= 1  # colours lie where labels do
    assert 50 <= min(sizes) < 55 and 195 < max(sizes) <= 200
    assert abs(sum(sizes) / 300 - 125) < 4 * 150 / (12 * 300) ** 0.5  # four standard errors


def test_both_images_of_a_pair_show_the_same_window():
    batch = numbered()
    pair = Batch(batch.images, batch.images + 100)
    for mirror in (False, True):
        found = set()
        for crop in draws(CropPair((7, 8), mirror), pair):
            assert torch.equal(crop.targets, crop.images + 100)
            flipped = bool(crop.images[0, 0, 0, 0] > crop.images[0, 0, 0, 1])
            images = crop.images.flip(-1) if flipped else crop.images
            row, column = divmod(images[0, 0, 0, 0].item(), 11)
            assert torch.equal(images, pair.images[..., row : row + 7, column : column + 8])
            found.add((row, column, flipped))
        assert len(found) == 3 * 4 * (1 + mirror)
    with pytest.raises(DataError, match="the image has 9x11 pixels, and crops have 9x12; take smaller ones"):
        CropPair((9, 12))(pair, sample_generator(0, 0, 0))


def test_chance_of_a_sample_depends_on_seed_epoch_and_index_alone():
    def first(*place):
        return torch.rand(4, generator=sample_generator(*place)).tolist()

    places = [(seed, epoch, index) for seed in (0, 1, 12345) for epoch in (0, 1) for index in (0, 1, 10**6)]
    assert len({tuple(first(*place)) for place in places}) == len(places)
    assert first(1, 2, 3) == first(1, 2, 3)
    assert first(0, 0, 0) != torch.rand(4, generator=epoch_generator(0, 0)).tolist()


class Images:
    """Images of several sizes whose pixels say which image it is."""

    info = DatasetInfo(7, sizes_differ=True)

    def __len__(self):
        return 7

    def batch(self, indices):
        (i,) = torch.arange(7)[indices].tolist()
        noise = torch.randint(36, (10 + i, 12), generator=torch.Generator().manual_seed(i))
        labels = (36 * i + noise).to(torch.uint8)[None]
        return Batch(labels[:, None], labels)

    def preprocessing(self):
        return Preprocessing((0.5,), (0.5,), "gray", (10, 12))

    def digest(self):
        return "images"


def test_crops_make_batches_and_depend_on_no_batch():
    data = Cropped(Images(), ScaleAndCrop((5, 6), mirror=True), seed=1)
    whole = data.batch(slice(None))
    assert whole.images.shape == (7, 1, 5, 6) and whole.targets.shape == (7, 5, 6)
    assert torch.equal(whole.targets[:, 0, 0] // 36, torch.arange(7).to(torch.uint8))
    some = data.batch(torch.tensor([5, 2]))
    assert torch.equal(some.images, whole.images[[5, 2]]) and torch.equal(some.targets, whole.targets[[5, 2]])
    assert (data.preprocessing().input_size, data.info) == ((5, 6), DatasetInfo(7))


def test_every_epoch_of_a_training_has_crops_of_its_own():
    data = Cropped(Images(), ScaleAndCrop((5, 6)), seed=1)
    batches = Batches(data, 3, MirrorAndShift(), seed=1)
    epochs = [torch.cat([batch.images for batch in batches.epoch(number)]) for number in (0, 1, 1)]
    ordered = [epoch[epoch[:, 0, 0, 0].long().div(36, rounding_mode="floor").argsort()] for epoch in epochs]
    assert torch.equal(ordered[1], ordered[2]) and not torch.equal(ordered[0], ordered[1])
    assert torch.equal(ordered[1], data.in_epoch(1).batch(slice(None)).images)


def test_the_digest_tells_crops():
    kinds = [(ScaleAndCrop((5, 6)), 0), (ScaleAndCrop((5, 6)), 1), (ScaleAndCrop((5, 7)), 0), (CropPair((5, 6)), 0)]
    kinds.append((CropPair((5, 6), mirror=True), 0))
    assert len({Cropped(Images(), crop, seed).digest() for crop, seed in kinds}) == 5
    data = Cropped(Images(), ScaleAndCrop((5, 6)))
    assert data.digest() == data.in_epoch(3).digest()


def test_pairs_that_are_not_mirrored_have_the_digest_of_runs_from_before_they_could_be():
    digest = hashlib.sha256(b"images CropPair(size=(5, 6)) 1").hexdigest()
    assert Cropped(Images(), CropPair((5, 6)), seed=1).digest() == digest


def test_images_are_mirrored_with_their_targets_and_not_moved():
    batch = numbered()
    unmoved = MirrorAndShift()(batch, sample_generator(0, 0, 0))
    assert unmoved.images is batch.images and unmoved.targets is batch.targets
    mirrored = [MirrorAndShift(mirror=True)(batch, sample_generator(0, 0, i)) for i in range(8)]
    flips = [torch.equal(one.targets, batch.targets.flip(-1)) for one in mirrored]
    assert {True, False} == set(flips)
    for one, flip in zip(mirrored, flips, strict=True):
        assert torch.equal(one.targets, batch.targets.flip(-1) if flip else batch.targets)
        assert torch.equal(one.images, one.targets[:, None].repeat(1, 3, 1, 1))
    with pytest.raises(ValueError, match="moves images without their masks or sharp images; use Cropped"):
        MirrorAndShift(shift=1)(batch, sample_generator(0, 0, 0))
