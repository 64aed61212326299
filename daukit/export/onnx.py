"""A network as an ONNX file, by torch's own exporter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from daukit.errors import DaukitError
from daukit.models.usercode import FAILURES

OPSET = 18
"""Version of ONNX's operators that files use: every runtime of the last years has it."""

MOST_BYTES = 2**31 - 1
"""What one file of protocol buffers can hold."""


@dataclass(frozen=True)
class OnnxNetwork:
    """A network as an ONNX file.

    Attributes:
        data: the file.
        opset: version of its operators.
        input: its input's axes: names where they are free, numbers where they are not.
    """

    data: bytes
    opset: int
    input: tuple[str | int, ...]


def to_onnx(
    network: nn.Module, example: Tensor, *, free_size: bool = False, notes: Mapping[str, str] | None = None
) -> OnnxNetwork:
    """Export a network that is made of torch's own layers, as ``daukit.baking.bake`` makes it.

    Args:
        network: in eval mode.
        example: (N, C, H, W) with N at least 2: one image is special to ``torch.export``.
        free_size: whether the file takes images of other heights and widths, too; the network must.
        notes: texts to store in the file's metadata, by name.

    Raises:
        DaukitError: onnx or onnxscript is not installed.
        ValueError: the network cannot be expressed, or is too large for one file.
    """
    check_installed("onnx", "onnxscript")
    axes = {0: "batch", 2: "height", 3: "width"} if free_size else {0: "batch"}
    with _in_silence():
        try:
            program = torch.onnx.export(
                network, (example,), dynamo=True, opset_version=OPSET, dynamic_shapes=(axes,), input_names=["images"],
                verbose=False,
            )  # fmt: skip
        except (*FAILURES, torch.onnx.errors.OnnxExporterError) as error:
            cause = error.__cause__ or error
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
            raise ValueError(f"torch.onnx cannot express the network ({reason})") from None
    assert program is not None  # without a file to write to, it is returned
    model = program.model_proto
    for name, text in (notes or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, text
    if model.ByteSize() > MOST_BYTES:
        raise ValueError(f"as ONNX it takes {model.ByteSize():,} bytes, and one file holds {MOST_BYTES:,}")
    shape = model.graph.input[0].type.tensor_type.shape.dim
    return OnnxNetwork(
        data=model.SerializeToString(deterministic=True),
        opset=next(each.version for each in model.opset_import if each.domain == ""),
        input=tuple(axis.dim_param or axis.dim_value for axis in shape),
    )


def check_installed(*packages: str) -> None:
    """Raise ``DaukitError`` unless the packages can be imported."""
    from importlib.util import find_spec

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise DaukitError(f"this needs {' and '.join(missing)}: pip install 'daukit[onnx]'")


@contextmanager
def _in_silence() -> Iterator[None]:
    """Without what the exporter says of packages that are not there, and of its own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
