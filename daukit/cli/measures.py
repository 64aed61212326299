"""What is measured of a network before and after it is changed: accuracy on a data set, and time."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daukit.cli.progress import progress_bar
from daukit.errors import naming

if TYPE_CHECKING:
    from torch import nn

    from daukit.checkpoint import Checkpoint
    from daukit.evaluation import Evaluation

BATCH = 8
"""Images at a time while a network's time is measured."""
ROUNDS = 9


class Accuracy:
    """Evaluates networks on the images of ``--data``. ``networks``: how many there will be, for the progress bar."""

    def __init__(self, data: Path | None, model: str | None, device: str, networks: int) -> None:
        from daukit.data import load_folder

        self.images = None if data is None else load_folder(data, "test")
        self.model, self.device, self.networks, self.done = model, device, networks, 0

    def __call__(self, checkpoint: Checkpoint) -> Evaluation:
        """Evaluate one network."""
        assert self.images is not None  # without images nobody asks
        from daukit.checkpoint import build_model
        from daukit.evaluation import evaluate, preprocessing_of

        network = build_model(checkpoint, model=self.model)
        words = f"accuracy of network {self.done + 1} of {self.networks}"
        with progress_bar(self.networks) as update:
            result = evaluate(
                network, self.images, preprocessing_of(network, str(checkpoint.path)), device=self.device,
                on_batch=lambda done, total: update(self.done + done / total, words),
            )  # fmt: skip
        self.done += 1
        return result


def input_shape(checkpoint: Checkpoint, network: nn.Module, size: tuple[int, int] | None) -> tuple[int, int, int, int]:
    """(BATCH, channels, height, width) of what a network takes.

    Raises:
        CheckpointError: neither ``size`` nor the file tells the height and width, or no layer tells the channels.
    """
    from daukit.errors import CheckpointError
    from daukit.models.inputs import input_channels, known_input_size

    size = size or known_input_size(checkpoint.header.architecture, checkpoint.header.preprocessing)
    if size is None:
        raise CheckpointError(f"{checkpoint.path}: does not tell its network's input size; give it with --size H,W")
    with naming(str(checkpoint.path)):
        return BATCH, input_channels(network, size), *size


def time_networks(
    before: Checkpoint, after: Checkpoint, size: tuple[int, int] | None, *, model: str | None, device: str
) -> dict[str, Any]:
    """Time both networks' forward passes: quartiles in milliseconds, and of what."""
    from daukit.checkpoint import build_model

    networks = {"before": build_model(before, model=model), "after": build_model(after, model=model)}
    shape = input_shape(before, networks["before"], size)
    with naming(str(before.path)):
        return interleave_forward(networks, shape, device)


def interleave_forward(networks: dict[str, nn.Module], shape: tuple[int, ...], device: str) -> dict[str, Any]:
    """Time forward passes on noise, in turn: quartiles in milliseconds by name, and of what.

    Raises:
        NetworkError: a network's forward fails on such an input.
    """
    import torch

    from daukit.benchmark import interleave
    from daukit.models.running import dtype_of
    from daukit.models.usercode import calling

    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)

    def forward(network: nn.Module) -> None:
        with torch.no_grad(), calling(network, images):
            _wait(network(images.to(dtype_of(network))))

    tasks = {name: partial(forward, network.to(device)) for name, network in networks.items()}
    measured = interleave(tasks, ROUNDS)
    return {"input": list(shape), "rounds": ROUNDS, **{name: asdict(q) for name, q in measured.items()}}


def _wait(output: Any) -> None:
    """Return when the GPU, if there is one, is done."""
    import torch

    if isinstance(output, torch.Tensor):
        output.cpu()
    elif torch.cuda.is_available():
        torch.cuda.synchronize()
