"""Trained files of Caffe, TensorFlow and the dcls package become checkpoints of daukit's.

``import_checkpoint`` recognises a file and hands it to the module of its format; ``to_dcls`` is the way back of a
single layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypedDict

from daukit.checkpoint import Checkpoint
from daukit.checkpoint.file import check_readable
from daukit.errors import CheckpointError, in_words_of_caller
from daukit.importers.caffe import Offsets, is_caffe, read_caffe
from daukit.importers.dcls import SigmaAxes, Version, is_dcls, read_dcls, to_dcls
from daukit.importers.layers import PerLayer, reading
from daukit.importers.tensorflow import is_tensorflow, read_tensorflow

Source = Literal["caffe", "tensorflow", "dcls"]


class ImportOptions(TypedDict, total=False):
    """The options of ``import_checkpoint``, for functions that hand them on."""

    source: Source | None
    prototxt: str | Path | None
    offsets: Offsets
    moving_averages: bool
    version: Version | None
    window: PerLayer[tuple[int, int]] | None
    stride: PerLayer[int] | None
    groups: PerLayer[int] | None
    sigma_axes: SigmaAxes


_OPTIONS: dict[Source, tuple[str, ...]] = {
    "caffe": ("prototxt", "offsets"),
    "tensorflow": ("window", "stride", "moving_averages"),
    "dcls": ("version", "window", "stride", "groups", "sigma_axes"),
}


def import_checkpoint(
    path: str | Path,
    *,
    source: Source | None = None,
    prototxt: str | Path | None = None,
    offsets: Offsets = "auto",
    moving_averages: bool = False,
    version: Version | None = None,
    window: PerLayer[tuple[int, int]] | None = None,
    stride: PerLayer[int] | None = None,
    groups: PerLayer[int] | None = None,
    sigma_axes: SigmaAxes = "equal",
) -> Checkpoint:
    """Import a trained file of another library.

    Layers keep the source's names. If daukit knows the network, the checkpoint is that network's; otherwise it holds
    the DAU layers, which can be inspected, pruned, plotted and rescaled, and all other tensors.

    Args:
        path: a ``.caffemodel``; a TensorFlow checkpoint by its prefix or any of its files, a folder whose
            ``checkpoint`` file names the newest one in it, or an ``.npz`` of variables; or a state dict with layers of
            dcls.
        source: library that wrote it; default: the one that ``recognize`` finds.
        prototxt: Caffe: the network's text; default: the file beside the weights, if any.
        offsets: Caffe: origin of displacements, the window's ``"centred"`` pixel or its ``"corner"``; default: as the
            file says, or else the one that the displacements fit.
        moving_averages: TensorFlow: take the moving averages of variables that have one.
        version: dcls: ``"v0"``, ``"v1"``, ``"max"`` or ``"gauss"``.
        window: ``max_kernel_size`` of TensorFlow's layers or ``dilated_kernel_size`` of those of dcls: (height, width),
            for all layers or by name. One side must be 1 where a dcls layer has one axis.
        stride: TensorFlow and dcls: the layers' strides.
        groups: dcls: the layers' groups.
        sigma_axes: dcls: treatment of Gaussians that are not round: ``"equal"`` refuses them, ``"mean"`` averages
            their sigmas, ``"split"`` makes several units of each.

    Returns:
        The checkpoint; ``history[-1]["arguments"]["notes"]`` lists what was guessed, changed or left out.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
        ValueError: an option belongs to another format, or this format needs an option that is missing.
        DaukitError: the package that reads the format is not installed.
    """
    path = Path(path)
    source = recognize(path) if source is None else source
    options: dict[str, Any] = {
        "prototxt": None if prototxt is None else Path(prototxt),
        "offsets": offsets,
        "moving_averages": moving_averages,
        "version": version,
        "window": window,
        "stride": stride,
        "groups": groups,
        "sigma_axes": sigma_axes,
    }
    own = _OPTIONS[source]
    defaults = (None, False, "auto", "equal")
    foreign = [name for name, value in options.items() if name not in own and value not in defaults]
    if foreign:
        raise ValueError(f"{path}: {source} files have no {', '.join(foreign)}; they have {', '.join(own)}")
    if source == "dcls" and (version is None or window is None):
        how = in_words_of_caller(
            "version=, window=), or name the network of another one (daukit.load(path, model=...))",
            "--dcls-version, --window), or name the network of another one (--model)",
        )
        raise ValueError(f"{path}: a state dict of dcls does not tell its layers' version and window; pass both ({how}")
    if source != "tensorflow":  # whose name may be a prefix
        check_readable(path)
    if source == "caffe":
        return read_caffe(path, prototxt=options["prototxt"], offsets=offsets)
    if source == "tensorflow":
        return read_tensorflow(path, window=window, stride=stride, moving_averages=moving_averages)
    assert version is not None and window is not None
    return read_dcls(path, version=version, window=window, stride=stride, groups=groups, sigma_axes=sigma_axes)


def recognize(path: str | Path) -> Source:
    """Recognise what wrote a file or folder, by its content, or by its name if that is ``.caffemodel`` or ``.npz``.

    Raises:
        CheckpointError: there is no such file, or it is none of these.
    """
    path = Path(path)
    with reading(path):  # a name that is too long for the system is an OSError, too
        return _recognized(path)


def _recognized(path: Path) -> Source:
    if path.is_file():
        check_readable(path)
    if is_tensorflow(path):
        return "tensorflow"
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such file, and no TensorFlow checkpoint of that name")
    if not path.is_file():
        raise CheckpointError(
            f"{path}: is not a file; name the file, a TensorFlow checkpoint by its .index, or a folder with the "
            "'checkpoint' file that TensorFlow writes"
        )
    if path.suffix == ".npz":
        return "tensorflow"
    if is_caffe(path):
        return "caffe"
    if is_dcls(path):
        return "dcls"
    option = in_words_of_caller("source=", "--from")
    text = in_words_of_caller("prototxt=", "--prototxt")
    hint = f"; a network's text goes beside its weights, by {text}" if path.suffix == ".prototxt" else ""
    raise CheckpointError(
        f"{path}: is no file that daukit recognises; if it is one of {', '.join(_OPTIONS)}, say so ({option}){hint}"
    )


__all__ = ["ImportOptions", "Offsets", "SigmaAxes", "Source", "Version", "import_checkpoint", "recognize", "to_dcls"]
