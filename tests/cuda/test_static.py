"""Gates on what the compilers make of the CUDA kernels, with pinned tools and no GPU: ``make gpu-static``.

They bound speed from above, by the model of ``static_figures.py``. A kernel may pass them all and be slow.
"""

import itertools
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from sass import count, kernels
from static_figures import ARCHITECTURES, INSTANCES, figures, rows
from test_chooser import CARDS, work

from daukit.ops.cuda import sources
from daukit.ops.cuda.call import BLUR_OUTPUTS, BlurTile
from daukit.ops.cuda.chooser import BACKWARD, BACKWARD_EXACT, BACKWARD_WEIGHTS, FORWARD, Gpu, choose, resident_warps
from daukit.ops.cuda.compiler import compile_kernel
from daukit.ops.cuda.passes import FORMS

pytestmark = pytest.mark.gputools
BY_NAME = {instance.name: instance for instance in INSTANCES}
SOURCES = sorted(path.name for path in sources.folder().glob("*.cu"))


class Gate(NamedTuple):
    """The most of each figure: per unit and pixel, and in clocks per 32 unit-pixels at 128 and at 64 lanes."""

    wavefronts: float
    slots: float
    others: int
    staging: int
    clocks: tuple[float, float]


GATES = {
    "forward 8x8": Gate(1.30, 4.60, 12, 100, (1.30, 1.57)),
    "forward 8x4": Gate(1.46, 4.95, 12, 90, (1.46, 1.57)),
    "forward 7x7": Gate(1.35, 4.75, 12, 90, (1.35, 1.58)),
    "forward 7x7, two a strip": Gate(1.35, 4.75, 12, 120, (1.35, 1.58)),
    "forward 4x4": Gate(1.65, 5.65, 12, 65, (1.65, 1.65)),
    "forward 8x8, bfloat16": Gate(1.30, 4.60, 12, 100, (1.30, 1.57)),
    "forward 8x8, halo 8": Gate(1.30, 4.60, 12, 160, (1.30, 1.57)),
    "forward 4x4, stride 2": Gate(4.10, 8.90, 12, 90, (4.10, 4.10)),
    "backward 8x4": Gate(1.70, 9.00, 45, 90, (2.25, 3.10)),
    "backward 4x4": Gate(2.10, 10.50, 45, 70, (2.65, 3.15)),
    "backward exact 8x8": Gate(1.45, 9.20, 45, 150, (2.30, 3.60)),
    "backward exact 8x4": Gate(1.70, 9.90, 45, 90, (2.50, 3.60)),
    "backward, mu frozen 8x8": Gate(1.40, 6.00, 30, 145, (1.50, 2.10)),
    "backward, mu frozen 8x4": Gate(1.65, 6.50, 30, 90, (1.65, 2.10)),
    "forward 8x8, whole": Gate(1.02, 2.25, 12, 100, (1.02, 1.02)),
    "forward 8x4, whole": Gate(1.04, 2.45, 12, 90, (1.04, 1.04)),
    "forward 4x4, stride 2, whole": Gate(1.07, 2.80, 12, 90, (1.07, 1.07)),
    "backward 8x4, whole": Gate(1.26, 6.30, 42, 90, (1.60, 2.00)),
    "backward exact 8x8, whole": Gate(1.40, 5.95, 42, 150, (1.50, 2.00)),
    "backward exact 8x4, whole": Gate(1.65, 6.70, 42, 90, (1.70, 2.00)),
    "backward, mu frozen 8x8, whole": Gate(1.13, 3.50, 30, 145, (1.15, 1.15)),
    "backward, mu frozen 8x4, whole": Gate(1.25, 4.00, 30, 90, (1.25, 1.25)),
}
EFFECTIVE = {2: (0.72, 1.25), 4: (0.74, 1.25)}
"""The least share of the peak, with staging, of the 8x8 forward at so many units, at 128 and at 64 lanes."""


def lanes(architecture):
    return Gpu(architecture, 0, 0, 0).lanes


def products(instance):
    """Multiply-adds of a unit on a tile: three or four an output in the forward, six or seven in the backward.

    On a whole pixel it is one, and in the backward one more for each of the unit's sums, three of the exact gradient's
    four. Without a gradient for mu there is one sum.
    """
    tile, macros = instance.tile, dict(instance.macros)
    pixels = tile.rows * tile.columns
    if instance.kernel == "dau_backward":
        sums = 3 if macros["DAU_MU"] else 1
        return (1 + sums) * pixels if instance.whole else (3 + sums + macros["DAU_EXACT"]) * pixels + tile.columns
    if instance.whole:
        return pixels
    # Neighbours share an interpolated row; with a stride they share nothing.
    return 3 * pixels + tile.columns if tile.stride == (1, 1) else 4 * pixels


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", GATES)
def test_the_unit_loop_and_its_staging_stay_within_their_gates(name, architecture):
    gate, found = GATES[name], figures(BY_NAME[name], architecture)
    # The shape of the loop: were it another, the figures would be of something else.
    assert found.fma == products(BY_NAME[name])
    assert found.wavefronts / found.pixels <= gate.wavefronts
    assert found.instructions / found.pixels <= gate.slots
    assert found.others <= gate.others
    assert found.staging_instructions <= gate.staging
    assert found.clocks() <= gate.clocks[lanes(architecture) == 64]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("units", EFFECTIVE)
