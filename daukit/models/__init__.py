"""Networks by name. A name and a JSON-able configuration are all that a file needs to rebuild one."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from torch import nn

from daukit.models.record import ModelRecord, record_of, set_record
from daukit.models.shallow import shallow, shallow_dau

MODELS: dict[str, Callable[..., nn.Module]] = {"shallow": shallow, "shallow_dau": shallow_dau}


def create_model(name: str, **config: Any) -> nn.Module:
    """Build the network called ``name``; ``config`` goes to its factory and, later, into its file.

    Raises:
        ValueError: there is no network of that name.
        TypeError: the factory has no such option.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no model {name!r}{hint} (models: {', '.join(sorted(MODELS))})")
    model = MODELS[name](**config)
    set_record(model, ModelRecord({"name": name, "config": config}))
    return model


__all__ = ["MODELS", "ModelRecord", "create_model", "record_of", "set_record", "shallow", "shallow_dau"]
