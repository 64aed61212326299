"""List the networks that daukit knows by name."""

from __future__ import annotations

from dataclasses import dataclass

from daukit.models import MODELS
from daukit.models.tables import empty_model, parameter_count, unit_count
from daukit.results import Count


@dataclass(frozen=True, kw_only=True)
class NetworkSummary:
    """A network at its default size.

    Attributes:
        name: the name that --model and ``daukit.create_model`` take.
        units: number of its units.
        parameters: number of all its parameters.
        about: what it is, in one line.
    """

    name: str
    units: Count
    parameters: Count
    about: str


@dataclass(frozen=True, kw_only=True)
class NetworkList:
    """The networks known by name, at their default sizes.

    Attributes:
        models: one entry per network.
    """

    models: tuple[NetworkSummary, ...]


def list_networks() -> NetworkList:
    """List the networks that ``daukit.create_model`` makes, without making their tensors."""
    return NetworkList(models=tuple(_summary(name) for name in MODELS))


def _summary(name: str) -> NetworkSummary:
    model = empty_model(name)
    about = (MODELS[name].__doc__ or "").partition("\n")[0]
    return NetworkSummary(name=name, units=unit_count(model), parameters=parameter_count(model), about=about)
