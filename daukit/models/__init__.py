"""Networks by name. A name and a JSON-able configuration are all that a file needs to rebuild one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from daukit.models.alexnet import alexnet, alexnet_dau
from daukit.models.deeplab import deeplabv3plus, deeplabv3plus_dau
from daukit.models.record import ModelRecord, record_of, set_record
from daukit.models.resnet import resnet50, resnet50_dau, resnet101, resnet101_dau
from daukit.models.shallow import cifar10, cifar10_dau, shallow, shallow_dau
from daukit.models.srn import srn_deblur, srn_deblur_dau
from daukit.texts import did_you_mean

_FACTORIES: tuple[Callable[..., nn.Module], ...] = (
    alexnet, alexnet_dau, cifar10, cifar10_dau, deeplabv3plus, deeplabv3plus_dau, resnet50, resnet50_dau, resnet101,
    resnet101_dau, shallow, shallow_dau, srn_deblur, srn_deblur_dau,
)  # fmt: skip
MODELS: dict[str, Callable[..., nn.Module]] = {factory.__name__: factory for factory in _FACTORIES}


def create_model(name: str, **config: Any) -> nn.Module:
    """Build the network called ``name``; ``config`` goes to its factory and, later, into its file.

    Raises:
        ValueError: there is no network of that name.
        TypeError: the factory has no such option.
    """
    if not isinstance(name, str):
        raise TypeError(f"create_model takes the name of a network, got {type(name).__name__}")
    if name not in MODELS:
        hint = did_you_mean(name, MODELS)
        raise ValueError(f"there is no model {name!r}{hint} (models: {', '.join(sorted(MODELS))})")
    model = MODELS[name](**config)
    set_record(model, ModelRecord({"name": name, "config": config}))
    return model


__all__ = [
    "MODELS",
    "ModelRecord",
    "alexnet",
    "alexnet_dau",
    "cifar10",
    "cifar10_dau",
    "create_model",
    "deeplabv3plus",
    "deeplabv3plus_dau",
    "record_of",
    "resnet50",
    "resnet50_dau",
    "resnet101",
    "resnet101_dau",
    "set_record",
    "shallow",
    "shallow_dau",
    "srn_deblur",
    "srn_deblur_dau",
]
