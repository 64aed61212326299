"""What figures and pages call the files that they compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from daukit.checkpoint.folder import CONFIG, MODEL
from daukit.texts import visible


def labels_of(files: Sequence[Path | str], *, endings: bool = True) -> list[str]:
    """The files' names, with as many of their folders as tell them apart; a number each where nothing does.

    The file in a folder of the Hugging Face hub is called as its folder.

    Args:
        files: paths, and the names of networks that have no file.
        endings: whether names keep what follows their last dot.
    """
    deepest = max((len(file.resolve().parts) for file in files if isinstance(file, Path)), default=0)
    by_depth = [[_label(file, depth, endings) for file in files] for depth in range(deepest + 1)]
    return [
        next((labels[i] for labels in by_depth if labels.count(labels[i]) == 1), f"{by_depth[0][i]} ({i + 1})")
        for i in range(len(files))
    ]


def _label(file: Path | str, depth: int, endings: bool) -> str:
    if isinstance(file, str):
        return visible(file)
    is_in_hub_folder = file.name == MODEL and (file.parent / CONFIG).exists()
    own = file.parent if is_in_hub_folder else file
    folders = own.resolve().parts[1:-1]
    name = own.name if endings or is_in_hub_folder else own.stem
    return visible("/".join((*folders[len(folders) - depth :], name) if depth else (name,)))
