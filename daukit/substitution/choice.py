"""The layers of a network that a DAU layer can stand for, and the reasons against the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.lazy import LazyModuleMixin

from daukit.limits import MAX_CHANNELS
from daukit.models.replacing import why_kept
from daukit.ops.checks import pair
from daukit.substitution.masks import without_masks
from daukit.substitution.taps import why_no_units, why_no_values
from daukit.texts import did_you_mean

Where = str | Sequence[str] | Callable[[str, nn.Module], bool] | None
"""A name pattern as ``"layer3.*.conv2"``, several of them, or a predicate of (name, module); None: all convolutions."""

KernelSize = int | tuple[int, int] | None
"""Side of a square kernel, or (height, width); None: any but 1x1."""


@dataclass(frozen=True)
class SkippedLayer:
    """A layer that was chosen but cannot be replaced.

    Attributes:
        name: the layer's name in the network.
        reason: why it stays as it is.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """Layers to replace.

    Attributes:
        convolutions: by their first name, in the network's order.
        linear: linear layers, likewise.
        names: all names of each of them, for a module that a network uses in several places.
        skipped: the others, with the reason.
    """

    convolutions: dict[str, nn.Conv2d]
    linear: dict[str, nn.Linear]
    names: dict[str, list[str]]
    skipped: tuple[SkippedLayer, ...]


def choose_convolutions(
    model: nn.Module, where: Where = None, kernel_size: KernelSize = None, *, sparse: bool = False
) -> Choice:
    """The layers of ``model`` that are meant, and those of them that cannot be replaced.

    Args:
        model: any network.
        where: names or a predicate.
        kernel_size: of the convolutions; None: any but 1x1, with ``sparse`` any, and linear layers.
        sparse: their weights are to become units at whole pixels, and they may be under masks.

    Raises:
        ValueError: a pattern or the kernel size matches no layer.
    """
    names: dict[int, list[str]] = {}
    modules: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, _ConvNd) or (sparse and (isinstance(module, nn.Linear) or _is_quantised(module))):
            names.setdefault(id(module), []).append(name)
            if names[id(module)] == [name]:
                modules[name] = module
    aliases = {name: names[id(module)] for name, module in modules.items()}
    meant = _of_size(_named(modules, aliases, where, sparse), kernel_size)
    owners = Counter(id(parameter) for module in model.modules() for parameter in module._parameters.values())
    choice = Choice({}, {}, aliases, ())
    skipped = []
    for name, module in meant.items():
        reason = _reason(name, module, kernel_size, owners, sparse=sparse)
        if reason is None and isinstance(module, nn.Linear):
            reason = _why_linear(model, aliases[name])
        if reason is not None:
            skipped.append(SkippedLayer(name, reason))
        elif isinstance(module, nn.Conv2d):
            choice.convolutions[name] = module
        elif isinstance(module, nn.Linear):
            choice.linear[name] = module
    return replace(choice, skipped=tuple(skipped))


def _named(
    modules: dict[str, nn.Module], aliases: dict[str, list[str]], where: Where, sparse: bool
) -> dict[str, nn.Module]:
    if where is None:
        return modules
    if callable(where):
        return {name: module for name, module in modules.items() if where(name, module)}
    patterns = [where] if isinstance(where, str) else list(where)
    every = [alias for name in modules for alias in aliases[name]]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in every):
            raise ValueError(_no_match(pattern, every, "layer" if sparse else "convolution"))
    return {
        name: module
        for name, module in modules.items()
        if any(fnmatchcase(alias, pattern) for alias in aliases[name] for pattern in patterns)
    }


def _no_match(pattern: str, names: list[str], kind: str) -> str:
    if not names:
        return f"where={pattern!r} matches nothing: the network has no {kind}s"
    inside = f"{pattern}.*"
    meant = any(fnmatchcase(name, inside) for name in names)
    hint = f"; did you mean {inside!r}?" if meant else did_you_mean(pattern, names)
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"where={pattern!r} matches no {kind}{hint} ({kind}s: {shown})"


