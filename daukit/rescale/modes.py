"""The choices of a rescale: its mode, and the padding of heads."""

from __future__ import annotations

from typing import Literal

Mode = Literal["paper", "exact"]
MODES: tuple[Mode, ...] = ("paper", "exact")
HeadPadding = Literal["valid", "same"]
HEAD_PADDINGS: tuple[HeadPadding, ...] = ("valid", "same")


def check_mode(mode: str) -> None:
    """Raise ``ValueError`` for an unknown mode."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")


def check_head_padding(head_padding: str) -> None:
    """Raise ``ValueError`` for an unknown padding of heads."""
    if head_padding not in HEAD_PADDINGS:
        raise ValueError(f"head_padding must be one of {', '.join(HEAD_PADDINGS)}, got {head_padding!r}")
