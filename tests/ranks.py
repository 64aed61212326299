"""What the processes of tests/test_distributed.py do: ``torchrun tests/ranks.py FOLDER CASE...`` does it in several.

Each case is a function of the processes and of a folder for files, and returns tensors by name. The first process
writes them to FOLDER/CASE.safetensors.
"""

import os
import sys
from pathlib import Path

import safetensors.torch
import torch
from idx import toy_folder
from torch import nn

import daukit
from daukit import distributed
from daukit.datasets import Batch, ImageDataset, load_folder
from daukit.evaluation import evaluate
from daukit.models import record_of
from daukit.nn import DAUConv2d
from daukit.preprocessing import Preprocessing
from daukit.tasks import Segmentation, task_of
from daukit.training import RunFiles, TrainingOptions, TrainingStoppedError, train
from daukit.training.normalizing import synchronized
from daukit.training.optimizers import make_optimizer
from daukit.training.stepping import learn

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
IMAGES = 26  # in batches of 8, the last one has fewer images than three processes


def tensors(**values):
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in values.items()}


def new_model(folder, kind="shallow_dau", **config):
    torch.manual_seed(3)
    model = daukit.create_model(
        kind, **{"channels": [2, 2, 3], "units": 2, "num_classes": 4, "input_size": [16, 16], **config}
    )
    record_of(model).preprocessing = load_folder(folder, "train").preprocessing()
    return model


def run(ranks, model, folder, place, *, resume=False, stop=None, **options):
    """Train; return the losses of all steps. Stop, in the last process alone, when it was asked so often."""
    losses, asked = [], iter(range(1, 10**6))
    files = RunFiles(place / "m.safetensors")
    train(
        model, task_of(model), load_folder(folder, "train"), load_folder(folder, "test"),
        TrainingOptions(**{"epochs": 5, "batch_size": 8, "lr": 0.05, "mu_lr_factor": 20.0, **options}),
        resume_path=files.state, log_path=files.log, resume=resume, ranks=ranks,
        on_step=lambda epoch, step, steps, loss: losses.append(loss),
        should_stop=None if stop is None else lambda: next(asked) == stop and ranks.rank == ranks.size - 1,
    )  # fmt: skip
    return losses


CURVES = {
    "sgd": {"mirror": True, "shift": 2, "sync_batch_norm": True, "weight_decay": 0.01, "clip_norm": 0.5},
    "adam": {"optimizer": "adam", "lr": 0.01, "mu_lr": 0.1, "ema": 0.9, "snap_at": 0.4, "sync_batch_norm": True},
}


def curve(ranks, place, name, dtype=torch.float64):
    """The loss of each of 20 steps, and the network in the end."""
    model = new_model(place / "toy").to(dtype)
    made = {"losses": torch.tensor(run(ranks, model, place / "toy", place, **CURVES[name]), dtype=torch.float64)}
    return made | {name: tensor.double() for name, tensor in model.state_dict().items()}


def sgd(ranks, place):
    """A curve in float64."""
    return curve(ranks, place, "sgd")


def adam(ranks, place):
    """Another one."""
    return curve(ranks, place, "adam")


def float32(ranks, place):
    """The first one in float32."""
    return curve(ranks, place, "sgd", torch.float32)


def gradients(ranks, place):
    """A step of a network that segments, where each image has pixels without a class, in one part and in several."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (7, 1, 6, 5), generator=generator, dtype=torch.uint8)
    labels = torch.randint(3, (7, 6, 5), generator=generator, dtype=torch.uint8)
    labels[torch.arange(7)[:, None, None] * 4 > torch.arange(30).reshape(6, 5)] = 255
    labels[6] = 255
    made, task = {}, Segmentation(Preprocessing((0.5,), (0.25,), "gray", (6, 5)))
    for accumulate in (1, 3):
        torch.manual_seed(0)
        model = nn.Sequential(DAUConv2d(1, 2, 2, max_displacement=2.0), nn.Tanh(), nn.Conv2d(2, 3, 1)).double()
        model[1].unused = nn.Linear(2, 2)
        options = TrainingOptions(lr=1.0, batch_size=7, accumulate=accumulate, weight_decay=0.1)
        share = ranks.share(7)
        loss = learn(model, task, make_optimizer(model, options), Batch(images[share], labels[share]), options, ranks)
        made[f"{accumulate} loss"] = loss.double()
        made |= {f"{accumulate} {name}": parameter.detach() for name, parameter in model.named_parameters()}
    return made


def norms(ranks, place):
    """Outputs, gradients and statistics of batch norms: of the whole batch, in shares of which one may be empty."""
    made, generator = {}, torch.Generator().manual_seed(0)
    for images in (2, 7):
        for affine, momentum in ((True, 0.1), (False, None)):
            norm = nn.BatchNorm2d(3, affine=affine, momentum=momentum).double()
            inputs = torch.rand(images, 3, 4, 5, generator=generator, dtype=torch.float64) * 3 + 100
            factors = torch.rand(inputs.shape, generator=generator, dtype=torch.float64)
            share = ranks.share(images)
            leaf = inputs[share].clone().requires_grad_()
            with synchronized(norm, ranks):
                for _ in range(2):
                    outputs = norm(leaf)
                (outputs.sin() * factors[share]).sum().backward()
            assert "forward" not in vars(norm)
            for name, part in (("outputs", outputs.detach()), ("gradients", leaf.grad)):
                whole = torch.zeros_like(inputs)
                whole[share] = part
                made[f"{images} {affine} {name}"] = ranks.add(whole)
            made |= {f"{images} {affine} {name}": ranks.add(p.grad.clone()) for name, p in norm.named_parameters()}
            made |= {f"{images} {affine} {name}": buffer.double() for name, buffer in norm.named_buffers()}
    return made


class Noisy(nn.Module):
    """Draws from torch's own source of chance at each step."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.3, self.training)


