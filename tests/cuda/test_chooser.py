"""The choice of a launch: arithmetic on shapes, for cards that need not be there."""

import itertools
import math

import pytest

from daukit.errors import CudaError
from daukit.ops.cuda.chooser import (
    BACKWARD,
    BACKWARD_EXACT,
    BACKWARD_WEIGHTS,
    FORWARD,
    GRID_LIMIT,
    Gpu,
    Work,
    channel_blocks,
    choose,
    strips_of_block,
    unit_clocks,
)
from daukit.ops.cuda.tiles import Tile

H100 = Gpu(90, 132, 232448, 233472)
CARDS = {
    "T4": Gpu(75, 40, 65536, 65536),
    "A100": Gpu(80, 108, 166912, 167936),
    "RTX 3090": Gpu(86, 82, 101376, 102400),
    "H100": H100,
    "RTX 5090": Gpu(120, 170, 101376, 102400),
}
SHAPES = {
    "small batch": (8, 96, 96, 32),
    "large batch, 32x32": (64, 96, 96, 32),
    "large batch, 14x14": (64, 256, 256, 14),
    "large batch, 7x7": (128, 512, 512, 7),
    "large batch, 56x56": (16, 64, 64, 56),
}


BACKWARDS = BACKWARD, BACKWARD_EXACT, BACKWARD_WEIGHTS


def work(batch, inputs, outputs, size, units=2, stride=(1, 1), limit=4, groups=1):
    return Work(batch, inputs // groups, outputs // groups, groups, size, size, units, stride, limit)


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize("name", SHAPES)
def test_the_model_predicts_45_percent_everywhere_and_55_at_a_large_batch(name, units):
    choice = choose(FORWARD, work(*SHAPES[name], units=units), H100)
    assert choice.effective >= (0.55 if name.startswith("large") else 0.45)


def test_effective_is_the_ideal_time_over_the_predicted_one():
    # One clock for 32 unit-pixels and multiprocessor at 128 fused multiply-adds a clock: 4 of them a unit-pixel.
    choice = choose(FORWARD, work(64, 96, 96, 32), H100)
    ideal = 64 * 96 * 96 * 32 * 32 * 2 / 32 / 132
    assert math.isclose(choice.effective, ideal / choice.clocks, rel_tol=1e-12)


def test_the_unit_loops_clocks_are_those_of_its_slowest_pipeline():
    # 8x8 outputs read 9x9 words; 81 loads and one parameter against 200 FMA at 4 warps a clock, or 2 (64 lanes).
    tile = Tile(8, 8, 4, 4, 16)
    assert unit_clocks(FORWARD, tile, 128) == 82
    assert unit_clocks(FORWARD, tile, 64) == 100
    # 8x4 in the backward: 196 FMA, 45 loads and 41 others, 4 issued a clock.
    assert unit_clocks(BACKWARD, Tile(8, 4, 8, 4, 8), 128) == 282 / 4
    assert unit_clocks(BACKWARD, Tile(8, 4, 8, 4, 8), 64) == 98
    # At stride 2 outputs share nothing: four loads and four FMA each.
    assert unit_clocks(FORWARD, Tile(8, 4, 8, 4, 8, stride=(2, 2)), 128) == 4 * 32 + 1


@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS)
def test_every_choice_compiles_and_fits_into_the_card(card):
    gpu = CARDS[card]
    strides, limits = [(1, 1), (2, 1), (3, 2), (4, 4), (16, 8), (32, 32)], [0, 4, 5, 16, 1000]
    for loop, stride, limit in itertools.product((FORWARD, *BACKWARDS), strides, limits):
        for inputs, outputs, groups in ((96, 96, 1), (1, 7, 1), (64, 64, 64)):
            one = work(2, inputs, outputs, 13, stride=stride if loop is FORWARD else (1, 1), limit=limit, groups=groups)
            tile, splits, clocks, effective = choose(loop, one, gpu)
            assert tile.compiles and tile.shared_bytes <= gpu.block_bytes
            assert 1 <= splits <= math.ceil(one.summed / tile.stage_channels)
            assert clocks > 0 and 0 < effective < 1.3


@pytest.mark.slow
def test_a_halo_that_does_not_fit_is_the_next_smaller_one():
    assert choose(FORWARD, work(8, 96, 96, 32, limit=16), H100).tile.halo == 16
    assert choose(FORWARD, work(8, 96, 96, 32, limit=16, stride=(32, 32)), CARDS["T4"]).tile.halo == 4


def test_small_batches_are_split_and_large_ones_are_not():
    assert choose(FORWARD, work(1, 512, 512, 7), H100).splits > 1
    assert choose(FORWARD, work(512, 512, 512, 7), H100).splits == 1


@pytest.mark.parametrize("loop", BACKWARDS)
def test_blocks_go_through_strips_where_that_takes_hardly_longer(loop):
    for gpu in CARDS.values():
        for shape in (*SHAPES.values(), (128, 192, 192, 32), (1, 8, 8, 8)):
            one = work(*shape)
            choice = choose(loop, one, gpu)
            strips, resident = strips_of_block(choice, one, gpu), choice.tile.min_blocks
            channels = channel_blocks(one, choice.tile.warps) * choice.splits
            before = choice.tile.blocks(one.images, one.height, one.width) * channels
            after = math.ceil(choice.tile.blocks(one.images, one.height, one.width) / strips) * channels
            for at_once in range(1, resident + 1):  # shared memory may leave room for fewer
                if at_once * (choice.tile.shared_bytes + 1024) <= gpu.multiprocessor_bytes:
                    places = at_once * gpu.multiprocessors
            assert strips * math.ceil(after / places) <= 1.03 * math.ceil(before / places)
    assert strips_of_block(choose(loop, work(1, 8, 8, 8), H100), work(1, 8, 8, 8), H100) == 1
    large = work(128, 192, 192, 32)
    # 113 MB of sums for the paper's gradient, were they all kept.
    assert strips_of_block(choose(loop, large, H100), large, H100) >= 4


@pytest.mark.parametrize("loop", [FORWARD, *BACKWARDS], ids=["forward", "backward", "exact", "weights"])
def test_a_grid_has_no_more_blocks_of_channels_than_a_card_takes(loop):
    # Eight warps, which are faster for 8 channels, would be right for some group, but not for as many as these.
    many = work(1, 16 * 40_000, 16 * 40_000, 5, groups=40_000)
    tile = choose(loop, many, H100).tile
    assert channel_blocks(many, tile.warps) <= GRID_LIMIT and tile.warps == 16
    with pytest.raises(CudaError, match="no CUDA kernel fits"):
        choose(loop, work(1, 17 * 40_000, 17 * 40_000, 5, groups=40_000), H100)


def test_a_card_without_shared_memory_is_refused_with_what_it_has():
    with pytest.raises(CudaError, match=r"into 1000 bytes of shared memory at stride \(1, 1\)"):
        choose(FORWARD, work(8, 96, 96, 32), Gpu(90, 1, 1000, 1000))


@pytest.mark.parametrize(
    ("tile", "words"),
    [
        # 8 strips of 16 rows by 40 words, one word apart more than their size: their origins are 8 * lane + strip.
        (Tile(8, 8, 4, 4, 16), 8 * 16 * 40 + 7),
        (Tile(7, 7, 4, 4, 16), 4828),
        (Tile(8, 8, 8, 4, 16), None),  # eight tiles, eight words apart: two in each bank
    ],
)
def test_planes_are_those_of_the_layout_search(tile, words):
    assert tile.plane == words
