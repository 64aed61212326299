"""What onnxruntime makes of an ONNX file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from daukit.errors import DaukitError
from daukit.export.onnx import check_installed
from daukit.models.running import output_difference


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
        """Largest difference of its outputs from what a network returned, as ``output_difference``.

        Raises:
            DaukitError: it fails on such images.
        """
        return output_difference(expected, self(images))


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
