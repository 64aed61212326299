"""Checkpoints as people save them: which of their entries is the state dict, and what stands before its names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from daukit.errors import CheckpointError, in_words_of_caller
from daukit.limits import in_short

EMA = "ema"
"""The choice that takes averaged weights, by whatever name the file has them."""

_TRAINED = ("state_dict", "model_state_dict", "model", "network", "net", "module", "weights", "params")
_AVERAGED = (
    "state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "model_ema_state_dict", "ema", "params_ema", "shadow",
    "averaged_model", "swa_model", "swa_state_dict", "swa_model_state_dict",
)  # fmt: skip
_COUNT = "n_averaged"  # what torch.optim.swa_utils.AveragedModel keeps beside its tensors
_PREFIXES = ("module", "model", "network", "net", "_orig_mod", "_fabric_module", "_forward_module")
_INNER = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # torch's, anywhere in a name
_DEEPEST = 3


@dataclass(frozen=True)
class StateDict:
    """A state dict, not yet checked.

    Attributes:
        tensors: its entries.
        entry: the file's name for it; "" for one that is not wrapped.
        note: what the caller should know of the choice; "" where there was none.
    """

    tensors: Mapping[object, object]
    entry: str = ""
    note: str = ""


def check_one(path: Path, weights: str | None) -> None:
    """Raise ``CheckpointError`` where one of several sets of weights is asked of a file that has one."""
    if weights is not None:
        how = in_words_of_caller(f"weights={weights!r}", f"--weights {weights}")
        raise CheckpointError(f"{path}: has one set of weights and no choice; drop {how}")


def choose(data: object, weights: str | None, path: Path) -> StateDict:
    """The state dict in what torch.save stored: bare, or under a name of its own.

    Args:
        data: the object.
        weights: ``"ema"`` for averaged weights, or the name of an entry; None: the trained ones, where there are some.
        path: the file, for messages.

    Raises:
        CheckpointError: there is none, there are several of equal right, or none that was asked for.
    """
    if _is_state_dict(data):
        return _bare(data, weights, path)
    found = dict(_entries(data))
    trained = [name for name in _TRAINED if name in found]
    averaged = [name for name in _AVERAGED if name in found]
    if weights is not None:
        name = averaged[0] if weights == EMA and averaged else weights
        if name not in found:
            raise CheckpointError(f"{path}: has no weights {weights!r}; it has {_listed(found, data)}")
        return StateDict(found[name], name)
    take = in_words_of_caller('weights="ema"', "--weights ema")
    if trained:
        other = (
            f"{path}: these are the weights under {trained[0]!r}; {take} takes the averaged ones" if averaged else ""
        )
        return StateDict(found[trained[0]], trained[0], other)
    if averaged:
        return StateDict(found[averaged[0]], averaged[0], f"{path}: these are averaged weights, {averaged[0]!r}")
    if len(found) == 1:
        (only,) = found
        return StateDict(found[only], only)
    step = in_words_of_caller("weights=NAME", "--weights NAME") + " chooses one" if found else "save model.state_dict()"
    raise CheckpointError(f"{path}: does not say which state dict to take; it has {_listed(found, data)}; {step}")


def _bare(data: Any, weights: str | None, path: Path) -> StateDict:
    averaged = isinstance(data.get(_COUNT), Tensor)
    if not (weights == EMA and averaged):
        check_one(path, weights)
    note = f"{path}: these are averaged weights, of torch's AveragedModel" if averaged and weights is None else ""
    return StateDict(data, note=note)


def _listed(found: Mapping[str, object], data: object) -> str:
    if found:
        return f"state dicts under {', '.join(map(repr, found))}"
    if isinstance(data, dict):
        return f"no state dict among {in_short([key if isinstance(key, str) else type(key).__name__ for key in data])}"
    return f"a {type(data).__name__}"


def _entries(data: object) -> Iterator[tuple[str, Mapping[object, object]]]:
    for name, value in data.items() if isinstance(data, dict) else ():
        if isinstance(name, str) and (inner := _inside(value)) is not None:
            yield name, inner


def _inside(value: object, depth: int = 1) -> Mapping[object, object] | None:
    """The state dict that ``value`` is, or has under a known name."""
    if _is_state_dict(value):
        assert isinstance(value, dict)
        return value
    if not isinstance(value, dict) or depth == _DEEPEST:
        return None
    known = (_inside(value[name], depth + 1) for name in (*_TRAINED, *_AVERAGED) if name in value)
    return next((inner for inner in known if inner is not None), None)


def _is_state_dict(value: object) -> bool:
    return isinstance(value, dict) and len(value) > 0 and all(isinstance(tensor, Tensor) for tensor in value.values())


def fitting(tensors: dict[str, Tensor], own: set[str]) -> dict[str, Tensor]:
    """``tensors`` under the names that a network has: without what wrappers of modules put before them.

    Args:
        tensors: by the file's names.
        own: names of the network's tensors.

    Returns:
        The first that has all of ``own``, where prefixes that all names share go one after the other; where none has,
        the one that comes nearest.
    """
    if _COUNT not in own:
        tensors = {name: tensor for name, tensor in tensors.items() if name != _COUNT}
    candidates = list(_stripped(tensors))
    whole = [names for names in candidates if own <= names.keys()]
    return whole[0] if whole else max(candidates, key=lambda names: len(own & names.keys()))


def _stripped(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    yield tensors
    clean = {_without(name): tensor for name, tensor in tensors.items()}
    if len(clean) == len(tensors):
        yield clean
        tensors = clean
    while len(first := {name.partition(".")[0] for name in tensors}) == 1 and first <= set(_PREFIXES):
        tensors = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
        yield tensors


def _without(name: str) -> str:
    for inner in _INNER:
        name = name.replace(inner, "")
    return name
