"""Damage to a file's bytes, whatever they mean."""

from __future__ import annotations

from random import Random

_NUMBERS = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff\x0f",
    b"\xff" * 9 + b"\x01",
    b"\x80\x80\x80\x80\x20",
)


def damage(data: bytes, random: Random) -> bytes:
    """One to four random changes."""
    found = bytearray(data)
    for _ in range(random.randint(1, 4)):
        random.choice((_flip, _overwrite, _insert, _delete, _copy, _cut))(found, random)
    return bytes(found)


def _place(data: bytearray, random: Random) -> int:
    """Anywhere; near the ends more often, where messages are that hold the rest."""
    return min(random.randrange(len(data) + 1), random.randrange(len(data) + 1)) if data else 0


def _flip(data: bytearray, random: Random) -> None:
    if data:
        data[_place(data, random) % len(data)] ^= 1 << random.randrange(8)


def _overwrite(data: bytearray, random: Random) -> None:
    at, new = _place(data, random), random.choice(_NUMBERS)
    data[at : at + len(new)] = new


def _insert(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at:at] = random.choice(_NUMBERS)


def _delete(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    del data[at : at + random.choice((1, 1, 2, 8, 64))]


def _copy(data: bytearray, random: Random) -> None:
    at, to, size = _place(data, random), _place(data, random), random.choice((1, 4, 16, 64))
    data[to : to + size] = data[at : at + size]


def _cut(data: bytearray, random: Random) -> None:
    if random.random() < 0.3:
        del data[_place(data, random) :]
