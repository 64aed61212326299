"""Time sparse convolutions beside dense ones, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daukit import benchmark
from daukit.benchmark import SPARSE, Quartiles
from daukit.results import Positive, Progress, Share
from daukit.workflows.bench import Machine, Shape, Times

QUICK_SHAPES = ((1, 8, 8, 12),)
QUICK_DENSITIES = (1.0, 0.1)


@dataclass(frozen=True, kw_only=True)
class DensityTimes:
    """Times at one density.

    Attributes:
        density: share of the weights that are not zero.
        times: times by task: "torch", for networks "torch folded" (with batch norms folded), "onnxruntime" and
            "openvino" where they are installed, all of them dense; "sparse", and "prepared" by daukit.prepare.
        ratios: median of each sparse form over that of each dense task.
    """

    density: Share
    times: Times
    ratios: dict[str, dict[str, Positive]]


@dataclass(frozen=True, kw_only=True)
class SparseTimes:
    """Times of a sparse layer or network.

    Attributes:
        name: kind of layer, or the network.
        shape: of a layer, batch, input channels, output channels, and height = width; of a network, that of its input.
        densities: times at each density.
        crossovers: density below which each sparse form is faster than each dense engine, interpolated between those
            measured, and null where it never is.
    """

    name: str
    shape: Shape
    densities: tuple[DensityTimes, ...]
    crossovers: dict[str, dict[str, Share | None]]

    @property
    def engines(self) -> list[str]:
        """The dense tasks, torch first."""
        return list(self.crossovers[SPARSE[0]])


@dataclass(frozen=True, kw_only=True)
class SparseBench:
    """Times of sparse convolutions beside dense ones.

    Attributes:
        machine: where they were measured.
        sparse: one entry per layer and network.
        left_out: engines that are not timed, each with the reason.
    """

    machine: Machine
    sparse: tuple[SparseTimes, ...]
    left_out: tuple[str, ...]


def time_sparse(
    shapes: Sequence[tuple[int, int, int, int]] = (),
    *,
    networks: bool = True,
    quick: bool = False,
    rounds: int = 9,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> SparseBench:
    """Time convolutions and networks at several densities beside their dense forms, interleaved in one run.

    Zeros lie at random; each weight that is left is a unit at a whole pixel, without a blur.

    Args:
        shapes: (batch, in_channels, out_channels, height = width) of the layers; ``benchmark.SHAPES`` if there is none.
        networks: whether to time networks, too.
        quick: take one small shape where none is given, two densities, and small networks.
        rounds: interleaved rounds.
        seed: seed of weights, zeros and images.
        on_progress: called with the share done.
    """
    cases = benchmark.layer_cases(shapes or (QUICK_SHAPES if quick else benchmark.SHAPES))
    cases += benchmark.network_cases(quick) if networks else []
    densities = QUICK_DENSITIES if quick else benchmark.DENSITIES
    measured: list[SparseTimes] = []
    left_out: dict[str, None] = {}
    for case in cases:
        times, without = benchmark.bench_sparse(case, densities=densities, rounds=rounds, seed=seed)
        left_out |= dict.fromkeys(without)
        measured.append(_with_crossovers(case, times))
        if on_progress is not None:
            on_progress(len(measured) / len(cases), f"{case.name} {'x'.join(map(str, case.shape))}")
    return SparseBench(machine=Machine(**benchmark.machine()), sparse=tuple(measured), left_out=tuple(left_out))


def _with_crossovers(case: benchmark.SparseCase, times: dict[float, dict[str, Quartiles]]) -> SparseTimes:
    densities = tuple(DensityTimes(density=d, times=by_task, ratios=_ratios(by_task)) for d, by_task in times.items())
    crossovers: dict[str, dict[str, float | None]] = {
        form: {
            engine: benchmark.crossover({one.density: one.ratios[form][engine] for one in densities})
            for engine in engines
        }
        for form, engines in densities[0].ratios.items()
    }
    return SparseTimes(name=case.name, shape=case.shape, densities=densities, crossovers=crossovers)


def _ratios(times: dict[str, Quartiles]) -> dict[str, dict[str, float]]:
    dense = {name: time for name, time in times.items() if name not in SPARSE}
    return {form: {name: times[form].median / time.median for name, time in dense.items()} for form in SPARSE}
