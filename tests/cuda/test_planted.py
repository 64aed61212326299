"""Bugs planted into the kernels, one at a time: each is found, and by what it should be found by."""

from dataclasses import dataclass, field

import pytest
from cases import Case
from emulator.build import NEEDS_COMPILER
from kernels import Kernels, Tile
from planting import planted
from test_kernels import SMALL, Mixed, check, run

pytestmark = [NEEDS_COMPILER, pytest.mark.slow]  # each bug is a build of its own

PLAIN = Case("blocks", batch=2, in_channels=5, out_channels=6, size=(9, 19), displacement=2.0)
WRONG = r"above its bound"  # or NaN, which no bound holds


@dataclass(frozen=True)
class Bug:
    """A replacement in a file of cuda/, the kernel's file that is built, and how the bug is found.

    ``found_by`` is a word of what the test raises, or the name of a count of the checked build.
    """

    name: str
    file: str
    old: str
    new: str
    built: str
    found_by: str = WRONG
    case: Case = PLAIN
    mu_gradient: str = "gaussian"
    how: dict = field(default_factory=dict)


INTEGERS = Case("integers", size=(9, 8), integer=True)
FAR = Case("far", size=(7, 9), displacement=8.0)
WIDE = Case("strided", size=(12, 15), options={"stride": 2})
ROWS = Case("odd", batch=1, in_channels=2, out_channels=3, size=(5, 7))
DILATED = Case("dilated", size=(7, 8), options={"dilation": 3})
MANY = Case("many_blocks", batch=40, in_channels=1, out_channels=1, units=1, size=(5, 4))
MIXED = Mixed("mixed", in_channels=5, out_channels=6, units=3, size=(9, 19))
WHOLE_EDGE = Case("whole_at_the_halo", units=9, size=(9, 8), displacement=4.0, integer=True)
WHOLE_WIDE = Case("whole_strided", size=(12, 15), integer=True, options={"stride": 2})
SEVERAL = Case("strips", batch=7, in_channels=3, out_channels=6, size=(9, 19), displacement=2.0)
AT_ONCE = {"macros": {"DAU_ASYNC_COPIES": 0}}
EDGE = Case("halo", size=(9, 8), units=4, displacement=6.0)

