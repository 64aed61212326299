"""Replacement of modules: one that does more than its type says must stay, since that would be lost."""

from __future__ import annotations

import inspect

from torch import nn
from torch.nn.utils import parametrize

from daukit.models.structure import replace_module

_HOOKS = (
    "_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks", "_state_dict_pre_hooks",
    "_state_dict_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip
_TENSORS = {"weight", "bias", "mu", "sigma", "unit_ptr", "running_mean", "running_var", "num_batches_tracked"}
"""Tensors that layers, norms and pools hold by themselves."""


def why_kept(module: nn.Module, *kinds: type[nn.Module]) -> str | None:
    """The reason why ``module`` must stay as it is; None where its type and its tensors say everything about it.

    Args:
        module: what may be replaced, or counted on to be what it says.
        kinds: types of which it must be one, exactly; a subclass may compute something else. None: any.
    """
    if parametrize.is_parametrized(module):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        names = " and ".join(module.parametrizations)
        return f"its {names} is parametrised (weight normalisation is one way), and how is not known"
    hooks = [hook for name in _HOOKS for hook in getattr(module, name).values()]
    if hooks:
        # torch's own normalisations and masks are objects, whose class says what they are.
        named = {type(hook).__name__ for hook in hooks if not inspect.isroutine(hook)}
        said = ", ".join(sorted(name for name in named if not name.startswith("_")))
        return f"it has hooks ({said or 'weight normalisation is one'}), and what they do is not known"
    if kinds and type(module) not in kinds:
        base = next((kind.__name__ for kind in kinds if isinstance(module, kind)), None)
        rule = f"a subclass of {base}, which may compute something else" if base else "of another type"
        return f"{type(module).__name__} is {rule}"
    if "forward" in vars(module):
        return "its forward was replaced by another function"
    if type(module) is nn.Sequential:
        return next((reason for child in module if (reason := why_kept(child)) is not None), None)
    own = [name for name in (*module._parameters, *module._buffers, *module._modules) if name not in _TENSORS]
    return f"it holds {', '.join(own)} beside its own tensors" if own else None


def replace_everywhere(model: nn.Module, name: str, module: nn.Module) -> list[str]:
    """``replace_module`` under every name of the module that is called ``name``; return these names."""
    former = model.get_submodule(name)
    names = [alias for alias, one in model.named_modules(remove_duplicate=False) if one is former]
    for alias in names:
        replace_module(model, alias, module)
    return names
