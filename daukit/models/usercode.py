"""Code of users: whatever it raises becomes one line that names the network, with the error itself as the cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from daukit.errors import DaukitError, NetworkError
from daukit.models.record import record_of

FAILURES = (Exception, SystemExit)
"""Users' code may raise anything, and a script without a main guard may parse arguments and exit."""


@contextmanager
def reported(network: str, failed: str) -> Iterator[None]:
    """Turn whatever the code inside raises into a ``NetworkError``, whose cause it is.

    Args:
        network: whose code it is: a factory's or a class's name.
        failed: what failed, as ``"its import failed"``.

    Raises:
        NetworkError: the code raised an error, or ended the program.
    """
    try:
        yield
    except DaukitError:
        raise
    except FAILURES as error:
        raise NetworkError(f"{network}: {failed}: {in_one_line(error)}") from error


@contextmanager
def calling(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """As ``reported``, around a forward pass of ``model`` on ``inputs``."""
    with reported(name_of(model), f"its forward failed on {tuple(inputs.shape)}"):
        yield


def name_of(model: nn.Module) -> str:
    """The name of a network in messages: its factory as the user wrote it, or its class."""
    record = record_of(model)
    architecture = {} if record is None else record.architecture
    return str(architecture.get("factory") or architecture.get("name") or type(model).__name__)


def in_one_line(error: BaseException) -> str:
    """An error's type and the first line of what it says."""
    said = str(error).strip()
    return f"{type(error).__name__}: {said.splitlines()[0]}" if said else type(error).__name__
