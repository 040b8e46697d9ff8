"""Equal consecutive blocks, drawn once: twelve encoder blocks become one with the mark ×12.

Two runs of boxes are equal if box by box they hold the same operators with the same pins, read boxes at the
same distance (or the same box), and carry as many scales of groups that correspond one to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from graphnorm.pictures.flow import INPUT, OUTPUT, Box, Flow, Frame, Link, Strand, merge


def fold_repeats(flow: Flow) -> Flow:
    """Draw consecutive equal blocks once."""
    runs = _Matcher(flow).runs()
    if not runs:
        return flow
    stands: dict[int, int] = {}  # box -> the box that is drawn for it
    for first, length, count in runs:
        for index in range(first, first + length * count):
            stands[index] = first + (index - first) % length
    drawn = [i for i in range(len(flow.boxes)) if stands.get(i, i) == i]
    number = {index: n for n, index in enumerate(drawn)}
    same: dict[int, list[Box]] = {}
    for index, first in stands.items():
        if index != first:
            same.setdefault(first, []).append(flow.boxes[index])
    boxes = [_with_same(flow.boxes[i], same.get(i, [])) for i in drawn]
    for first, length, _ in runs:
        _shorten_titles(boxes, range(number[first], number[first] + length), flow.boxes[first + length].path)
    frames = [
        Frame(number[first], number[first + length - 1], count, _title(flow, first, length, count))
        for first, length, count in runs
    ]
    links = _links(flow, runs, stands, number)
    view = "equal blocks drawn once" if flow.view == "all layers" else f"{flow.view}, equal blocks drawn once"
    return Flow(tuple(boxes), links, tuple(frames), view)


def _with_same(box: Box, same: Sequence[Box]) -> Box:
    weights = dict.fromkeys(name for one in (box, *same) for name in one.weights)
    return replace(box, same=tuple(same), weights=tuple(weights))


def _shorten_titles(boxes: list[Box], block: range, after: tuple[str, ...]) -> None:
    """Leave the module of the block out of its boxes' titles, if a block is one module."""
    paths = [boxes[i].path for i in block]
    level = _shared(paths)
    if level and paths[0][:level] != after[:level]:
        for i in block:
            if len(boxes[i].path) > level and boxes[i].title == ".".join(boxes[i].path):
                boxes[i] = replace(boxes[i], short=".".join(boxes[i].path[level:]))


def _links(
    flow: Flow, runs: Sequence[tuple[int, int, int]], stands: dict[int, int], number: dict[int, int]
) -> tuple[Link, ...]:
    """Links into and inside the first copy, and out of the last one."""
    last = {first + length * (count - 1) + i: first for first, length, count in runs for i in range(length)}
    bundles: dict[tuple[int, int], list[Link]] = {}
    for link in flow.links:
        into_copy = stands.get(link.target, link.target) != link.target
        outward = link.source not in stands or (link.source in last and not _inside(link, runs))
        if not into_copy and (outward or stands[link.source] == link.source):
            pair = (number[stands.get(link.source, link.source)], number[link.target])
            bundles.setdefault(pair, []).append(link)
    return tuple(
        Link(a, b, merge(link.strands for link in found), tuple(v for link in found for v in link.values))
        for (a, b), found in sorted(bundles.items())
    )


def _inside(link: Link, runs: Sequence[tuple[int, int, int]]) -> bool:
    return any(first <= link.source and link.target < first + length * count for first, length, count in runs)


def _title(flow: Flow, first: int, length: int, count: int) -> str:
    """From which module to which."""
    last = first + length * (count - 1)
    names = []
    for start in (first, last):
        paths = [flow.boxes[i].path for i in range(start, start + length)]
        names.append((paths[0][: _shared(paths) or len(paths[0])], paths[-1]))
    begin, end = names[0][0], names[1][0]
    if begin == end:  # several modules a block: name the first and the last
        level = next((n for n, (a, b) in enumerate(zip(begin, end, strict=True)) if a != b), len(begin)) + 1
        begin, end = flow.boxes[first].path[:level], flow.boxes[last + length - 1].path[:level]
    return f"{'.'.join(begin)} – {'.'.join(end)}" if begin and end else ""


