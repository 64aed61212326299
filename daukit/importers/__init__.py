"""Other people's trained files: Caffe's, TensorFlow's and those of the dcls package become checkpoints of daukit's.

``import_checkpoint`` is the door; ``to_dcls`` is the way back of a single layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from daukit.checkpoint import Checkpoint
from daukit.checkpoint.file import check_readable
from daukit.checkpoint.header import METADATA_KEY
from daukit.checkpoint.pickles import is_pickle
from daukit.errors import CheckpointError, in_words_of_caller
from daukit.importers.caffe import read_caffe
from daukit.importers.caffe_units import Offsets
from daukit.importers.dcls import is_dcls, read_dcls
from daukit.importers.dcls_units import SigmaAxes, Version, to_dcls
from daukit.importers.layers import PerLayer, reading
from daukit.importers.npz import is_npz
from daukit.importers.tensorflow import read_tensorflow
from daukit.importers.tensorflow_bundle import index_path, is_index

Source = Literal["caffe", "tensorflow", "dcls"]

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

    Layers keep the source's names. Where daukit knows the network, the checkpoint is that network's; otherwise it holds
    the DAU layers, which can be inspected, pruned, plotted and rescaled, and all other tensors.

    Args:
        path: a ``.caffemodel``; a TensorFlow checkpoint by its prefix or any of its files, a folder whose
            ``checkpoint`` file names the newest one in it, or an ``.npz`` of variables; or a state dict with layers of
            dcls.
        source: what wrote it; default: what ``recognize`` finds.
        prototxt: of Caffe: the network's text.
        offsets: of Caffe: whether displacements count from the window's ``"centred"`` pixel or its ``"corner"``.
        moving_averages: of TensorFlow: take moving averages of the variables where there are some.
        version: of dcls: ``"v0"``, ``"v1"``, ``"max"`` or ``"gauss"``.
        window: of TensorFlow, ``max_kernel_size``, and of dcls, ``dilated_kernel_size``: (height, width), for all
            layers or by name. One side must be 1 where a dcls layer has one axis.
        stride: of TensorFlow and dcls: the layers' strides.
        groups: of dcls: the layers' groups.
        sigma_axes: of dcls: what to do with Gaussians that are not round.

    Returns:
        The checkpoint; what the importer had to guess or could not keep is ``history[-1]["arguments"]["notes"]``.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
        ValueError: an option of another format, or one missing that this format needs.
        DaukitError: a package is missing that reads the format.
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
    """What wrote a file or folder, by its content, or by its name if that is ``.caffemodel`` or ``.npz``.

    Raises:
        CheckpointError: there is no such file, or nobody knows.
    """
    path = Path(path)
    with reading(path):  # a name that is too long for the system is an OSError, too
        return _recognized(path)


def _recognized(path: Path) -> Source:
    if path.is_file():
        check_readable(path)
    if (path / "checkpoint").is_file() or is_index(index_path(path)) or is_npz(path):
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
    if path.suffix == ".caffemodel":
        return "caffe"
    if is_pickle(path) or _is_dcls_safetensors(path):
        return "dcls"
    option = in_words_of_caller("source=", "--from")
    text = in_words_of_caller("prototxt=", "--prototxt")
    hint = f"; a network's text goes beside its weights, by {text}" if path.suffix == ".prototxt" else ""
    raise CheckpointError(
        f"{path}: is no file that daukit recognises; if it is one of {', '.join(_OPTIONS)}, say so ({option}){hint}"
    )


def _is_dcls_safetensors(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            if METADATA_KEY in (file.metadata() or {}):
                raise CheckpointError(f"{path}: is a daukit file already")
            return is_dcls(list(file.keys()))
    except (SafetensorError, OSError):
        return False


__all__ = ["Offsets", "SigmaAxes", "Source", "Version", "import_checkpoint", "recognize", "to_dcls"]
