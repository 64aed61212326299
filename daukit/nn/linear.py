"""A linear layer of units."""

from __future__ import annotations

from torch import Tensor, nn

from daukit.nn.layer import DAUConv2d


class DAULinear(nn.Module):
    """A DAU layer in the place of an ``nn.Linear``: every vector is a map of one pixel.

    Maps (..., in_features) to (..., out_features). It makes sense where most weights are zero:
    ``daukit.substitute(model, sparse=True)`` puts a unit for each of the others. A new layer has one for every weight.

    Args:
        in_features: numbers of a vector of the input.
        out_features: numbers of a vector of the output.
        bias: add a learned bias.

    Attributes:
        dau: the ``DAUConv2d`` that computes, or what stands for it in a baked or prepared network. Only its units at
            displacement 0 read anything.
    """

    dau: nn.Module

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.dau = DAUConv2d(
            in_features, out_features, 1, max_displacement=0.0, sigma=0.0, whole_pixels=True, bias=bias
        )

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features).

        Raises:
            ValueError: the input has another number of features.
        """
        vectors = input.unsqueeze(0).flatten(0, -2)  # (V, C), of a single vector too
        outputs = self.dau(vectors.unsqueeze(-1).unsqueeze(-1))  # (V, O, 1, 1)
        # A tracer's shape can be added to, but not unpacked.
        result: Tensor = outputs.reshape(input.shape[:-1] + (self.out_features,))  # noqa: RUF005
        return result

    def extra_repr(self) -> str:
        """List what ``nn.Linear`` does."""
        return f"in_features={self.in_features}, out_features={self.out_features}"
