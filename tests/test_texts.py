"""Text that daukit did not write: encodings, and JSON within bounds."""

import csv
import io
import os
import unicodedata
from pathlib import Path

import pytest

from daukit.errors import CheckpointError, DataError
from daukit.texts import MAX_DEPTH, csv_text, did_you_mean, parse_json, read_lines, read_text, visible

HERE = Path("x.json")


@pytest.mark.parametrize(
    "text, value",
    [
        ('{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("1e308", 1e308),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, None),
    ],
)
def test_json_within_bounds_is_read(text, value):
    assert parse_json(text, HERE) == value or value is None


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("NaN", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ("1e309", "1e309 is too large"),
        ("9223372036854775808", "more than 64 bits"),
        ("1" + "0" * 5000, "more than 64 bits"),
        ('{"a": 1, "a": 2}', "key 'a' is said twice"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nests deeper"),
        ("[" * 100_000, "nests deeper"),
        ('{"a":' * 100_000, "nests deeper"),
        (b'{"a": "\xff"}', "is not JSON"),
        ('["\\ud800"]', "surrogates not allowed"),
        ('{"\\udfff": 1}', "surrogates not allowed"),
    ],
)
def test_json_out_of_bounds_is_one_error_that_names_the_file(text, reason):
    with pytest.raises(CheckpointError, match=rf"^x\.json: its text .*{reason}") as caught:
        parse_json(text, HERE)
    assert "\n" not in str(caught.value)


def test_text_is_utf8_with_or_without_a_mark(tmp_path):
    (tmp_path / "a").write_bytes("né".encode("utf-8-sig"))
    (tmp_path / "b").write_bytes("né".encode())
    assert read_text(tmp_path / "a") == read_text(tmp_path / "b") == "né"


def test_lines_end_with_the_last_that_says_something(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfcat\r\n\r\ndog\r\n \r\n\r\n")
    assert read_lines(tmp_path / "a") == ["cat", "", "dog"]


def test_text_of_another_encoding_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes("n\xe9".encode("latin-1"))
    with pytest.raises(DataError, match="byte 1 is not UTF-8; save it as UTF-8"):
        read_text(tmp_path / "a")
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_text(tmp_path / "none", error=CheckpointError)


HARMLESS = "conv1.weight Größe 層 🙂 a\u00a0b [red] :x: $x$ C:\\runs"


def test_what_is_seen_stays_and_what_is_obeyed_becomes_an_escape():
    assert visible(HARMLESS) == HARMLESS
    assert visible("\x1b]0;owned\x07\n\x9b") == r"\x1b]0;owned\x07\n\x9b"
    assert visible("a\u202eb\u2066\u200b\u2028\U000e0041") == r"a\u202eb\u2066\u200b\u2028\U000e0041"
    assert visible(os.fsdecode(b"caf\xe9")) == r"caf\xe9" and visible("\ud83d") == r"\ud83d"


def test_no_character_without_a_shape_is_left():
    every = "".join(map(chr, [*range(0x3000), *range(0xD800, 0xE000), *range(0xFE00, 0x10000)]))
    left = {c for c in visible(every) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    # Signs of format that are drawn: numbers and verse ends of Arabic and Syriac.
    assert left <= set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "\uff1d"])
def test_no_cell_is_a_formula_and_numbers_stay_numbers(start):
    text = csv_text(("layer", "n"), [(f"{start}cmd()", -1.5), ("-2e3", None), ("conv", "+inf")])
    (name, n), (number, empty), last = list(csv.reader(io.StringIO(text)))[1:]
    assert name[0] in "'\\" and name.endswith("cmd()") and n == "-1.5"
    assert (number, empty) == ("-2e3", "") and last == ["conv", "+inf"]


def test_a_table_has_a_line_for_every_row_whatever_its_cells_hold():
    assert csv_text(("a", "b"), [("x\ny\r\x1b", 'say "b"')]).splitlines() == ["a,b", 'x\\ny\\r\\x1b,"say ""b"""']


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("con2", ["conv1", "conv2"], "; did you mean 'conv2'?"),
        ("pool", {"conv1": 1}, ""),
        ("anything", (), ""),
    ],
)
def test_a_near_name_is_hinted_at(name, known, hint):
    assert did_you_mean(name, known) == hint
