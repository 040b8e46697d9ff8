"""Names that differ in their numbers, as one pattern: ``blocks.{0-11}.mlp.fc1``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

Numbers = tuple[int, ...]
_NUMBER = re.compile(r"(?<!\d)(?:0|[1-9]\d*)(?!\d)")  # without leading zeros
_MOST = 5  # ranges that are listed before the rest is left out


def shape(name: str) -> str:
    """The name with its numbers blanked: what names of one pattern share.

    >>> shape("layer1.0.conv2.weight")
    'layer#.#.conv#.weight'
    """
    return _NUMBER.sub("#", name)


def patterns(names: Iterable[str]) -> list[str]:
    """As few patterns as stand for exactly these names, in order of first appearance.

    >>> patterns(["a.0.w1", "a.1.w1", "a.2.w1", "b"])
    ['a.{0-2}.w1', 'b']
    >>> patterns(["s0.0", "s0.1", "s1.0"])
    ['s0.{0-1}', 's1.0']
    """
    forms: dict[str, dict[Numbers, str]] = {}
    for name in names:
        forms.setdefault(shape(name), {})[tuple(map(int, _NUMBER.findall(name)))] = name
    return [
        _fill(form, box) if "#" in form else form
        for form, found in forms.items()
        for box in _boxes(list(found))
    ]


def _boxes(numbers: Sequence[Numbers]) -> list[tuple[list[int], ...]]:
    """Products of sets of integers that together are exactly the given tuples."""
    if not numbers[0]:
        return [()]
    tails: dict[tuple[Numbers, ...], list[int]] = {}
    for first, members in groupby(sorted(numbers), key=lambda item: item[0]):
        tails.setdefault(tuple(item[1:] for item in members), []).append(first)
    return [(heads, *box) for tail, heads in tails.items() for box in _boxes(tail)]


def _fill(form: str, box: Sequence[Sequence[int]]) -> str:
    texts = iter(box)
    return re.sub("#", lambda _: _span(next(texts)), form)


def _span(numbers: Sequence[int]) -> str:
    """``3``, ``{0-11}``, ``{0-2,4,7-9}``."""
    if len(numbers) == 1:
        return str(numbers[0])
    parts = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        parts.append(f"{members[0]}-{members[-1]}" if len(members) > 1 else str(members[0]))
    if len(parts) > _MOST:
        parts = [*parts[: _MOST - 1], "…", parts[-1]]
    return "{" + ",".join(parts) + "}"
