"""Tables of ``daukit evaluate``, one kind for each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from daukit.cli.report import print_answer, print_table

if TYPE_CHECKING:
    from daukit.workflows.evaluate import FileEvaluation
    from daukit.workflows.evaluate_pixels import DeblurringEvaluation, SegmentationEvaluation


def print_classification(called: str, result: FileEvaluation, names: Sequence[str]) -> None:
    """Print the accuracy by class and of all images."""
    print_answer(result.accuracy)
    rows = [
        (names[i] if i < len(names) else str(i), _percent(accuracy)) for i, accuracy in enumerate(result.class_accuracy)
    ]
    rows.append((f"all {result.images:,} images", f"{result.accuracy:.2%}"))
    if result.top_5 is not None:
        rows.append(("in the first five", f"{result.top_5:.2%}"))
    print_table(f"{called}: mean loss {result.loss:.4f}", ("class", "accuracy"), rows)


def print_segmentation(called: str, result: SegmentationEvaluation) -> None:
    """Print intersection over union and accuracy by class and their means, as Table 5 does."""
    print_answer(result.mean_iou)
    figures = zip(result.class_names, result.class_iou, result.class_accuracy, strict=True)
    rows = [(name, _percent(iou), _percent(accuracy)) for name, iou, accuracy in figures]
    rows.append(("mean", _percent(result.mean_iou), _percent(result.mean_accuracy)))
    title = f"{called}: pixel accuracy {result.pixel_accuracy:.2%}, mean loss {result.loss:.4f}"
    print_table(f"{title}, {result.images:,} images", ("class", "IoU", "accuracy"), rows)


def print_deblurring(called: str, result: DeblurringEvaluation) -> None:
    """Print PSNR and parameters, as Table 8 does, and SSIM."""
    print_answer(result.psnr)
    row = (called, f"{result.psnr:.2f}", f"{result.ssim:.4f}", f"{result.parameters:,}")
    print_table(f"mean over {result.images:,} images", ("network", "PSNR (dB)", "SSIM", "parameters"), [row])


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
