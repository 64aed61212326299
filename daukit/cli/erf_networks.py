"""The networks that options of ``daukit erf`` name: files, and names or factories without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from daukit.cli import options

if TYPE_CHECKING:
    from daukit.workflows.erf_networks import ProbedNetwork


def read_networks(
    source: Path | None,
    *,
    model: str | None,
    model_args: Sequence[str] | None,
    weights: str | None,
    compare: Sequence[str],
    compare_models: Sequence[str],
    compare_model_args: Sequence[str] | None,
    wanted: Sequence[str],
    device: str,
    seed: int,
) -> list[ProbedNetwork]:
    """Build FILE's network and those of --compare, with the layers to probe; arguments are the options' values."""
    from daukit.workflows.erf_networks import check_comparable

    if source is None:
        assert model is not None  # the command asked for one of the two
        first = _initial(model, model_args, "--model-arg", device, seed)
    else:
        first = _stored(source, model, model_args, weights, device)
    networks = [first.probing(wanted)]
    for text, named in zip(compare, _models_of(compare, compare_models), strict=True):
        args = None if named is None else compare_model_args
        if _is_file(text):
            other = _stored(Path(text), named, args, None, device)
        else:
            other = _initial(text, args, "--compare-model-arg", device, seed)
        networks.append(other.probing(wanted, like=networks[0].layers))
        with options.usage_of("--layer"):
            check_comparable(networks)
    return networks


def _models_of(compare: Sequence[str], models: Sequence[str]) -> list[str | None]:
    """The network of every OTHER, as for --model: of state dicts by --compare-model; None for a file that states it."""
    nameless = [text for text in compare if _is_file(text) and options.needs_model(Path(text))]
    if not nameless and all(_is_file(text) for text in compare):
        options.refuse_unused("no network of --compare takes options; drop it", "--compare-model-arg")
    if models and not (nameless and len(models) in (1, len(nameless))):
        many = f"{len(models)} networks for {len(nameless)} files of --compare that do not name theirs"
        raise typer.BadParameter(f"{many}; give one for all, or one for each", param_hint="--compare-model")
    named: list[str | None] = [*models] or [None]
    turn = iter(named if len(named) > 1 else named * len(nameless))
    return [next(turn) if text in nameless else None if _is_file(text) else text for text in compare]


def _stored(
    path: Path, model: str | None, model_args: Sequence[str] | None, weights: str | None, device: str
) -> ProbedNetwork:
    from daukit.workflows.erf_networks import stored_network

    checkpoint = options.read_source(path, model, model_args, weights)
    # Called as on the command line, also where that is a folder.
    return replace(stored_network(checkpoint, model=model, device=device), label=str(path), path=path)


def _initial(model: str, model_args: Sequence[str] | None, args_option: str, device: str, seed: int) -> ProbedNetwork:
    from daukit.workflows.erf_networks import initial_network

    config = options.parse_values(model_args, args_option)
    with options.building(model, config, args_option):
        return initial_network(model, config, seed=seed, device=device)


def _is_file(text: str) -> bool:
    """Check that a value of --compare is a file, and no network's name or factory."""
    from daukit.models import MODELS
    from daukit.models.specs import is_factory

    return Path(text).exists() or not (text in MODELS or is_factory(text))
