"""CRC-32C: known answers, and a division bit by bit."""

import random

import numpy as np
import pytest
from imported import crc32c_bit_by_bit

from daukit.importers.checksums import crc32c


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, appendix B.4, and the polynomial's usual check
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_known_checksums(data, expected):
    assert crc32c(data) == expected == crc32c(np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 512, 1000, 256 * 3, 256 * 5 + 3, 256 * 21])
def test_checksums_are_remainders_of_a_division_bit_by_bit(size):
    data = random.Random(size).randbytes(size)
    assert crc32c(data) == crc32c_bit_by_bit(data)


def test_parts_of_the_data_follow_each_other(monkeypatch):
    data = random.Random(0).randbytes(5000)
    expected = crc32c(data)
    for part in (256, 300, 1024, 4096):
        monkeypatch.setattr("daukit.importers.checksums._PART", part)
        assert crc32c(data) == expected