def _shared(paths: Sequence[tuple[str, ...]]) -> int:
    """How many first components all paths have in common."""
    level = 0
    while all(len(path) > level and path[level] == paths[0][level] for path in paths):
        level += 1
    return level


class _Matcher:
    """Finds runs of equal blocks: (first box, boxes in a block, blocks)."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._into: dict[int, list[Link]] = {}
        paths = [box.path for box in flow.boxes]
        self._common = [_shared(pair) for pair in pairwise(paths)]  # of the paths of a box and the next
        self._reach = [0] * len(flow.boxes)  # the farthest box that reads a box
        for link in flow.links:
            self._into.setdefault(link.target, []).append(link)
            self._reach[link.source] = max(self._reach[link.source], link.target)

    def runs(self) -> list[tuple[int, int, int]]:
        found: list[tuple[int, int, int]] = []
        start, total = 0, len(self.flow.boxes)
        while start < total:
            options = [
                (length * (self._count(start, length) - 1), -length) for length in self._lengths(start)
            ]
            saved, length = max(options, default=(0, 0))
            if saved > 0:
                found.append((start, -length, saved // -length + 1))
                start += saved - length
            else:
                start += 1
        return found

    def _lengths(self, start: int) -> range:
        return range(1, (len(self.flow.boxes) - start) // 2 + 1)

    def _count(self, start: int, length: int) -> int:
        """How many blocks from `start` on are equal to the first."""
        if not self._alike(start, start + length) or not self._aligned(start, length):
            return 1
        count = 1
        while self._equal(start + (count - 1) * length, length):
            count += 1
        while count > 1 and self._leaks(start, length, count):
            count -= 1
        return count

    def _leaks(self, start: int, length: int, count: int) -> bool:
        """Whether a block but the last is read from behind the run."""
        return any(
            self._reach[i] >= start + length * count for i in range(start, start + length * (count - 1))
        )

    def _aligned(self, start: int, length: int) -> bool:
        """A block begins where a module does: inside it, paths have at least as much in common."""
        common = self._common[start : start + length]
        return min(common) >= common[-1]

    def _equal(self, start: int, length: int) -> bool:
        """Whether the block after the one at `start` is equal to it."""
        if start + 2 * length > len(self.flow.boxes):
            return False
        groups: dict[int, int] = {}
        pairs = ((i, i + length) for i in range(start, start + length))
        return all(self._same_box(i, j, groups) for i, j in pairs) and len(set(groups.values())) == len(
            groups
        )

    def _alike(self, i: int, j: int) -> bool:
        """Whether two boxes hold the same operators."""
        one, two = self.flow.boxes[i], self.flow.boxes[j]
        if one.kind != two.kind or one.kind in {INPUT, OUTPUT}:
            return False
        return [(part.text, part.pins) for part in one.parts] == [
            (part.text, part.pins) for part in two.parts
        ]

    def _same_box(self, i: int, j: int, groups: dict[int, int]) -> bool:
        if not self._alike(i, j):
            return False
        one, two = self.flow.boxes[i], self.flow.boxes[j]
        seams = [(a.seam, b.seam) for a, b in zip(one.parts, two.parts, strict=True)]
        if not all(_same_strands(a, b, groups) for a, b in (*seams, (one.inner, two.inner))):
            return False
        first, second = self._into.get(i, []), self._into.get(j, [])
        return len(first) == len(second) and all(
            (i - a.source == j - b.source or a.source == b.source)
            and _same_strands(a.strands, b.strands, groups)
            for a, b in zip(first, second, strict=True)
        )


def _same_strands(one: Sequence[Strand], two: Sequence[Strand], groups: dict[int, int]) -> bool:
    """Whether strands agree under the correspondence of groups, which grows on the way."""
    if len(one) != len(two):
        return False
    for a, b in zip(one, two, strict=True):
        if (a.group is None) != (b.group is None) or a.scales != b.scales:
            return False
        if (a.degenerate == a.scales) != (b.degenerate == b.scales):
            return False
        if a.group is not None and b.group is not None and groups.setdefault(a.group, b.group) != b.group:
            return False
    return True
