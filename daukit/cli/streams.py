"""The two streams of a command, safe to use on a terminal, a file, a full disk, or nothing."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from daukit.errors import OutputError
from daukit.texts import visible


def prepare() -> None:
    """Make stdin, stdout and stderr safe to use; ``main`` calls it before anything is opened.

    A descriptor that the caller closed is put on the null device, or the next file that is opened would get its number
    and, inside it, what was meant for the stream. What the encoding of a stream lacks is escaped.
    """
    codecs.register_error("daukit", _encode)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number, which is this one
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: PTH123  # open to the end, as the real one
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="daukit")


def write_results(text: str) -> None:
    """Write to stdout; failures are raised as by ``guarded``."""
    with guarded():
        sys.stdout.write(text)


def finish() -> None:
    """Flush the results that Python still buffers."""
    with guarded():
        sys.stdout.flush()


@contextmanager
def guarded() -> Iterator[None]:
    """Turn failures of stdout inside into errors with a sentence.

    Raises:
        OutputError: stdout takes no more.
        SystemExit: the reader of a pipe is gone, which needs no sentence.
    """
    try:
        yield
    except BrokenPipeError:
        _discard(sys.stdout)
        raise SystemExit(1) from None
    except OSError as error:
        _discard(sys.stdout)
        message = f"stdout: the results cannot be written: {error.strerror}; write them elsewhere, and try again"
        raise OutputError(message) from None


def write_message(text: str) -> None:
    """Write to stderr; a message that cannot be written is no reason to fail."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def is_terminal() -> bool:
    """True where stdout is a terminal."""
    return sys.stdout.isatty()


def as_answer(text: str) -> str:
    """``text`` as it is for scripts; for a terminal, without characters that a terminal obeys."""
    return visible(text) if is_terminal() else text


def _discard(stream: object) -> None:
    """Discard what a stream still buffers, or Python would try again, and complain, when it exits."""
    if isinstance(stream, io.TextIOWrapper):
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except io.UnsupportedOperation:  # it is no file, but one that a test stands in for it
            return


def _encode(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes of a path as they were, and an escape for a letter that the encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    letter = error.object[error.start]
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        return bytes([code - 0xDC00]), error.start + 1
    return letter.encode("ascii", "backslashreplace"), error.start + 1
