"""Options about what networks are for, and the rules that depend on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint
    from daukit.datasets import Layout, TaskName

Task = Annotated[
    Literal["classification", "segmentation", "deblurring"] | None,
    typer.Option(
        "--task",
        help="Task of a network of your own. If omitted, classification; daukit's networks say it themselves.",
    ),
]
Tile = Annotated[
    str | None,
    typer.Option(
        "--tile",
        metavar="H,W",
        help="Run a network that segments or deblurs on tiles of at most this size, which overlap so that the result "
        "is that of the whole image: in pixels, one number for both. If omitted, images are not taken apart.",
    ),
]


@contextmanager
def naming_options(given: Mapping[str, object]) -> Iterator[None]:
    """Around the work of a command: make a wrong value a usage error of the options that are given, not None."""
    try:
        yield
    except ValueError as error:
        names = [name for name, value in given.items() if value is not None]
        if not names:
            raise
        raise typer.BadParameter(str(error), param_hint=" or ".join(names)) from None


def check_images(layout: Layout | None, task: TaskName | None, checkpoint: Checkpoint) -> None:
    """Make it a usage error to name a layout or a task that is not that of a checkpoint's network."""
    if layout is None and task is None:
        return
    from daukit.workflows.task_images import check_images_of

    with naming_options({"--layout": layout, "--task": task}):
        check_images_of(checkpoint, layout, task)
