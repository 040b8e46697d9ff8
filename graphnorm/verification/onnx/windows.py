"""Windows of convolutions and pooling: paddings, sizes, and the entries at each offset of a kernel."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphnorm import ir

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows over the axes behind batch and channels.

    Attributes:
        size: of the input.
        kernel: of a window.
        strides: between windows.
        dilations: between the entries of a window.
        heads: padding before the input.
        tails: padding after it, as declared.
        output: number of windows.
    """

    size: Sizes
    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    heads: Sizes
    tails: Sizes
    output: Sizes

    @classmethod
    def of(
        cls,
        size: Sequence[int],
        kernel: Sequence[int],
        strides: Sequence[int] | None,
        dilations: Sequence[int] | None,
        pads: Sequence[int] | None,
        auto_pad: str | None,
        ceil: bool = False,
    ) -> Windows:
        """ONNX's attributes, resolved."""
        dims = len(size)
        strides, dilations = tuple(strides or [1] * dims), tuple(dilations or [1] * dims)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        if auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
            output = tuple(-(-n // s) for n, s in zip(size, strides, strict=True))
            total = [
                max(0, (o - 1) * s + r - n) for o, s, r, n in zip(output, strides, reach, size, strict=True)
            ]
            less = tuple(t // 2 for t in total)
            more = tuple(t - t // 2 for t in total)
            heads, tails = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
            return cls(tuple(size), tuple(kernel), strides, dilations, heads, tails, output)
        pads = [0] * (2 * dims) if pads is None or auto_pad == "VALID" else pads
        heads, tails = tuple(pads[:dims]), tuple(pads[dims:])
        counts: list[int] = []
        for n, r, s, head, tail in zip(size, reach, strides, heads, tails, strict=True):
            room = n + head + tail - r
            count = (-(-room // s) if ceil else room // s) + 1
            counts.append(count - 1 if ceil and (count - 1) * s >= n + head else count)
        return cls(tuple(size), tuple(kernel), strides, dilations, heads, tails, tuple(counts))

    def _ends(self) -> Sizes:
        """Entries behind the input that some window reaches."""
        return tuple(
            max(tail, (o - 1) * s + (k - 1) * d + 1 - n - head)
            for tail, o, s, k, d, n, head in zip(
                self.tails, self.output, self.strides, self.kernel, self.dilations, self.size, self.heads,
                strict=True,
            )
        )  # fmt: skip

    def padded(self, x: ir.Array, value: Any) -> ir.Array:
        """The input with its padding; itself if there is none."""
        widths = list(zip(self.heads, self._ends(), strict=True))
        if not any(itertools.chain(*widths)):
            return x
        return np.pad(x, [(0, 0), (0, 0), *widths], constant_values=value)

    def counted(self, padding: bool) -> npt.NDArray[np.float64]:
        """1 at entries of the padded input that count in a mean, 0 elsewhere."""
        found = np.ones(self.size)
        if padding:
            found = np.pad(found, list(zip(self.heads, self.tails, strict=True)), constant_values=1.0)
            more = [end - tail for end, tail in zip(self._ends(), self.tails, strict=True)]
            return np.pad(found, [(0, end) for end in more])
        return np.pad(found, list(zip(self.heads, self._ends(), strict=True)))

    def offsets(self) -> Iterator[tuple[Sizes, tuple[slice, ...]]]:
        """Each place in the kernel, and the entries of the padded input that stand there."""
        for offset in itertools.product(*map(range, self.kernel)):
            yield (
                offset,
                tuple(
                    slice(k * d, k * d + (o - 1) * s + 1, s)
                    for k, d, s, o in zip(offset, self.dilations, self.strides, self.output, strict=True)
                ),
            )

    def view(self, padded: ir.Array) -> ir.Array:
        """(batch, channels, *output, *kernel), without a copy."""
        dims = len(self.size)
        steps = padded.strides[2:]
        return np.lib.stride_tricks.as_strided(
            padded,
            (*padded.shape[:2], *self.output, *self.kernel),
            (
                *padded.strides[:2],
                *(step * s for step, s in zip(steps, self.strides, strict=True)),
                *(step * d for step, d in zip(steps[:dims], self.dilations, strict=True)),
            ),
            writeable=False,
        )
