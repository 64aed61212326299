"""What the compilers make of the asynchronous copies, which the emulator cannot see: ``make gpu-static``."""

import re

import pytest
from planting import planted
from sass import Kernel, kernels
from static_figures import ARCHITECTURES, INSTANCES

from daukit.ops.cuda import sources
from daukit.ops.cuda.compiler import compile_kernel

BY_NAME = {instance.name: instance for instance in INSTANCES}
NAMES = ("forward 8x4", "backward 4x4")


def compiled(name, architecture, stages=2):
    """One instance of the main kernels, with so many stages."""
    instance = BY_NAME[name]
    macros = {**instance.tile.macros(), **dict(instance.macros), "DAU_STAGES": stages}
    macros["DAU_SHARED_BYTES"] *= 2
    return kernels(compile_kernel(instance.file, macros, architecture))[instance.kernel]


def check(kernel: Kernel, stages: int):
    """The order of a stage: its copies have landed, all threads know it, the next copies begin, windows are read."""
    # The compiler puts loads of nothing to nowhere before some copies.
    loop = [i for i in (kernel.code[i] for i in kernel.stage_loop()) if not i.operands.startswith("RZ")]
    at = {name: [i for i, one in enumerate(loop) if one.name == name] for name in ("DEPBAR", "BAR", "LDGSTS", "LDS")}
    (wait,), (barrier,), copies = at["DEPBAR"], at["BAR"], at["LDGSTS"]
    (end,) = (i for i, one in enumerate(loop) if one.name == "LDGDEPBAR")
    assert wait < barrier < copies[0] < copies[-1] < end < at["LDS"][0]
    left = int(loop[wait].operands.removeprefix("SB0, "), 16)
    assert left == stages - 2, f"a wait leaves {left} groups of {stages - 1}"
    groups = sum(one.name == "LDGDEPBAR" for one in kernel.code)
    assert groups == stages  # all but one before the loop
    for copy in copies:
        assert re.search(r"P\d$", loop[copy].operands), f"{loop[copy].operands} copies what lies outside, too"


@pytest.mark.gputools
@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("architecture", [one for one in ARCHITECTURES if one >= 80])
@pytest.mark.parametrize("name", NAMES)
def test_windows_are_read_when_their_copies_have_landed_for_all(name, architecture, stages):
    check(compiled(name, architecture, stages), stages)


@pytest.mark.gputools
@pytest.mark.parametrize("name", NAMES)
def test_gpus_without_asynchronous_copies_have_a_barrier_before_windows_are_read(name):
    kernel = compiled(name, 75)
    loop = [kernel.code[i].name for i in kernel.stage_loop()]
    assert not {one.name for one in kernel.code} & {"LDGSTS", "DEPBAR"}
    assert loop.index("BAR") < loop.index("STS") and loop.index("BAR") < loop.index("LDS")


PLANTED = {
    "wait for one group less": ('"n"(under_way)', '"n"(under_way + 1)', "a wait leaves 1 groups of 1"),
    "borders copied": ('"r"(bytes)', '"r"(4)', "copies what lies outside"),
    "groups never closed": ("cp.async.commit_group;", "", "not enough values"),
    "nobody waits": ("cp.async.wait_group %0;", "// %0", "not enough values"),
}


@pytest.mark.gputools
@pytest.mark.parametrize("bug", PLANTED)
@pytest.mark.parametrize("name", NAMES)
def test_a_planted_bug_of_an_instruction_is_found(name, bug, tmp_path, monkeypatch):
    old, new, found_by = PLANTED[bug]
    folder = planted(tmp_path, "ptx.cuh", old, new)
    monkeypatch.setattr(sources, "folder", lambda: folder)
    with pytest.raises((AssertionError, ValueError), match=found_by):
        check(compiled(name, 80), 2)


ASM = re.compile(r"\basm\b(.*?);\s*(?:\}|$)", re.MULTILINE | re.DOTALL)


def check_words(text):
    """Each instruction is volatile, and one that makes the compiler's view of memory old says so.

    Compilers of today keep one without outputs, or a load after it, in its place although nothing forbids the move.
    """
    found = ASM.findall(text)
    assert len(found) == text.count("asm")
    for words in found:
        assert words.startswith(" volatile("), f"asm{words} may be dropped or moved"
        assert ("wait" in words) <= (': "memory"' in words), f"asm{words} lets loads pass"


def test_the_compiler_may_neither_drop_nor_move_an_instruction():
    files = {file.name: file.read_text() for file in sources.folder().iterdir() if file.suffix in sources.SUFFIXES}
    check_words(files["ptx.cuh"])
    assert [name for name, text in files.items() if "asm" in text] == ["ptx.cuh"]
    # What only a GPU compiles is those instructions, and whether copies run beside the arithmetic.
    assert {name: text.count("__CUDA") for name, text in files.items() if "__CUDA" in text} == {
        "ptx.cuh": 1,
        "device.cuh": 1,
    }


@pytest.mark.parametrize("instruction", ["wait_group", "commit_group", "cp.async.ca", "red.global.add", "mov.u32"])
def test_a_volatile_that_is_dropped_is_found(instruction):
    words = rf'asm volatile\(("[^"]*{re.escape(instruction)})'
    text, count = re.subn(words, r"asm(\1", (sources.folder() / "ptx.cuh").read_text())
    assert count == 1
    with pytest.raises(AssertionError, match="may be dropped"):
        check_words(text)


def test_a_wait_that_lets_loads_pass_is_found():
    text = (sources.folder() / "ptx.cuh").read_text()
    with pytest.raises(AssertionError, match="lets loads pass"):
        check_words(text.replace(' : "memory"', ""))
