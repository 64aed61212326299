"""Tell the C library what to do with freed memory: give it back to the system, or keep it for the next step."""

from __future__ import annotations

import ctypes

# glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Let glibc's malloc keep what it frees. Other C libraries are left as they are.

    By default every large tensor is a mapping of its own: the system takes it back when it is freed and clears the
    pages of the next one, a good part of the time of a training step. The price is that a process keeps the most that
    it ever held at once.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**28)):
        mallopt(option, value)
