"""Convolutions under the masks of torch's pruning, as plain ones with the weights that the masks leave."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from daukit.models.running import evaluating


@torch.no_grad()
def without_masks(module: nn.Module) -> nn.Module:
    """A plain copy of a pruned module, with zeros where its masks are; ``module`` itself where it has no masks.

    Masks are those of ``torch.nn.utils.prune``, and parametrisations whose values are those of the parameter or zero.
    Whatever else the module has, as other hooks, its copy has too.
    """
    hooks = module._forward_pre_hooks.items()
    masks = {key: hook for key, hook in hooks if isinstance(hook, prune.BasePruningMethod)}
    values = {mask._tensor_name: mask.apply_mask(module) for mask in masks.values()} | _masked(module)
    if not values:
        return module
    is_plain = _chains(module).keys() <= values.keys()
    # A copy by hand: torch's ways back would change the class that a parametrised module and its deep copies share.
    kind = parametrize.type_before_parametrizations(module) if is_plain else type(module)
    plain: nn.Module = nn.Module.__new__(kind)
    vars(plain).update(vars(module))
    plain._forward_pre_hooks = OrderedDict((key, hook) for key, hook in hooks if key not in masks)
    plain._parameters = {key: one for key, one in module._parameters.items() if key.removesuffix("_orig") not in values}
    plain._buffers = {key: one for key, one in module._buffers.items() if key.removesuffix("_mask") not in values}
    plain._modules = {key: one for key, one in module._modules.items() if not (is_plain and key == "parametrizations")}
    for name, value in values.items():
        vars(plain).pop(name, None)
        plain._parameters[name] = nn.Parameter(value, requires_grad=_learns(module, name))
    return plain


def _chains(module: nn.Module) -> dict[str, nn.Module]:
    """The parametrisations of a module by tensor."""
    if not parametrize.is_parametrized(module):
        return {}
    assert isinstance(module.parametrizations, nn.ModuleDict)
    return dict(module.parametrizations.items())


def _masked(module: nn.Module) -> dict[str, Tensor]:
    """The parametrised tensors of ``module`` whose values are those of the parameter or zero."""
    with evaluating(module):  # some parametrisations change themselves when they are read in training
        values = {name: getattr(module, name) for name in _chains(module)}
    return {name: values[name] for name, chain in _chains(module).items() if _is_mask(values[name], _original(chain))}


def _original(chain: nn.Module) -> Tensor | None:
    return chain._parameters.get("original")  # several tensors would be original0, original1


def _is_mask(value: Tensor, original: Tensor | None) -> bool:
    if original is None or value.shape != original.shape:
        return False
    return bool(((value == original) | (value == 0)).all())


def _learns(module: nn.Module, name: str) -> bool:
    chain = _chains(module).get(name)
    original = module._parameters.get(f"{name}_orig") if chain is None else _original(chain)
    return original is not None and original.requires_grad