def test_the_recommended_tile_may_reach_its_share_of_the_peak_with_staging(units, architecture):
    assert figures(BY_NAME["forward 8x8"], architecture).effective(units) >= EFFECTIVE[units][lanes(architecture) == 64]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", GATES)
def test_registers_suffice_without_spills_for_the_warps_that_the_chooser_counts_on(name, architecture):
    instance, found = BY_NAME[name], figures(BY_NAME[name], architecture)
    macros = dict(instance.macros)
    backward = BACKWARD_EXACT if macros.get("DAU_EXACT") else BACKWARD if macros.get("DAU_MU") else BACKWARD_WEIGHTS
    loop = backward if instance.kernel == "dau_backward" else FORWARD
    warps = resident_warps(loop, instance.tile) // instance.tile.warps * instance.tile.warps
    granted = 8 * -(-found.registers // 8)  # registers are given in steps of 8 a thread
    assert found.spills == 0
    assert warps * 32 * granted <= 65536


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["forward 8x8", "forward 8x4", "forward 4x4"])
def test_tiles_of_fours_are_stored_sixteen_bytes_at_once(name, architecture):
    code = BY_NAME[name].compile(architecture).code
    assert sum(i.name == "STG" and ".128" in i.opcode for i in code) >= BY_NAME[name].tile.rows


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", [file for file in SOURCES if file not in ("forward.cu", "backward.cu")])
@pytest.mark.parametrize("storage", [0, 1, 2])
def test_the_kernels_without_tiles_compile_without_spills(file, storage, architecture):
    compiled = kernels(compile_kernel(file, {"DAU_STORAGE": storage}, architecture))
    declared = re.findall(r"\b(dau_\w+)\(", (sources.folder() / file).read_text())
    assert compiled and set(compiled) == set(declared)
    assert not any(kernel.spills for kernel in compiled.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("radius", "size"), [(0, 32), (1, 32), (2, 14), (3, 14), (3, 7), (9, 32), (30, 32)])
def test_the_blur_reads_each_pixel_once_for_its_outputs_and_spills_nothing(radius, size, architecture):
    tile = BlurTile.of(radius, size)
    compiled = kernels(compile_kernel("blur.cu", {"DAU_STORAGE": 1, **tile.macros()}, architecture))
    assert not any(kernel.spills for kernel in compiled.values())
    if radius == 3:  # what it filters along x and along y, the taps of both, and what makes the taps
        loads = count(compiled["dau_blur"].code)["LDS"]
        assert loads <= 2 * (BLUR_OUTPUTS + 2 * radius) + 2 * (2 * radius + 1) + 10


def test_the_documents_table_is_what_the_command_prints():
    text = (Path(__file__).parents[2] / "docs" / "performance.md").read_text(encoding="utf-8")
    assert "\n".join(rows()) in text


NVCC = [path] if (path := shutil.which("nvcc")) else []


@pytest.mark.parametrize("nvcc", NVCC)
@pytest.mark.parametrize("file", SOURCES)
def test_nvcc_compiles_every_source(file, nvcc, tmp_path):
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    command = [nvcc, "-std=c++17", "-fatbin", "-Werror=all-warnings", *codes, sources.folder() / file]
    done = subprocess.run([*command, "-o", tmp_path / "out"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


CHOSEN_FOR = (
    *((shape, 1) for shape in [(8, 96, 96, 32), (32, 512, 512, 7), (64, 512, 512, 7), (128, 512, 512, 7)]),
    *((shape, 1) for shape in [(64, 256, 256, 14), (16, 64, 64, 56), (1, 64, 64, 28)]),
    *((shape, shape[1]) for shape in [(2, 64, 64, 56), (32, 128, 128, 28), (64, 512, 512, 7)]),
    ((16, 256, 256, 14), 32),
)
"""Layers, and their groups."""

SPILLS = 8
"""Of what the chooser chooses: instructions, in loops that have hundreds. None is the aim."""


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("file", ["forward.cu", "backward.cu"])
def test_what_the_chooser_chooses_compiles_for_its_card_with_hardly_a_spill(file, card):
    gpu, chosen = CARDS[card], set()
    for shape, groups in CHOSEN_FOR:
        if file == "forward.cu":
            for stride, limit in (((1, 1), 4), ((1, 1), 8), ((1, 1), 16), ((2, 2), 4), ((4, 4), 8), ((16, 16), 4)):
                tile = choose(FORWARD, work(*shape, groups=groups, stride=stride, limit=limit), gpu).tile
                chosen.add((tile, ("DAU_STRIDE_Y", stride[0]), ("DAU_STRIDE_X", stride[1])))
        else:
            for form, limit in itertools.product(FORMS.values(), (4, 16)):
                tile = choose(form.loop, work(*shape, groups=groups, limit=limit), gpu).tile
                chosen.add((tile, *form.macros.items()))
    for tile, *macros in chosen:
        for name, kernel in kernels(compile_kernel(file, {**tile.macros(), **dict(macros)}, gpu.capability)).items():
            assert tile.min_blocks * tile.warps * 32 * 8 * -(-kernel.registers // 8) <= 65536
            assert kernel.spills <= (SPILLS if name in ("dau_forward", "dau_backward") else 0), (tile, macros)
