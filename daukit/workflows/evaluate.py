"""Evaluate a checkpoint on a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daukit.checkpoint import Checkpoint
from daukit.datasets import Dataset, Layout, Split, TaskName
from daukit.distributed import ALONE, Ranks
from daukit.evaluation import evaluate, measure_gridding
from daukit.results import Progress, result_of
from daukit.tasks import Classification, Segmentation
from daukit.workflows.evaluate_pictures import check_comparable, draw_results
from daukit.workflows.evaluate_results import (
    DeblurringEvaluation,
    Evaluation,
    FileEvaluation,
    SegmentationEvaluation,
    csv_of,
)
from daukit.workflows.labels import check_labels
from daukit.workflows.outputs import write_outputs
from daukit.workflows.task_networks import TaskNetwork, task_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    data: Path,
    *,
    split: Split = "test",
    layout: Layout | None = None,
    task: TaskName | None = None,
    tile: tuple[int, int] | None = None,
    gridding: Sequence[int] = (),
    csv: Path | None = None,
    pictures: Path | None = None,
    picture_count: int = 4,
    compare: Sequence[Checkpoint] = (),
    labels: Sequence[str] = (),
    overwrite: bool = False,
    model: str | None = None,
    device: str = "cpu",
    on_progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Measure a network at what it is for, with the preprocessing that its checkpoint carries.

    Args:
        checkpoint: of a network that classifies, segments or deblurs.
        data: folder of images with labels; of pictures with masks, or blurred and sharp ones, for the other tasks.
        split: the images to take.
        layout: of the folder; default: found as by ``open_dataset``.
        task: as in ``task_network``.
        tile: as in ``task_network``.
        gridding: of networks that segment, measure how much of their score maps repeats with grids of these periods.
        csv: file to write the figures to.
        pictures: file to draw pictures to, and what networks say of them.
        picture_count: how many, as in ``draw_results``.
        compare: further networks to run on them, of the same task and classes.
        labels: what to call the networks there, that of ``checkpoint`` first; default: by their files.
        overwrite: replace files that exist.
        model: as in ``daukit.load``.
        device: where to compute.
        on_progress: called with the share done.
        ranks: the processes that divide the images; each returns the figures of all, and the first one writes.

    Raises:
        ValueError: ``layout`` is of another task than the network's, ``task`` is given for a network of daukit's, it
            takes no such tiles, a network of ``compare`` cannot be compared, or
            ``labels`` do not tell them apart; gridding of a network that does not
            segment or runs on tiles, or of a period beyond its bounds.
        CheckpointError: the network cannot be built.
        DataError: the folder or its files are wrong, the checkpoint carries no preprocessing, or the two do not fit.
        OutputError: a file exists and ``overwrite`` is False, or it cannot be written.
    """
    if gridding and tile is not None:
        raise ValueError("gridding is measured on the score maps of whole images, so it takes no tiles")
    check_labels(labels, 1 + len(compare))
    networks = [
        task_network(one, task=task, tile=tile, model=model, device=device) for one in (checkpoint, *compare)
    ]  # fmt: skip
    check_comparable(networks)
    if labels and len(networks) == 1 and networks[0].purpose == "classification":
        raise ValueError("pictures of one classifier do not name it, so it takes no label")
    if gridding and networks[0].purpose != "segmentation":
        raise ValueError(f"gridding is about networks that segment, and {networks[0].called}'s network does not")
    sets = [network.open(data, split, layout) for network in networks]
    for network, images in zip(networks, sets, strict=True):
        names = {"network": f"{network.called}'s network", "images": f"the images of {data}"}
        network.task(images.info).check_fits(network.module, images, device, **names)
    about = {"file": networks[0].file, "data": data, "split": split, "csv": csv, "pictures": pictures}
    result = _measured(networks[0], sets[0], tuple(gridding), about, device, on_progress, ranks)

    def draw() -> Figure:
        return draw_results(networks, sets, picture_count, device, labels)

    if ranks.is_writer:
        write_outputs(pictures, draw, csv, lambda: csv_of(result), overwrite=overwrite)
    return result


def _measured(
    network: TaskNetwork,
    images: Dataset,
    gridding: tuple[int, ...],
    about: dict[str, Any],
    device: str,
    on_progress: Progress | None,
    ranks: Ranks,
) -> Evaluation:
    task, model = network.task(images.info), network.module
    passes = iter((0.0, 0.5) if gridding else (0.0,))

    def how() -> dict[str, Any]:
        """Options of a pass over the images, which tells the share of the passes that are done."""
        before, part = next(passes), 0.5 if gridding else 1.0

        def on_batch(done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(before + part * done / total, f"{done:,} of {total:,} images")

        return {"device": device, "on_batch": on_batch, "ranks": ranks}

    if isinstance(task, Classification):
        accuracy = evaluate(model, task, images, **how())
        return result_of(FileEvaluation, accuracy, class_names=network.preprocessing.class_names, **about)
    if isinstance(task, Segmentation):
        grids = measure_gridding(model, task, images, gridding, **how()) if gridding else ()
        classes = evaluate(model, task, images, **how())
        return result_of(SegmentationEvaluation, classes, class_names=images.info.class_names, gridding=grids, **about)
    sharpness = evaluate(model, task, images, **how())
    return result_of(DeblurringEvaluation, sharpness, parameters=network.parameters, **about)
