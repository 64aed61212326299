"""Tables of ``daukit evaluate``, one kind for each task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daukit.cli.printing import print_answer, print_table, wrote
from daukit.texts import counted

if TYPE_CHECKING:
    from daukit.workflows.evaluate_results import (
        DeblurringEvaluation,
        Evaluation,
        FileEvaluation,
        SegmentationEvaluation,
    )  # fmt: skip


def print_evaluation(called: str, result: Evaluation) -> None:
    """Print the figures of a task; the headline is the answer where no file was written."""
    from daukit.workflows.evaluate_results import FileEvaluation, SegmentationEvaluation

    if isinstance(result, FileEvaluation):
        headline = result.accuracy
        _print_classification(called, result)
    elif isinstance(result, SegmentationEvaluation):
        headline = result.mean_iou
        _print_segmentation(called, result)
    else:
        headline = result.psnr
        _print_deblurring(called, result)
    if result.csv is None and result.pictures is None:
        print_answer(headline)
    wrote(result.pictures, result.csv)


def _print_classification(called: str, result: FileEvaluation) -> None:
    """Accuracy by class and of all images."""
    names = result.class_names
    rows = [
        (names[i] if i < len(names) else str(i), _percent(accuracy)) for i, accuracy in enumerate(result.class_accuracy)
    ]
    rows.append((f"all {result.images:,} images", f"{result.accuracy:.2%}"))
    if result.top_5 is not None:
        rows.append(("in the first five", f"{result.top_5:.2%}"))
    print_table(f"{called}: mean loss {result.loss:.4f}", ("class", "accuracy"), rows)


def _print_segmentation(called: str, result: SegmentationEvaluation) -> None:
    """Intersection over union and accuracy by class and their means, as in Table 5."""
    figures = zip(result.class_names, result.class_iou, result.class_accuracy, strict=True)
    rows = [(name, _percent(iou), _percent(accuracy)) for name, iou, accuracy in figures]
    rows.append(("mean", _percent(result.mean_iou), _percent(result.mean_accuracy)))
    title = f"{called}: pixel accuracy {result.pixel_accuracy:.2%}, mean loss {result.loss:.4f}"
    print_table(f"{title}, {counted(result.images, 'image')}", ("class", "IoU", "accuracy"), rows)
    if result.gridding:
        grids = [(str(g.period), _percent(g.share), f"{g.white_noise:.2%}", f"{g.images:,}") for g in result.gridding]
        heads = ("period", "share of energy", "in white noise", "images")
        print_table("gridding of the score maps", heads, grids)


def _print_deblurring(called: str, result: DeblurringEvaluation) -> None:
    """PSNR and parameters, as in Table 8, and SSIM."""
    row = (called, f"{result.psnr:.2f}", f"{result.ssim:.4f}", f"{result.parameters:,}")
    print_table(f"mean over {counted(result.images, 'image')}", ("network", "PSNR (dB)", "SSIM", "parameters"), [row])


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
