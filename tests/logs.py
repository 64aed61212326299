"""Logs of trainings that never were."""

from daukit.training import EpochResult
from daukit.training.log import log_bytes
from daukit.training.moves import Moves, UnitMoves


def epoch(number, **layers):
    """The result of an epoch by whose end layers came to (mean, beyond a pixel, at the limit, mean of the epoch)."""
    units = {name: UnitMoves(*values) for name, values in layers.items()}
    moves = Moves(0.5, 0.25, 0.125, 0.25, layers=units) if units else None
    return EpochResult(number, 0.1, 1.0, 1.0, 0.5, 1.0, "accuracy", moves)


def write_log(path, count=3, speed=0.25):
    """A log of two layers, the second twice as fast as the first."""
    results = [
        epoch(n, **{f"conv{i}": (i * n * speed, n / 8, n / 16, i * speed) for i in (1, 2)}) for n in range(1, count + 1)
    ]
    path.write_bytes(log_bytes(results))
    return path
