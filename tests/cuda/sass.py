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
    """An opcode with its suffixes, such as ``LDS.128``, its operands, and the place that a branch goes to."""

    opcode: str
    operands: str
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

    def loops(self) -> list[range]:
        """Every loop: from the target of a branch backwards to the branch."""
        found = []
        for end, instruction in enumerate(self.code):
            start = self.labels.get(instruction.target or "", len(self.code))
            if instruction.name == "BRA" and start <= end:
                found.append(range(start, end + 1))
        return found

    def unit_loops(self) -> list[range]:
        """The loops over units, the shortest first: the innermost ones with three multiply-adds in ten instructions."""
        loops = self.loops()
        dense = [loop for loop in loops if sum(self.code[i].name in FMA for i in loop) > 0.3 * len(loop)]
        inner = [loop for loop in dense if not any(other != loop and _holds(loop, other) for other in dense)]
        return sorted(inner, key=len)

    def around_unit_loops(self) -> tuple[Instruction, ...]:
        """The loop over stages without the loops over units."""
        inner = self.unit_loops()
        return tuple(self.code[i] for i in self.stage_loop() if not any(i in one for one in inner))

    def stage_loop(self) -> range:
        """The loop over stages, which holds a barrier and the loops over units."""
        inner = self.unit_loops()
        outer = [loop for loop in self.loops() if all(_holds(loop, one) for one in inner)]
        return min((loop for loop in outer if any(self.code[i].name == "BAR" for i in loop)), key=len)


def _holds(loop: range, other: range) -> bool:
    return loop.start <= other.start and other.stop <= loop.stop


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
            code[name].append(Instruction(m[1], m[2].strip(), target and target[1]))
    return {k: Kernel(tuple(code[k]), labels[k], resources[k]) for k in code if k in resources}


@cache
def tools() -> Path:
    """The folder of the tools."""
    spec = find_spec("nvidia.cu13")
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "bin"


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([tools() / tool, *arguments], capture_output=True, text=True, check=True).stdout
