"""Machine code of compiled kernels, as nvdisasm and cuobjdump of the group ``gputools`` print it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

FMA = {"FFMA": 1, "FMUL": 1, "FFMA2": 2}
"""Float32 multiply-adds that a lane issues with each instruction."""

_KERNEL = re.compile(r"\s*\.text\.(\w+):")
_LABEL = re.compile(r"(\.L_x_\w+):")
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)(.*?);")
_TARGET = re.compile(r"\((\.L_x_\w+)\)")
_RESOURCES = re.compile(r"Function (\w+):\s*REG:(\d+)")


@dataclass(frozen=True)
class Instruction:
    """An opcode with its suffixes, such as ``LDS.128``, and the place that a branch goes to."""

    opcode: str
    target: str | None

    @property
    def name(self) -> str:
        """The opcode without suffixes."""
        return self.opcode.partition(".")[0]


@dataclass(frozen=True)
class Kernel:
    """A kernel's instructions in order, where its labels stand, and its registers a thread."""

    code: tuple[Instruction, ...]
    labels: dict[str, int]
    registers: int

    @property
    def spills(self) -> int:
        """Instructions that move registers to and from memory, because there were too few."""
        return sum(i.name in ("LDL", "STL") for i in self.code)

    def loops(self) -> list[tuple[Instruction, ...]]:
        """Every loop: from the target of a branch backwards to the branch."""
        found = []
        for end, instruction in enumerate(self.code):
            start = self.labels.get(instruction.target or "", len(self.code))
            if instruction.name == "BRA" and start <= end:
                found.append(self.code[start : end + 1])
        return found

    def unit_loop(self) -> tuple[Instruction, ...]:
        """The loop over units: the shortest of which multiply-adds are more than three in ten instructions."""
        dense = [loop for loop in self.loops() if sum(i.name in FMA for i in loop) > 0.3 * len(loop)]
        return min(dense, key=len)

    def around_unit_loop(self) -> tuple[Instruction, ...]:
        """The loop over stages, which holds the unit loop, without it."""
        inner = self.unit_loop()
        outer = [loop for loop in self.loops() if len(loop) > len(inner) and inner == _slice_of(loop, inner)]
        stages = list(min(outer, key=len))
        start = next(i for i in range(len(stages)) if tuple(stages[i : i + len(inner)]) == inner)
        return (*stages[:start], *stages[start + len(inner) :])


def _slice_of(loop: tuple[Instruction, ...], inner: tuple[Instruction, ...]) -> tuple[Instruction, ...] | None:
    at = (loop[i : i + len(inner)] for i in range(len(loop) - len(inner) + 1) if loop[i] == inner[0])
    return next((piece for piece in at if piece == inner), None)


def count(code: tuple[Instruction, ...]) -> Counter[str]:
    """Instructions by name."""
    return Counter(i.name for i in code)


def fma(code: tuple[Instruction, ...]) -> int:
    """Float32 multiply-adds."""
    return sum(FMA.get(i.name, 0) for i in code)


def kernels(binary: bytes) -> dict[str, Kernel]:
    """All kernels of a compiled source, by name."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        text = _run("nvdisasm", "-c", "-hex", file.name)
        usage = _RESOURCES.finditer(_run("cuobjdump", "-res-usage", file.name))
    resources = {m[1]: int(m[2]) for m in usage}
    code: dict[str, list[Instruction]] = {}
    labels: dict[str, dict[str, int]] = {}
    name = ""
    for line in text.splitlines():
        if m := _KERNEL.match(line):
            name = m[1]
            code[name], labels[name] = [], {}
        elif name and (m := _LABEL.match(line)):
            labels[name][m[1]] = len(code[name])
        elif name and (m := _INSTRUCTION.match(line)):
            target = _TARGET.search(m[2])
            code[name].append(Instruction(m[1], target and target[1]))
    return {k: Kernel(tuple(code[k]), labels[k], resources[k]) for k in code if k in resources}


@cache
def tools() -> Path:
    """The folder of the tools."""
    spec = find_spec("nvidia.cu13")
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "bin"


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([tools() / tool, *arguments], capture_output=True, text=True, check=True).stdout
