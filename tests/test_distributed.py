"""Several processes that do the work of one: the same shares, losses, figures and states."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import ranks as work
import safetensors.torch
import torch
from ranks import TORCHRUN

from daukit.datasets import ImageDataset
from daukit.distributed import ALONE, Ranks, ranks_of
from daukit.errors import DaukitError
from daukit.training import TrainingOptions, check_shares, read_state
from daukit.training.batches import Batches
from daukit.transforms import MirrorAndShift

FULL = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
NUMBERED = ImageDataset(torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1), torch.arange(10))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_follow_each_other_and_differ_by_one_at_most(size):
    for number in range(12):
        shares = [list(range(number))[Ranks(rank, size).share(number)] for rank in range(size)]
        assert [i for share in shares for i in share] == list(range(number))
        lengths = [len(share) for share in shares]
        assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1


@pytest.mark.parametrize("size", [2, 3])
def test_shares_of_batches_make_the_batches_of_one_process(size):
    """Each image is changed as it would be, whoever reads it; resumed ones too."""
    images = ImageDataset(torch.randint(256, (10, 1, 5, 6), dtype=torch.uint8), torch.arange(10))
    whole, *shared = (
        Batches(images, 4, MirrorAndShift(mirror=True, shift=2), seed=7, ranks=ranks).epoch(1)
        for ranks in (ALONE, *(Ranks(rank, size) for rank in range(size)))
    )
    for batch, *parts in zip(whole, *shared, strict=True):
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)
        assert all(torch.equal(part.random, whole.random) for part in shared)


def test_the_images_of_a_step_are_counted():
    batches = Batches(NUMBERED, 4, MirrorAndShift(), seed=0)
    assert [batches.images(step) for step in range(3)] == [4, 4, 2]
    with pytest.raises(ValueError, match=r"^batch_size \(2\) is divided among 3 processes; give 3 or more$"):
        check_shares(TrainingOptions(batch_size=2), Ranks(0, 3))


def test_torchruns_variables_are_read():
    assert ranks_of({}) == ranks_of({"WORLD_SIZE": "1"}) == ranks_of({"RANK": "3"}) == ALONE
    assert ranks_of(FULL) == Ranks(1, 2, 1)
    assert [Ranks(1, 2, 1).device(name) for name in ("cpu", "cuda", "cuda:0")] == ["cpu", "cuda:1", "cuda:0"]
    assert ALONE.device("cuda") == "cuda"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RANK": None}, "has WORLD_SIZE=2, but no RANK; start daukit with torchrun"),
        ({"MASTER_ADDR": None, "MASTER_PORT": ""}, "has WORLD_SIZE=2, but no MASTER_ADDR and no MASTER_PORT; start"),
        ({"RANK": "2"}, "has RANK=2, which must be below its WORLD_SIZE=2"),
        ({"LOCAL_RANK": "x"}, "has LOCAL_RANK='x', which must be a whole number of at least 0"),
        ({"WORLD_SIZE": "0"}, "has WORLD_SIZE='0', which must be a whole number of at least 1"),
    ],
)
def test_broken_variables_are_one_error(change, words, monkeypatch, daukit_command):
    broken = {name: value for name, value in {**FULL, **change}.items() if value is not None}
    with pytest.raises(DaukitError, match=f"^the environment {re.escape(words)}"):
        ranks_of(broken)
    for name in FULL:
        monkeypatch.delenv(name, raising=False)
    for name, value in broken.items():
        monkeypatch.setenv(name, value)
    done = daukit_command("train", "--data", "x", "-o", "y.safetensors")
    assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1


def test_batches_go_to_a_gpu_from_pinned_memory(monkeypatch):
    asked = []

    def to(tensor, device, non_blocking=False):
        asked.append((device, non_blocking, tensor.dtype))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "to", to)
    batch = NUMBERED.batch(slice(3))
    there = batch.to("cuda:1")
    assert there.images is batch.images and there.targets is batch.targets
    assert asked == [("cuda:1", True, torch.uint8), ("cuda:1", True, torch.int64)]
    batch.to("cpu")
    assert asked[2:] == [("cpu", False, torch.uint8), ("cpu", False, torch.int64)]


def in_processes(number, place, *cases):
    """What the cases return in so many processes, by case."""
    script = str(Path(work.__file__))
    command = [*TORCHRUN, str(number), script, str(place), *cases]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return {case: safetensors.torch.load_file(place / case / "made.safetensors") for case in cases}


def alone(case, place):
    """What the case returns in this process alone."""
    work.toy(place)
    return getattr(work, case)(ALONE, place)


def assert_alike(one, other, tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path):
    """Losses of 20 steps, in float64: batch norms, changes of images, the last batch of an epoch, whole pixels."""
    made, ours = in_processes(2, tmp_path, "sgd")["sgd"], alone("sgd", tmp_path / "alone")
    assert len(ours["losses"]) == 20 and ours["losses"].std() > 0.1
    assert_alike(made, ours, 1e-9)


@pytest.fixture(scope="module", params=[2, 3])
def several(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("ranks")
    return in_processes(request.param, place, *(case.__name__ for case in work.CASES))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["sgd", "adam", "gradients", "norms", "measured", "fields"])
def test_sums_over_processes_are_those_of_one(several, case, tmp_path):
    assert_alike(several[case], alone(case, tmp_path), 1e-9)


@pytest.mark.slow
def test_several_processes_learn_as_one_in_float32(several, tmp_path):
    losses = several["float32"]["losses"], alone("float32", tmp_path)["losses"]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_run_of_several_processes_is_the_same_again_and_after_it_was_stopped(several):
    made = several["resumed"]
    for name in work.RESUMED:
        whole = {key.split(" ", 2)[2]: tensor for key, tensor in made.items() if key.startswith(f"{name} whole ")}
        assert len(whole) > 10
        for way in ("again", "stopped"):
            for key, tensor in whole.items():
                assert torch.equal(made[f"{name} {way} {key}"], tensor), (name, way, key)


@pytest.mark.slow
def test_one_process_goes_on_with_the_state_of_two(tmp_path):
    work.toy(tmp_path)
    place = tmp_path / "ranks"
    place.mkdir()
    in_processes(2, place, "resumed")
    files, folder = place / "resumed" / "adam whole", tmp_path / "toy"
    losses = work.run(ALONE, work.noisy_model(folder), folder, files, resume=True, epochs=4, **work.RESUMED["adam"])
    assert len(losses) == 4 and read_state(files / "m.resume.safetensors").results[-1].epoch == 4
