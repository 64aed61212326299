"""What ``daukit erf`` probes and with what: networks of files and of factories, noise and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from daukit.cli import options
from daukit.errors import CheckpointError, DataError, naming

if TYPE_CHECKING:
    from torch import Tensor, nn

    from daukit.preprocessing import Preprocessing

START_SIZE = (64, 64)
"""Size of the first random inputs where the file does not say what its network is fed."""


@dataclass(frozen=True)
class Network:
    """A network to probe.

    Attributes:
        label: the file, or the factory where there is none, as the user wrote it.
        path: the file.
        module: in eval mode.
        layers: names of the modules to probe.
        trained: True by the file's history; False for initial weights of daukit's own networks; else nobody knows.
        preprocessing: what the file says of the input.
    """

    label: str
    path: Path | None
    module: nn.Module
    layers: list[str]
    trained: bool | None
    preprocessing: Preprocessing | None


def read_network(
    source: str | None,
    model: str | None,
    model_args: Sequence[str] | None,
    device: str,
    seed: int,
    wanted: Sequence[str] | None,
    like: Sequence[str] = (),
    args_option: str = "--model-arg",
    weights: str | None = None,
) -> Network:
    """Build a network; its layers are those ``wanted``, else ``like`` another's if it has them, else the default.

    Args:
        source: a file; None for the initial weights of ``model``.
        model: as ``--model``.
        model_args: as ``--model-arg``.
        device: where to put it.
        seed: of initial weights.
        wanted: names of modules.
        like: the first network's layers.
        args_option: the name of the option that ``model_args`` come from.
        weights: as ``--weights``.
    """
    from daukit.erf import default_layers

    if source is None:
        assert model is not None  # the command asked for one of the two
        if weights is not None:
            raise typer.BadParameter("without a FILE there are no weights to choose", param_hint="--weights")
        network = _initial(model, model_args, seed, args_option)
    else:
        network = _stored(Path(source), model, model_args, weights)
    module = network.module.to(device)
    names = [name for name, _ in module.named_modules() if name]
    shared = list(like) if like and set(like) <= set(names) else []
    layers = options.choose_layers(wanted, names, Path(network.label)) if wanted else shared or default_layers(module)
    if not layers:
        raise CheckpointError(
            f"{network.label}: it has neither DAU layers nor 2-D convolutions; name modules with --layer"
        )
    return Network(network.label, network.path, module, layers, network.trained, network.preprocessing)


def _stored(path: Path, model: str | None, model_args: Sequence[str] | None, weights: str | None) -> Network:
    from daukit.checkpoint import build_model

    checkpoint = options.read_source(path, model, model_args, weights)
    header = checkpoint.header
    trained = True if any(entry["operation"] == "train" for entry in header.history) else None
    return Network(str(path), path, build_model(checkpoint, model=model), [], trained, header.preprocessing)


def _initial(model: str, model_args: Sequence[str] | None, seed: int, args_option: str) -> Network:
    """A network that no file holds, as its factory makes it."""
    import torch

    from daukit.models import MODELS, create_model
    from daukit.models.factory import build_architecture

    config = options.parse_values(model_args, args_option)
    with torch.random.fork_rng(devices=[]), options.building(model, config, args_option):
        torch.manual_seed(seed)
        own = ":" not in model
        module = create_model(model, **config) if own else build_architecture({"factory": model, "config": config})
    return Network(model, None, module.eval(), [], False if model in MODELS else None, None)


def is_file(text: str) -> bool:
    """Whether what was given to ``--compare`` is a file, not a network's name or factory."""
    from daukit.models import MODELS

    return Path(text).exists() or not (text in MODELS or ":" in text)


def needs_model(path: Path) -> bool:
    """Whether a file must be told its network: unless it is a daukit file of one of daukit's own."""
    from daukit.checkpoint import CheckpointFile

    try:
        with CheckpointFile(path) as file:
            return file.header is None or "name" not in file.header.architecture
    except CheckpointError:  # a pickle, a folder, or something that is an error as soon as it is read
        return True


def random_inputs(
    networks: Sequence[Network],
    images: int,
    shape: tuple[int, int] | None,
    seed: int,
    tokens: tuple[int, int] | None = None,
) -> list[Tensor]:
    """Random images of one size for all networks: ``shape``, or the least that fits them all."""
    from daukit.erf import fitting_size
    from daukit.erf import random_inputs as draw

    if shape is None:
        sizes = []
        for network in networks:
            fed = network.preprocessing
            with naming(network.label):
                start = fed.input_size if fed else START_SIZE
                sizes.append(fitting_size(network.module, network.layers, start, seed, tokens))
        shape = max(height for height, _ in sizes), max(width for _, width in sizes)
    inputs = []
    for network in networks:
        with naming(network.label):
            inputs.append(draw(network.module, images, shape, seed))
    return inputs


@dataclass(frozen=True)
class Pictures:
    """What the options say of images.

    Attributes:
        folder: of IDX files or pictures.
        number: how many.
        seed: of their choice.
        shape: (height, width) to give pictures, instead of what the network expects.
        mean, std: by channel, for networks whose file does not say.
    """

    folder: Path
    number: int
    seed: int
    shape: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def load(self, network: Network, device: str) -> Tensor:
        """Images as the network expects them."""
        import torch

        from daukit.data import load_folder
        from daukit.erf.images import load_pictures

        preprocessing = self._preprocessing(network)
        if any(self.folder.glob("t10k-images*")):
            if self.shape is not None:
                raise typer.BadParameter("the images of IDX files have their own size", param_hint="--size")
            pixels = load_folder(self.folder, "test").images
            pixels = pixels[
                torch.randperm(len(pixels), generator=torch.Generator().manual_seed(self.seed))[: self.number]
            ]
        else:
            size = self.shape or preprocessing.input_size
            pixels = load_pictures(self.folder, self.number, size, preprocessing.channel_order, self.seed)
        if len(preprocessing.mean) != pixels.shape[1]:
            channels = f"{len(preprocessing.mean)} channels, those of {self.folder} have {pixels.shape[1]}"
            raise DataError(f"{network.label}: takes images of {channels}; give it others")
        inputs = preprocessing.normalize(pixels.to(device))
        return inputs.to(next((p.dtype for p in network.module.parameters()), inputs.dtype))

    def _preprocessing(self, network: Network) -> Preprocessing:
        from daukit.preprocessing import Preprocessing

        if not self.mean:
            if network.preprocessing is None:
                raise DataError(
                    f"{network.label}: says nothing of how images become its input; give --mean and --std (and --size)"
                )
            return network.preprocessing
        fed = network.preprocessing
        if fed is None and self.shape is None and not any(self.folder.glob("t10k-images*")):
            raise typer.BadParameter(f"{network.label} does not tell its input size", param_hint="--size")
        order = "gray" if len(self.mean) == 1 else fed.channel_order if fed else "rgb"
        return Preprocessing(self.mean, self.std, order, self.shape or (fed.input_size if fed else START_SIZE))
