"""Text that daukit did not write: encodings, and JSON within bounds."""

from pathlib import Path

import pytest

from daukit.errors import CheckpointError, DataError
from daukit.texts import MAX_DEPTH, parse_json, read_lines, read_text

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
