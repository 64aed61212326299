"""Write down what a network says of pictures: classes as a table, masks and sharp pictures as PNG files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from daukit.checkpoint import Checkpoint
from daukit.datasets import DatasetInfo, TaskName
from daukit.datasets.crops import CenterCrop
from daukit.errors import DataError, OutputError
from daukit.files import check_output, write_atomic
from daukit.pictures import SUFFIXES, check_picture, is_picture, pixels_of, read_picture
from daukit.plots.palette import IGNORED, class_colors
from daukit.results import Count, Progress, Share
from daukit.texts import csv_text
from daukit.workflows.task_networks import TaskNetwork, task_network

TABLE = "classes.csv"
"""The file of a classifier's answers."""

_MOST = 5
_LABELS = 256


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A class that a picture may be of.

    Attributes:
        label: number of the class.
        name: its name; None if it has none.
        probability: softmax of its score.
    """

    label: Count
    name: str | None
    probability: Share


@dataclass(frozen=True, kw_only=True)
class PredictedPicture:
    """What a network says of a picture.

    Attributes:
        picture: its file.
        output: the mask or the sharp picture, if one was written.
        answers: of a classifier, the five classes of the highest scores, highest first.
    """

    picture: Path
    output: Path | None = None
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network says of pictures.

    Attributes:
        file: the checkpoint.
        task: what its network is for.
        pictures: one entry per picture.
        output: the table of a classifier's answers, if it was written.
    """

    file: Path | None
    task: TaskName
    pictures: tuple[PredictedPicture, ...]
    output: Path | None = None


def find_pictures(given: Sequence[Path], *, but: Path | None = None) -> list[tuple[Path, Path]]:
    """The pictures among files and folders, each with its name: below its folder, or of the file alone.

    Args:
        given: files, and folders with pictures in them or in their folders.
        but: folder whose pictures do not count where they are in one of the folders, as those written there before.

    Raises:
        DataError: something is not there, is no picture as far as its head tells, or a folder has none.
    """
    found: list[tuple[Path, Path]] = []
    for path in given:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if is_picture(one, path) and not _is_in(one, but, path))
            if not inside:
                raise DataError(f"{path}: there is no picture ({', '.join(SUFFIXES)}) in it")
            found += [(one, one.relative_to(path)) for one in inside]
        elif not path.exists():
            raise DataError(f"{path}: there is no such picture, and no such folder")
        else:
            found.append((path, Path(path.name)))
    for path, _ in found:
        check_picture(path)
    return found


