"""The text that names a network: a name of ``daukit.models``, ``"package.module:factory"`` or ``"file.py:factory"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Architecture = dict[str, Any]
"""A network as a file names it: ``{"name", "config"}`` of daukit's own, ``{"factory", "config"}`` of a user's."""

FORMS = "write package.module:function or file.py:function"


def is_factory(spec: str) -> bool:
    """Tell a factory of a user's from a name of ``daukit.models``."""
    return ":" in spec


def split_factory(spec: str) -> tuple[str, str]:
    """The module or file of a factory, and its function; the module is empty where ``spec`` is no factory."""
    source, _, name = spec.rpartition(":")
    return source, name


def architecture_of(spec: str, config: Mapping[str, Any] | None = None) -> Architecture:
    """The architecture of the network called ``spec``, with the options ``config``."""
    return {"factory" if is_factory(spec) else "name": spec, "config": dict(config or {})}
