"""Displacements are those of maps of some resolution: say so where a file is read as another network than its own."""

from __future__ import annotations

import warnings
from pathlib import Path

from daukit.checkpoint.header import Header
from daukit.errors import CheckpointError, in_words_of_caller
from daukit.limits import in_short
from daukit.models.callables import Factory, spec_of
from daukit.models.specs import split_factory


def check_limits(header: Header, said: Header, path: Path | str) -> None:
    """Raise ``CheckpointError`` where layers have other limits than a header beside the tensors says.

    Displacements would then be those of coarser or finer maps, which tensors alone do not tell.
    """
    limits = {layer["name"]: layer["max_displacement"] for layer in said.layers}
    for layer in header.layers:
        name, here = layer["name"], layer["max_displacement"]
        if limits.get(name, here) != here:
            raise CheckpointError(
                f"{path}: layer {name!r} has max_displacement {in_short(limits[name])} by its config.json, and "
                f"{in_short(here)} in the network that was named; {how_to_adapt()} gives that one its layers"
            )


def how_to_adapt() -> str:
    """The way to a network of finer maps, in words of the caller."""
    return in_words_of_caller("daukit.workflows.adapt.adapt_checkpoint", "daukit convert --to")


def other_factory(header: Header, model: Factory | None, path: Path | str) -> tuple[str, ...]:
    """A note where a file's network comes from another function than the one that the caller names for it."""
    told, named = header.architecture.get("factory", ""), "<none>" if model is None else spec_of(model)
    if not told or "<" in named or split_factory(told)[1] == split_factory(named)[1]:  # no file names a lambda
        return ()
    return (
        f"{path}: is of {told}, and is read as {named} with its displacements as they are; if that one has finer maps, "
        f"{how_to_adapt()} multiplies them",
    )


def warn_of_other_factory(header: Header, model: Factory | None, path: Path | str) -> None:
    """Tell a caller in Python, who sees no notes; arguments as in ``other_factory``."""
    for sentence in other_factory(header, model, path):
        warnings.warn(sentence, stacklevel=3)  # this, and the function that reads the file
