"""Rules of options that depend on what FILE's network is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from daukit.checkpoint import Checkpoint
    from daukit.datasets import Layout


def check_layout(layout: Layout | None, checkpoint: Checkpoint) -> None:
    """Make it a usage error to name a layout of another task than that of a checkpoint's network."""
    if layout is None:
        return
    from daukit.workflows.task_images import check_layout_of

    try:
        check_layout_of(checkpoint, layout)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--layout") from None