def _of_size(modules: dict[str, nn.Module], kernel_size: KernelSize) -> dict[str, nn.Module]:
    if kernel_size is None:
        return modules
    size = pair("kernel_size", kernel_size)
    kernels = {name: module.kernel_size for name, module in modules.items() if isinstance(module, _ConvNd)}
    found = {name: modules[name] for name, kernel in kernels.items() if tuple(kernel) == size}
    if not found:
        sizes = sorted({"x".join(map(str, kernel)) for kernel in kernels.values()})
        there = f"the sizes are {', '.join(sizes)}" if sizes else "there are no convolutions to choose from"
        raise ValueError(f"no convolution has kernel_size {size[0]}x{size[1]}; {there}")
    return found


def _is_quantised(module: nn.Module) -> bool:
    """Tell torch's quantised layers, which are no relatives of the others."""
    kind = type(module)
    return kind.__module__.startswith("torch.ao.nn") and ("Conv" in kind.__name__ or "Linear" in kind.__name__)


def _reason(name: str, module: nn.Module, kernel_size: KernelSize, owners: Counter[int], *, sparse: bool) -> str | None:
    """The reason why no DAU layer can stand for ``module``; None where one can."""
    kind = type(module).__name__
    if name == "":
        return "it is the whole model, which cannot replace itself; put it into an nn.Sequential"
    if isinstance(module, _ConvTransposeNd):
        return f"{kind} is a transposed convolution"
    if not isinstance(module, (_ConvNd, nn.Linear)):
        return "its weights are quantised"
    if not isinstance(module, (nn.Conv2d, nn.Linear)):
        return f"{kind} is not a two-dimensional convolution"
    if isinstance(module, LazyModuleMixin):
        return "it has no weights before its first call"
    plain = without_masks(module) if sparse else module
    if (kept := why_kept(plain, nn.Conv2d, nn.Linear)) is not None:
        return kept
    if any(owners[id(parameter)] > 1 for key, parameter in module.named_parameters() if "weight" in key):
        return "its weight is shared with another module"
    assert isinstance(plain, (nn.Conv2d, nn.Linear))
    if sparse:
        return why_no_values(plain.weight) or (why_no_units(plain) if isinstance(plain, nn.Conv2d) else None)
    assert isinstance(plain, nn.Conv2d)
    return _window_reason(plain, kernel_size)


def _why_linear(model: nn.Module, names: list[str]) -> str | None:
    """The reason why what has these ``names`` must be an ``nn.Linear``, or cannot be channels of a layer."""
    linear = model.get_submodule(names[0])
    assert isinstance(linear, nn.Linear)
    most = max(linear.in_features, linear.out_features)
    if most > MAX_CHANNELS:
        return f"it has {most:,} features, and a DAU layer at most {MAX_CHANNELS:,} channels"
    for name in names:
        parent = model.get_submodule(name.rpartition(".")[0])
        if isinstance(parent, nn.TransformerEncoderLayer):
            return f"a {type(parent).__name__} reads its weight itself"
    return None


def _window_reason(conv: nn.Conv2d, kernel_size: KernelSize) -> str | None:
    height, width = conv.kernel_size
    if (height, width) == (1, 1) and kernel_size is None:
        return "its kernel is 1x1; ask for it by kernel_size=1"
    if height % 2 == 0 or width % 2 == 0:
        return f"its kernel is even ({height}x{width}), so it has no centre"
    same = tuple(d * (k - 1) // 2 for k, d in zip(conv.kernel_size, conv.dilation, strict=True))
    padding = {"same": same, "valid": (0, 0)}[conv.padding] if isinstance(conv.padding, str) else tuple(conv.padding)
    if padding != same:
        return f"its padding is {padding}, not dilation * (kernel_size - 1) / 2 = {same}, which keeps the map's size"
    if conv.padding_mode != "zeros" and same != (0, 0):
        return f"it pads by {conv.padding_mode!r}, where a DAU layer reads zeros"
    return None