def noisy_model(folder):
    model = new_model(folder)
    model.pool1 = nn.Sequential(nn.MaxPool2d(2), Noisy())
    return model


RESUMED = {
    "adam": {"optimizer": "adam", "lr": 0.01, "mu_lr": 0.1, "ema": 0.9, "mirror": True, "shift": 1},
    "sgd": {"accumulate": 2, "precision": "bf16", "snap_at": 0.4, "ema": 0.8},
}


def resumed(ranks, place):
    """The states of runs that nobody stops, of the same runs again, and of those that are stopped twice."""
    folder, made = place / "toy", {}
    for name, options in RESUMED.items():
        for way, stops in (("whole", ()), ("again", ()), ("stopped", (6, 9))):  # amid an epoch, and as it is measured
            files = place / f"{name} {way}"
            files.mkdir(exist_ok=True)
            for number, stop in enumerate((*stops, None)):
                try:
                    run(ranks, noisy_model(folder), folder, files, resume=number > 0, stop=stop, epochs=3, **options)
                    assert stop is None
                except TrainingStoppedError:
                    assert stop is not None
            state = safetensors.torch.load_file(files / "m.resume.safetensors")
            made |= {f"{name} {way} {key}": tensor for key, tensor in state.items()}
    return made


def measured(ranks, place):
    """Figures of networks on data sets whose images do not divide evenly."""
    folder, made = place / "toy", {}
    model = new_model(folder)
    for batch_size in (1, 5, 250):
        calls = []
        result = evaluate(
            model, task_of(model), load_folder(folder, "test"), batch_size=batch_size, ranks=ranks,
            on_batch=lambda done, total, calls=calls: calls.append((done, total)),
        )  # fmt: skip
        assert calls[-1] == (12, 12) and len(calls) == -(-12 // (batch_size * ranks.size))
        made |= tensors(**{f"{batch_size} accuracy": result.accuracy, f"{batch_size} loss": result.loss})
        made |= tensors(**{f"{batch_size} classes": [share or 0 for share in result.class_accuracy]})
    labels = torch.arange(5 * 16 * 16).reshape(5, 16, 16).remainder(7).to(torch.uint8)
    labels[labels > 3] = 255
    images = torch.arange(5 * 256).remainder(251).to(torch.uint8).reshape(5, 1, 16, 16)
    pixels = ImageDataset(images, labels, ("a", "b", "c", "d"))
    task = Segmentation(Preprocessing((0.5,), (0.25,), "gray", (16, 16)))
    torch.manual_seed(1)
    result = evaluate(nn.Conv2d(1, 4, 3, padding=1), task, pixels, batch_size=1, ranks=ranks)
    return made | tensors(iou=result.mean_iou, pixel_loss=result.loss, images=result.images)


FIELDS = {
    "absolute": {"measure": "absolute", "batch_size": 3},
    "probes": {"measure": "squared", "probes": 5, "batch_size": 8, "seed": 4},
    "stable": {"measure": "signed", "until_stable": 0.2, "batch_size": 1},
}


def fields(ranks, place):
    """Effective receptive fields of two layers, with their intervals: more images than groups, and fewer."""
    torch.manual_seed(2)
    model = nn.Sequential(DAUConv2d(1, 3, 2, max_displacement=3.0), nn.Tanh(), nn.Conv2d(3, 4, 3)).double()
    inputs, made = torch.rand(70, 1, 19, 21, dtype=torch.float64), {}
    for name, options in FIELDS.items():
        for images in (5, 70):
            found = daukit.effective_receptive_field(model, ["0", "2"], inputs[:images], ranks=ranks, **options)
            for field in found:
                key, contour = f"{name} {images} {field.name}", field.contours[1]
                made |= {f"{key} map": field.map}
                made |= tensors(**{f"{key} images": field.images, f"{key} interval": contour.radius_interval})
                made |= tensors(**{f"{key} numbers": [contour.reach, contour.radius_error or 0]})
    return made


CASES = (sgd, adam, float32, gradients, norms, resumed, measured, fields)


def toy(place):
    place.mkdir(exist_ok=True)
    return toy_folder(place / "toy", IMAGES, 12)


def threads_of_gloo():
    """How many threads of this process speak with the others."""
    return sum("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))


def main():
    place, names = Path(sys.argv[1]), sys.argv[2:]
    ranks = distributed.ranks_of(os.environ)
    distributed.join(ranks)
    if ranks.is_writer:
        toy(place)
    ranks.wait()
    for case in CASES:
        if case.__name__ in names:
            own = place / case.__name__
            if ranks.is_writer:
                own.mkdir()
                (own / "toy").symlink_to(place / "toy")
            ranks.wait()
            made = case(ranks, own)
            if ranks.is_writer:
                safetensors.torch.save_file({k: v.contiguous() for k, v in made.items()}, own / "made.safetensors")
    assert threads_of_gloo()
    distributed.leave(0)
    assert not threads_of_gloo()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
