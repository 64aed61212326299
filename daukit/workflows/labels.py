"""What figures and pages call the files that they compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from daukit.checkpoint.folder import CONFIG, MODEL
from daukit.texts import counted, visible


def labels_of(files: Sequence[Path | str], *, endings: bool = True) -> list[str]:
    """The files' names, all with as many of their folders as tell them apart; those that come twice have numbers.

    The file in a folder of the Hugging Face hub is called as its folder.

    Args:
        files: paths, and the names of networks that have no file.
        endings: whether names keep what follows their last dot; they do where nothing else tells them apart.
    """
    named = [_named(file) if isinstance(file, Path) else file for file in files]
    distinct = [*dict.fromkeys(named)]
    deepest = max((len(file.parts) for file in distinct if isinstance(file, Path)), default=0)
    ways = [(depth, ending) for ending in ((True,) if endings else (False, True)) for depth in range(deepest + 1)]
    found = [[_label(file, *way) for file in distinct] for way in ways]
    best = next((each for each in found if len({*each}) == len(each)), found[-1])
    labels = dict(zip(distinct, best, strict=True))
    return [labels[one] if named.count(one) == 1 else f"{labels[one]} ({i + 1})" for i, one in enumerate(named)]


def check_labels(labels: Sequence[str], count: int) -> None:
    """Raise ``ValueError`` unless labels that somebody chose tell ``count`` files apart; none at all may be chosen."""
    if labels and len(labels) != count:
        mismatch = f"{counted(len(labels), 'label')} for {counted(count, 'file')}"
        raise ValueError(f"{mismatch}; give one for each, in their order, or none")
    for number, label in enumerate(labels):
        if not label.strip():
            raise ValueError("a label has no letters")
        if label in labels[:number]:
            raise ValueError(f"{label!r} is given twice")


def _named(file: Path) -> Path:
    """Where a file is; of one in a folder of the hub, the folder. Links to files stay what they are called."""
    path = file.parent.resolve() / file.name
    return path.parent if path.name == MODEL and (path.parent / CONFIG).exists() else path


def _label(file: Path | str, depth: int, endings: bool) -> str:
    if isinstance(file, str):
        return visible(file)
    folders = file.parts[1:-1]
    name = file.name if endings or file.is_dir() else file.stem
    return visible("/".join((*folders[max(0, len(folders) - depth) :], name)) if depth else name)
