"""CRC-32C, the checksum of TensorFlow's checkpoints, by numpy: many stretches of the data side by side.

A checksum is a remainder of polynomials over GF(2). So that of two stretches is the first one's, moved on by as many
zero bytes as the second is long, plus the second's own; and moving on is linear in the 32 bits.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, lowest bit first
_ALL = 0xFFFFFFFF
_STRETCH = 256  # bytes that one lane takes; a power of two
_PART = 1 << 22  # bytes at a time, which bounds the working memory


def crc32c(data: bytes | NDArray[np.uint8]) -> int:
    """CRC-32C of ``data``: the remainder after all ones, inverted."""
    values = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    crc = _ALL
    for start in range(0, len(values), _PART):
        part = values[start : start + _PART]
        whole = len(part) // _STRETCH * _STRETCH
        if whole:
            crc = _moved(crc, whole) ^ _remainder(part[:whole].reshape(-1, _STRETCH))
        for byte in part[whole:].tolist():
            crc = int(_byte_steps()[(crc ^ byte) & 255]) ^ crc >> 8
    return crc ^ _ALL


def masked_crc32c(data: bytes | NDArray[np.uint8]) -> int:
    """The same, turned by 15 bits and moved, as LevelDB and TensorFlow store it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & _ALL


def _remainder(stretches: NDArray[np.uint8]) -> int:
    """Remainder of all rows of ``stretches`` (count, length), one after the other, from 0."""
    words = np.ascontiguousarray(stretches.view("<u2").T)  # (length / 2, count): two bytes of every row at a time
    steps, crcs, length = _word_steps(), np.zeros(len(stretches), np.uint32), stretches.shape[1]
    for word in words:
        crcs ^= word
        crcs = steps[crcs & 0xFFFF] ^ crcs >> 16
    while len(crcs) > 1:
        if len(crcs) % 2:  # zeros in front change nothing
            crcs = np.concatenate([np.zeros(1, np.uint32), crcs])
        crcs = _mapped(_move(length), crcs[::2]) ^ crcs[1::2]
        length *= 2
    return int(crcs[0])


def _moved(crc: int, length: int) -> int:
    """Advance a remainder over ``length`` zero bytes."""
    value = np.array([crc], np.uint32)
    for i in range(length.bit_length()):
        if length >> i & 1:
            value = _mapped(_move(1 << i), value)
    return int(value[0])


@functools.cache
def _move(length: int) -> NDArray[np.uint32]:
    """Table (4, 256) that advances each byte of a remainder over ``length`` zero bytes, a power of two."""
    if length > 1:
        half = _move(length // 2)
        return np.stack([_mapped(half, row) for row in half])
    values = np.arange(256, dtype=np.uint32)
    return np.stack([_byte_steps(), *(values << shift for shift in (0, 8, 16))])


def _mapped(move: NDArray[np.uint32], crcs: NDArray[np.uint32]) -> NDArray[np.uint32]:
    a, b, c, d = (move[i][crcs >> 8 * i & 255] for i in range(4))
    return np.asarray(a ^ b ^ c ^ d, np.uint32)


@functools.cache
def _byte_steps() -> NDArray[np.uint32]:
    """Table (256,) of each byte after eight steps of the division."""
    steps = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        steps.append(value)
    return np.array(steps, np.uint32)


@functools.cache
def _word_steps() -> NDArray[np.uint32]:
    """The same of two bytes: (65536,)."""
    values, steps = np.arange(1 << 16, dtype=np.uint32), _byte_steps()
    for _ in range(2):
        values = steps[values & 255] ^ values >> 8
    return values
