"""Models in the wrappers that torch puts around them."""

from __future__ import annotations

from torch import nn

_WRAPPED = {"OptimizedModule": "_orig_mod", "AveragedModel": "module"}
"""Attributes that hold the model in wrappers of ``torch.compile`` and ``torch.optim.swa_utils``, slow to import."""


def unwrapped(model: object, what: str) -> nn.Module:
    """The model itself where it is compiled, averaged, or made parallel.

    Args:
        model: what a caller gave.
        what: who takes it, for the error's sentence.

    Raises:
        TypeError: it is no ``torch.nn.Module``.
    """
    if not isinstance(model, nn.Module):
        given = "the class, not an instance of it" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"{what} takes a model (torch.nn.Module), got {given}")
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    name = "module" if isinstance(model, parallel) else _WRAPPED.get(type(model).__name__, "")
    inner = model._modules.get(name)
    return model if inner is None else unwrapped(inner, what)
