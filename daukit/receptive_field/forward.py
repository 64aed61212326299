"""Forward passes as far as some layers: the model as it will be used, and nothing of it changed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from daukit.models.usercode import calling
from daukit.texts import did_you_mean

Visit = Callable[[str, Tensor], None]
"""Called with a layer's name and its output, before the next module can change that in place."""


def find_layers(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The modules of these names.

    Raises:
        ValueError: there are no names, or one that the model does not have.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if not names:
        raise ValueError("name at least one layer")
    for name in names:
        if name not in modules:
            hint = did_you_mean(name, modules)
            raise ValueError(f"the model has no layer {name!r}{hint}")
    return {name: modules[name] for name in names}


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and parameters without gradients inside; as it was outside."""
    modes = [(module, module.training) for module in model.modules()]
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in learned:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode  # one by one: a model may keep some of its modules in another mode


class _Enough(BaseException):
    """Ends a forward pass; no ``Exception``, so that no model can take it for a failure of its own.

    Attributes:
        error: why, where it was not that all layers were reached.
    """

    def __init__(self, error: Exception | None = None):
        super().__init__()
        self.error = error


def run_to_layers(model: nn.Module, layers: Mapping[str, nn.Module], inputs: Tensor, visit: Visit) -> None:
    """Run ``model`` on ``inputs`` until each of ``layers`` has been called once; ``visit`` their first outputs.

    Raises:
        NetworkError: the model's forward fails on such inputs.
        ValueError: a layer is not reached, or its output is no map per input.
    """
    waiting = set(layers)

    def visiting(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if name in waiting:
                waiting.remove(name)
                try:
                    visit(name, _checked(name, output, inputs))
                except Exception as error:
                    raise _Enough(error) from error
            if not waiting:
                raise _Enough

        return hook

    handles = [module.register_forward_hook(visiting(name)) for name, module in layers.items()]
    try:
        with calling(model, inputs):
            model(inputs)
    except _Enough as end:
        if end.error is not None:
            raise end.error from None
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name in layers if name in waiting]
    if missing:
        raise ValueError(f"the model's forward pass did not reach the layers {missing}")


def _checked(name: str, output: Any, inputs: Tensor) -> Tensor:
    if not isinstance(output, Tensor) or output.dim() < 3 or len(output) != len(inputs):
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"layer {name!r} must give maps, as (N, C, h, w), one per input, got {got} for {len(inputs)} inputs"
        )
    if not output.numel():
        raise ValueError(f"layer {name!r} gives {tuple(output.shape)}, which does not depend on the input")
    return output
