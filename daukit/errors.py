"""The exceptions that daukit raises for the world outside.

A wrong argument is a ``ValueError`` or a ``TypeError``, as in torch. What a file, a disk, a data set or a GPU does
wrong is a ``DaukitError``, whose message names the file, the rule, the values and the next step. The next step is
told in the language of the caller, by ``in_words_of_caller``.
"""

from collections.abc import Iterator
from contextlib import contextmanager

# A plain global, as a process has one caller: the command line says so once, when it starts.
_caller_is_shell = False


def speak_to_shell(yes: bool = True) -> None:
    """Say whether messages are read by somebody at a shell, who passes options, not by a caller in Python."""
    global _caller_is_shell
    _caller_is_shell = yes


def in_words_of_caller(python: str, shell: str) -> str:
    """Return the caller's own spelling of an argument: ``"overwrite=True"`` in Python, ``"--overwrite"`` at a shell."""
    return shell if _caller_is_shell else python


class DaukitError(Exception):
    """Base of every error that daukit raises about files, data, outputs and GPUs."""


class CheckpointError(DaukitError):
    """A checkpoint cannot be read, or its content is not what its header promises."""


class NetworkError(DaukitError):
    """The code of a network failed while it was imported, built or run; its own error is the cause of this one."""


class DataError(DaukitError):
    """A data set is missing, truncated or of the wrong kind."""


class RecipeError(DaukitError):
    """The recipe of a training cannot be read, or has a key or a value that is none."""


class OutputError(DaukitError):
    """An output file cannot be written, or it exists and was not to be overwritten."""


class CudaError(DaukitError):
    """A CUDA kernel could not be launched."""


class CudaUnavailableError(CudaError):
    """The CUDA kernels cannot be compiled here: a piece is missing, or the GPU is not one that they can run on."""


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Make a wrong value inside an error of the file or network that holds it: one line that begins with its name.

    Raises:
        CheckpointError: in place of a ValueError or NetworkError.
    """
    try:
        yield
    except (ValueError, NetworkError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(reason if source in reason else f"{source}: {reason}") from error