def predict_pictures(
    checkpoint: Checkpoint,
    pictures: Sequence[Path],
    output: Path | None,
    *,
    task: TaskName | None = None,
    tile: tuple[int, int] | None = None,
    overwrite: bool = False,
    model: str | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> Prediction:
    """Run a network on pictures and write what it says.

    Of a classifier that is the table ``classes.csv``; of other networks a PNG file per picture, of its name and in the
    same folder below ``output``. All pictures are looked at before the first file is written; files that were written
    before one turns out to be damaged stay.

    Args:
        checkpoint: of a network with preprocessing.
        pictures: files and folders.
        output: folder to write to; None: nothing is written.
        task: as in ``task_network``.
        tile: as in ``task_network``.
        overwrite: replace files that exist.
        model: as in ``daukit.load``.
        device: where to compute.
        on_progress: called with the share done.

    Raises:
        ValueError: as in ``task_network``.
        CheckpointError: the network cannot be built.
        DataError: a picture cannot be read, or the network does not take it.
        OutputError: a file exists and ``overwrite`` is False, two pictures have one output, or it cannot be written.
    """
    network = task_network(checkpoint, task=task, tile=tile, model=model, device=device)
    found = find_pictures(pictures, but=output)
    targets = _targets(network.purpose, found, output)
    for (path, _), target in zip(found, targets, strict=True):
        if target is not None:
            check_output(target, overwrite=overwrite, sources=[path, *([checkpoint.path] if checkpoint.path else [])])
    done = []
    for number, ((path, _), target) in enumerate(zip(found, targets, strict=True), 1):
        said = _said(network, path, device)
        if network.purpose == "classification":
            done.append(PredictedPicture(picture=path, answers=tuple(_answers(network, said))))
        else:
            if target is not None:
                write_atomic(target, _png(network, said), overwrite=overwrite)
            done.append(PredictedPicture(picture=path, output=target))
        if on_progress is not None:
            on_progress(number / len(found), f"{number:,} of {len(found):,} pictures")
    table = targets[0] if network.purpose == "classification" else None
    if table is not None:
        write_atomic(table, _table(done).encode(), overwrite=overwrite)
    return Prediction(file=checkpoint.path, task=network.purpose, pictures=tuple(done), output=table)


def _targets(purpose: TaskName, found: Sequence[tuple[Path, Path]], output: Path | None) -> list[Path | None]:
    """The file that is written for each picture."""
    if output is None:
        return [None] * len(found)
    if purpose == "classification":
        return [output / TABLE] * len(found)
    taken: dict[Path, Path] = {}
    for path, name in found:
        target = output / name.with_suffix(".png")
        if target in taken:
            raise OutputError(
                f"{target}: would be written for both {taken[target]} and {path}; rename one, or write to two folders"
            )
        taken[target] = path
    return list(taken)


def _said(network: TaskNetwork, path: Path, device: str) -> Tensor:
    """What the network predicts for one picture: scores (1, classes), (1, classes, H, W), or a picture (1, C, H, W)."""
    expected = network.preprocessing
    picture = read_picture(path, expected.channel_order)
    if network.purpose == "classification" and (picture.height, picture.width) != expected.input_size:
        picture = CenterCrop(expected.input_size)(picture, 0)
    image = pixels_of(picture, expected.channel_order)[None].to(device)
    with torch.no_grad():
        said = network.task(DatasetInfo(0)).predict(network.module, image)
    if not bool(said.isfinite().all()):
        raise DataError(f"{path}: {network.called}'s network says numbers of it that are not finite; was it trained?")
    return said


def _answers(network: TaskNetwork, scores: Tensor) -> Iterator[Answer]:
    """The classes of the highest scores (1, classes); of equal ones, the class of the lower number comes first."""
    first, names = scores[0].cpu(), network.preprocessing.class_names
    probabilities = first.double().softmax(0).tolist()
    for label in first.sort(descending=True, stable=True).indices[:_MOST].tolist():
        name = names[label] if label < len(names) else None
        yield Answer(label=label, name=name, probability=probabilities[label])


def _table(done: Sequence[PredictedPicture]) -> str:
    rows = [
        (str(one.picture), place, answer.label, answer.name, answer.probability)
        for one in done
        for place, answer in enumerate(one.answers, 1)
    ]
    return csv_text(("picture", "place", "class", "name", "probability"), rows)


def _png(network: TaskNetwork, said: Tensor) -> bytes:
    image = _mask(network, said) if network.purpose == "segmentation" else _sharp(network, said)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _mask(network: TaskNetwork, scores: Tensor) -> Image.Image:
    classes = scores.shape[1]
    if classes > _LABELS:
        raise DataError(f"{network.called}'s network has {classes} classes, and a mask tells {_LABELS} apart")
    image = Image.fromarray(scores.argmax(1)[0].byte().cpu().numpy())
    colors = class_colors(classes) + (_LABELS - classes) * [IGNORED]
    image.putpalette([part for color in colors for part in color])
    return image


def _sharp(network: TaskNetwork, said: Tensor) -> Image.Image:
    pixels = (said[0] * 255).round().byte().cpu()  # (C, H, W)
    order = network.preprocessing.channel_order
    if order == "gray":
        return Image.fromarray(pixels[0].numpy())
    return Image.fromarray((pixels.flip(0) if order == "bgr" else pixels).permute(1, 2, 0).contiguous().numpy())


def _is_in(path: Path, folder: Path | None, given: Path) -> bool:
    """Tell whether a picture is in ``folder``, which is in the folder ``given``."""
    if folder is None:
        return False
    inner = folder.resolve()
    return given.resolve() in inner.parents and inner in path.resolve().parents