BUGS = [
    Bug("missing barrier", "staging.cuh", "__syncthreads();", "", "forward", "races"),
    Bug("missing wait", "staging.cuh", "wait_group<STAGES - 2>();", "", "backward", "uninitialised"),
    Bug("wait for one group less", "staging.cuh", "STAGES - 2>", "STAGES - 1>", "forward", "uninitialised"),
    Bug("borders copied", "device.cuh", "inside ? 4 : 0", "4", "forward"),
    Bug("borders copied at once", "device.cuh", "inside ? *from : 0.f", "*from", "backward", how=AT_ONCE),
    Bug("copies without a barrier", "staging.cuh", "__syncthreads();", "", "forward", "races", how=AT_ONCE),
    Bug("buffer not advanced", "staging.cuh", "buffer = buffer + 1 == STAGES ? 0 : buffer + 1;", "", "forward"),
    Bug("row off by one", "staging.cuh", "origin.y - HALO + row", "origin.y - HALO + 1 + row", "forward"),
    Bug("column before the window", "staging.cuh", "origin.x - HALO +", "origin.x - HALO - 1 +", "backward"),
    Bug("column mask too wide", "staging.cuh", "(unsigned)width", "(unsigned)width + 1", "forward", case=ROWS),
    Bug("row of another image", "staging.cuh", "(unsigned)y < (unsigned)height", "y >= 0", "forward"),
    Bug(
        "wrong tap",
        "forward.cu",
        "taps[c * STRIDE_X + 1], taps[c * STRIDE_X]",
        "taps[c * STRIDE_X], taps[c * STRIDE_X + 1]",
        "forward",
    ),
    Bug(
        "swapped axes",
        "forward.cu",
        "near_unit(weight[u], mu_y, mu_x, owner",
        "near_unit(weight[u], mu_x, mu_y, owner",
        "forward",
    ),
    Bug(
        "stale list",
        "forward.cu",
        "u++;\n            ptx::keep(u);\n            next = units[u];",
        "next = units[u++];",
        "forward",
    ),
    Bug("list not ended", "backward.cu", "if (u > sizes.units)", "if (u >= sizes.units)", "backward", "unwritten"),
    Bug(
        "store past the row",
        "forward.cu",
        "x + c * columns < width",
        "true",
        "forward",
        "out_of_bounds",
        ROWS,
    ),
    Bug(
        "store past the image",
        "forward.cu",
        "if (y + r * rows >= height) return;",
        "",
        "forward",
        "out_of_bounds",
        ROWS,
    ),
    Bug(
        "wrong column of a stride",
        "forward.cu",
        "lane % STRIP_TILES * COLUMNS * STRIDE_X;",
        "lane % STRIP_TILES * COLUMNS;",
        "forward",
        case=WIDE,
    ),
    Bug("halo test", "cells.cuh", "most = (float)halo", "most = (float)halo + 1.f", "forward", case=EDGE),
    Bug(
        "integer read from the wrong side",
        "cells.cuh",
        "-cell.tap - 1, 1.f - cell.fraction",
        "-cell.tap, cell.fraction",
        "backward",
        case=MIXED,
        mu_gradient="exact",
    ),
    Bug("whole along one axis only", "cells.cuh", "&& floorf(mu_x) == mu_x", "", "forward", case=MIXED),
    Bug(
        "axes of whole units swapped",
        "forward.cu",
        "(int)mu_y, (int)mu_x",
        "(int)mu_x, (int)mu_y",
        "forward",
        case=INTEGERS,
    ),
    Bug(
        "whole units without a stride",
        "forward.cu",
        "at[r * STRIDE_Y * ROW_WORDS",
        "at[r * ROW_WORDS",
        "forward",
        case=WHOLE_WIDE,
    ),
    Bug("run of whole units not ended", "forward.cu", "u < end && next.is_whole()", "u < end", "forward", case=MIXED),
    Bug(
        "run of other units not ended",
        "backward.cu",
        "u < end && !next.is_whole()",
        "u < end",
        "backward",
        case=MIXED,
    ),
    Bug(
        "weight of whole units forgotten",
        "backward.cu",
        "{-1.f, 0.f, weight[u],",
        "{-1.f, 0.f, 1.f,",
        "backward",
        case=INTEGERS,
    ),
    Bug(
        "whole units displaced forwards",
        "backward.cu",
        "-(int)mu_y - WHOLE_TAP",
        "(int)mu_y - WHOLE_TAP",
        "backward",
        case=INTEGERS,
    ),
    Bug(
        "slopes of whole units exchanged",
        "backward.cu",
        "sums.of[2] = fmaf(taps_above[c + 1], tile.maps[0][r][c], sums.of[2]);",
        "sums.of[2] = fmaf(taps_above[c], tile.maps[0][r][c], sums.of[2]);",
        "backward",
        case=INTEGERS,
        mu_gradient="exact",
    ),
    Bug(
        "slope of whole units between other columns",
        "backward.cu",
        "sums.of[1] = fmaf(taps[c], tile",
        "sums.of[1] = fmaf(taps[c + 1], tile",
        "backward",
        case=INTEGERS,
        mu_gradient="exact",
    ),
    Bug(
        "sum over a quarter of the lanes where mu is frozen",
        "backward.cu",
        "SUMS > 1 ? 4 : 16",
        "4",
        "backward",
        case=INTEGERS,
        mu_gradient="none",
    ),
    Bug(
        "far sums without the last map",
        "far.cu",
        "k < MAPS",
        "k < MAPS - 1",
        "far",
        case=FAR,
        mu_gradient="none",
    ),
    Bug(
        "whole units scaled as cells",
        "backward.cu",
        "EXACT || is_whole(mu[u], mu[sizes.units + u])",
        "EXACT",
        "backward",
        case=WHOLE_EDGE,
    ),
    Bug(
        "padding of strips removed",
        "window.cuh",
        "LAYOUT = find_layout()",
        "LAYOUT = {STRIPS, STRIP_WORDS, STRIPS * STRIP_WORDS}",
        "forward",
        "tile origins share a bank",
        how={"tile": Tile(8, 8, 4)},
    ),
    Bug(
        "stores of four where rows are not aligned",
        "forward.cu",
        "columns == 1 && width % 4 == 0",
        "columns == 1",
        "forward",
        "misaligned",
    ),
    Bug("half a warp's mask", "backward.cu", "0xffffffffu, has_bit", "0xffffu, has_bit", "backward", "outside its own"),
    Bug(
        "each half's mask",
        "backward.cu",
        "0xffffffffu, sum, bit",
        "threadIdx.x & 4 ? 0xf0f0f0f0u : 0x0f0f0f0fu, sum, bit",
        "backward",
        "gives nothing",
    ),
    Bug(
        "shuffles of two branches",
        "backward.cu",
        "sum = sum_of_warp(s, has_16, has_8)",
        "sum = has_16 ? sum_of_warp(s, has_16, has_8) : sum_of_warp(s, has_16, has_8)",
        "backward",
        "divergent shuffle",
    ),
    Bug(
        "shuffles of those that store",
        "backward.cu",
        "sum = sum_of_warp(s, has_16, has_8)",
        "sum = stores ? sum_of_warp(s, has_16, has_8) : 0.f",
        "backward",
        "divergent",
    ),
    Bug(
        "shuffles of those that have pixels",
        "far.cu",
        "for (int bit = 16; bit >= 1; bit /= 2) sums",
        "for (int bit = 16; bit >= 1 && sums.of[0] != 0.f; bit /= 2) sums",
        "far",
        "divergent",
        FAR,
    ),
    Bug("dots of the wrong lane", "backward.cu", "lane / 8 % 2 * 2", "lane / 8 % 2", "backward"),
    Bug(
        "window of another channel",
        "backward.cu",
        "tap_offset(transposed.out, cell.y.tap",
        "tap_offset(0, cell.y.tap",
        "backward",
    ),
    Bug(
        "whole units in another channel's window",
        "backward.cu",
        "tap_offset(transposed.out, -(int)mu_y",
        "tap_offset(0, -(int)mu_y",
        "backward",
        case=INTEGERS,
    ),
    Bug("weight of the first tap forgotten", "backward.cu", "sum * scale", "sum", "backward"),
    Bug("sums of the first row only", "backward.cu", "row < (int)blockDim.y", "row < 1", "backward", case=MANY),
    Bug("far units forgotten", "far.cu", "is_far_unit(sizes, mu, u, false)", "false", "far", case=FAR),
    Bug(
        "last part forgotten", "sums.cu", "split < sizes.splits", "split < sizes.splits - 1", "sums", how={"splits": 2}
    ),
    Bug(
        "channel in two parts",
        "staging.cuh",
        "end = begin + most < count",
        "end = begin + most + 1 < count",
        "forward",
        how={"splits": 2},
    ),
    Bug(
        "map over the map before",
        "blur.cu",
        "__syncthreads();  // all have left the rows",
        "// all have left the rows",
        "blur",
        "races",
    ),
    Bug(
        "phase longer than its image",
        "blur.cu",
        "y < height && x < width ? filtered.sums[o] : 0.f",
        "filtered.sums[o]",
        "blur",
        case=DILATED,
    ),
    Bug(
        "strided gradient not unstrided",
        "unstride.cu",
        "y % sizes.stride_y == 0 && x % sizes.stride_x == 0",
        "true",
        "unstride",
        case=WIDE,
    ),
    Bug("taps of another row", "blur.cu", "along_x = pair >> 2 & 3;", "along_x = pair & 3;", "blur"),
    Bug(
        "taps that nobody waits for",
        "blur.cu",
        "__syncthreads();  // all have read",
        "// all have read",
        "blur",
        "races",
    ),
    Bug(
        "strips after strips",
        "backward.cu",
        "__syncthreads();  // all have left the windows",
        "// all have left the windows",
        "backward",
        "races",
        SEVERAL,
        how={"strips": 2},
    ),
    Bug(
        "sums of the last strips alone",
        "backward.cu",
        "ptx::red_add(to, sum)",
        "*to = sum",
        "backward",
        case=SEVERAL,
        how={"strips": 2},
    ),
    Bug(
        "strips of the next block",
        "backward.cu",
        "grid.number += gridDim.x",
        "grid.number += 1",
        "backward",
        case=SEVERAL,
        how={"strips": 2},
    ),
    Bug("groups of one tile", "blur.cu", "PLANES + threadIdx.x / GROUP", "PLANES", "blur"),
    Bug(
        "group beyond the last tile",
        "blur.cu",
        "exists = image < sizes.batch",
        "exists = true",
        "blur",
        "out_of_bounds",
        ROWS,
    ),
    Bug("far pixels of the first chunks", "far.cu", "chunk += gridDim.x", "chunk += planes * chunks", "far", case=FAR),
    Bug("far sums over one warp", "far.cu", "warp < (int)blockDim.x / 32", "warp < 1", "far", case=FAR),
    Bug(
        "far units one after another",
        "far.cu",
        "__syncthreads();  // before the next unit",
        "// before the next unit",
        "far",
        "races",
        FAR,
    ),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug, tmp_path):
    how = {"tile": SMALL, **bug.how, "sources": {bug.built: planted(tmp_path, bug.file, bug.old, bug.new)}}
    if bug.found_by in ("races", "out_of_bounds", "uninitialised", "unwritten"):
        kernels = Kernels(**how, checked=True)
        run(bug.case, kernels, bug.mu_gradient)
        assert any(getattr(report, bug.found_by) for _, report in kernels.reports)
    else:
        with pytest.raises((AssertionError, RuntimeError), match=bug.found_by):
            check(bug.case, Kernels(**how, checked=bug.found_by == "misaligned"), bug.mu_gradient)


@pytest.mark.parametrize("case", {bug.case.name: bug.case for bug in BUGS}.values(), ids=lambda case: case.name)
def test_without_a_bug_the_same_cases_pass(case):
    check(case, Kernels(SMALL), "exact")
