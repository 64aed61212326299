"""What onnxruntime makes of an ONNX file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from daukit.errors import DaukitError
from daukit.export.onnx import check_installed


class OnnxSession:
    """An ONNX file, ready to run on the CPU.

    Args:
        data: the file.
        threads: threads to compute with; 0: as many as there are cores.

    Raises:
        DaukitError: onnxruntime is not installed, or cannot read the file.
    """

    def __init__(self, data: bytes, threads: int = 0) -> None:
        check_installed("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4  # what fails is raised, too
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of no common type
            raise DaukitError(f"onnxruntime cannot read the file: {_reason(error)}") from None

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Its outputs for images (N, C, H, W).

        Raises:
            DaukitError: it fails on such images.
        """
        try:
            outputs = self._session.run(None, {self._session.get_inputs()[0].name: images.numpy()})
        except Exception as error:  # of no common type
            raise DaukitError(f"onnxruntime fails on images {list(images.shape)}: {_reason(error)}") from None
        return [torch.from_numpy(output) for output in outputs]

    def difference(self, images: Tensor, expected: Any) -> float:
        """Largest difference of its outputs from those that a network returned, as a share of the largest of these.

        Raises:
            DaukitError: it fails on such images, or has other outputs.
        """
        leaves = [leaf for leaf in tree_leaves(expected) if isinstance(leaf, Tensor)]
        outputs = self(images)
        if [output.shape for output in outputs] != [leaf.shape for leaf in leaves]:
            shapes = f"{[list(o.shape) for o in outputs]}, the network's {[list(leaf.shape) for leaf in leaves]}"
            raise DaukitError(f"onnxruntime's outputs have the shapes {shapes}")
        worst = 0.0
        for output, leaf in zip(outputs, leaves, strict=True):
            largest = float(leaf.abs().max()) if leaf.numel() else 0.0
            gap = float((output - leaf.to(output.dtype)).abs().max()) if leaf.numel() else 0.0
            worst = max(worst, gap / largest if largest else gap)
        return worst


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
