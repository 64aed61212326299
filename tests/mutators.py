"""Broken copies of foreign files, one function a format: each takes bytes and a ``random.Random`` and returns bytes."""


def flipped_or_cut(data, dice):
    """Bits flipped, most of them early; or bytes lost, doubled, put in or replaced."""
    kind = dice.randrange(5)
    if kind < 2:
        out = bytearray(data)
        reach = dice.choice((8, 64, 300, len(out)))
        for _ in range(dice.randint(1, 6)):
            out[dice.randrange(min(reach, len(out)))] ^= 1 << dice.randrange(8)
        return bytes(out)
    start = dice.randrange(len(data))
    if kind == 2:
        return dice.choice((data[:start], data[start:], data[:start] + data[start + dice.randint(1, 64) :], data * 2))
    junk = dice.choice((dice.randbytes(dice.randint(1, 16)), b"\xff" * 8, b"\x80" * 12, bytes(64)))
    return data[:start] + junk + data[start + len(junk) * dice.randint(0, 1) :]
