"""Outputs at the far end of an image that a layer leaves out, as a convolution without padding does."""

from __future__ import annotations

from torch import Tensor


def trimmed(output: Tensor, input: Tensor, stride: tuple[int, int], trim: tuple[int, int]) -> Tensor:
    """``output`` without the positions that lie in the last ``trim`` rows and columns of ``input``.

    Args:
        output: (N, O, ceil(H / stride), ceil(W / stride)).
        input: (N, C, H, W).
        stride: of the layer, as (y, x).
        trim: rows and columns of the input.

    Returns:
        (N, O, ceil((H - trim) / stride), ceil((W - trim) / stride)).

    Raises:
        ValueError: nothing of the image would be left.
    """
    if trim == (0, 0):
        return output
    height, width = input.shape[2:]
    if height <= trim[0] or width <= trim[1]:
        raise ValueError(
            f"the input is {height} x {width} pixels, and trim={trim} leaves out the last {trim[0]} rows and {trim[1]} "
            "columns, so that no output is left; give larger images"
        )
    rows, columns = ((size - t + s - 1) // s for size, t, s in zip((height, width), trim, stride, strict=True))
    return output[:, :, :rows, :columns].contiguous()  # as a convolution's output is, for code that calls view()
