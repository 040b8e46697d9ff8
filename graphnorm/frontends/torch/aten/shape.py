"""ATen -> ONNX: operators that move, repeat or join entries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphnorm.frontends.torch.call import (
    Call,
    Number,
    Unlowerable,
    axes_of,
    axis_of,
    known_shape,
    rank,
)
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import flat, reshaped, turned
from graphnorm.frontends.torch.tensors import ONNX_TYPES, numpy_dtype
from graphnorm.ir import Value

TABLE = Lowerings()
RESHAPES = (
    "view", "reshape", "_unsafe_view", "flatten.using_ints", "unflatten.int", "atleast_1d", "atleast_2d",
    "atleast_3d", "ravel", "_reshape_alias", "view_copy", "_reshape_copy", "_reshape_alias_copy",
)  # fmt: skip
PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
LAST = np.iinfo(np.int64)


@TABLE.lowers(*RESHAPES)
@TABLE.lowers("reshape_as", "view_as", ignores=(1,))
def reshape(call: Call, x: Value, *_: object) -> None:
    if 0 in call.shape:
        call.out("Reshape", x, call.shape, allowzero=1)
    else:
        call.out("Reshape", x, call.shape)


@TABLE.lowers("view.dtype", "view_copy.dtype")
def reinterpret(call: Call, x: Value, *_: object) -> None:
    """The same bits, read as another type."""
    if numpy_dtype(x.dtype).itemsize != numpy_dtype(call.result.dtype).itemsize:
        raise Unlowerable
    call.out("BitCast", x, to=ONNX_TYPES[call.result.dtype])


@TABLE.lowers("permute", "permute_copy")
def permute(call: Call, x: Value, axes: Sequence[int]) -> None:
    call.out("Transpose", x, perm=[axis_of(axis, x) for axis in axes])


@TABLE.lowers("transpose.int", "swapaxes", "swapdims", "transpose_copy.int")
def transpose(call: Call, x: Value, first: int, second: int) -> None:
    axes = list(range(rank(x)))
    if axes:
        axes[first], axes[second] = axes[second], axes[first]
    call.out("Transpose", x, perm=axes)


@TABLE.lowers("t", "numpy_T", "t_copy")
def turn(call: Call, x: Value) -> None:
    call.out("Transpose", x, perm=list(reversed(range(rank(x)))))


@TABLE.lowers("movedim.int", "movedim.intlist", "moveaxis.int", "moveaxis.intlist")
def move_axes(call: Call, x: Value, source: int | Sequence[int], target: int | Sequence[int]) -> None:
    old, new = ([axes] if isinstance(axes, int) else axes for axes in (source, target))
    places = {axis_of(to, x): axis_of(axis, x) for axis, to in zip(old, new, strict=True)}
    rest = iter(axis for axis in range(rank(x)) if axis not in places.values())
    call.out("Transpose", x, perm=[places[i] if i in places else next(rest) for i in range(rank(x))])


@TABLE.lowers("mT")
def turn_matrices(call: Call, x: Value) -> None:
    transpose(call, x, -1, -2)


@TABLE.lowers("unsqueeze", "unsqueeze_copy")
def unsqueeze(call: Call, x: Value, axis: int) -> None:
    call.out("Unsqueeze", x, [axis % (rank(x) + 1)])


@TABLE.lowers("squeeze", "squeeze.dim", "squeeze.dims")
def squeeze(call: Call, x: Value, axes: int | Sequence[int] | None = None) -> None:
    # An axis that has size 1 only in the example stays in the exported shapes.
    chosen = [i for i in axes_of(axes, rank(x)) if known_shape(x)[i] == 1 and i not in x.dynamic]
    if axes == [] or not chosen:
        call.out("Identity", x)
    else:
        call.out("Squeeze", x, chosen)


@TABLE.lowers("expand", "broadcast_to", "expand_copy")
@TABLE.lowers("expand_as", ignores=(1,))
def expand(call: Call, x: Value, *_: object) -> None:
    if x.shape == call.shape:
        call.out("Identity", x)
    else:
        call.out("Expand", x, call.shape)


@TABLE.lowers("repeat", "tile")
def repeat(call: Call, x: Value, repeats: Sequence[int]) -> None:
    extra = len(repeats) - rank(x)
    if extra > 0:
        x = reshaped(call, x, [1] * extra + list(known_shape(x)))
    call.out("Tile", x, [1] * -extra + list(repeats))


@TABLE.lowers("cat", "concat", "concatenate")
def cat(call: Call, tensors: Sequence[Value], axis: int = 0) -> None:
    dtype = call.result.dtype
    for x in tensors:
        if rank(x) != len(call.shape):  # the legacy empty vector
            call.overwrites(x)
    tensors = [x for x in tensors if rank(x) == len(call.shape)]
    call.out("Concat", *(call.typed(x, dtype) for x in tensors), axis=axis_of(axis, len(call.shape)))


@TABLE.lowers("stack")
def stack(call: Call, tensors: Sequence[Value], axis: int = 0) -> None:
    axis = axis_of(axis, len(call.shape))
    shape = [1 if i == axis else size for i, size in enumerate(call.shape)]
    slices = [
        call.step(
            "Unsqueeze", call.typed(x, call.result.dtype), [axis], shape=shape, dtype=call.result.dtype,
            dynamic=call.result.dynamic,
        )
        for x in tensors
    ]  # fmt: skip
    call.out("Concat", *slices, axis=axis)


@TABLE.lowers("split.Tensor", "split_with_sizes", "split.sizes", "unsafe_split.Tensor", "chunk",
              "unsafe_chunk", "tensor_split.sections", "tensor_split.indices")  # fmt: skip
def split(call: Call, x: Value, parts: object, axis: int = 0) -> None:
    axis = axis_of(axis, x)
    sizes = [known_shape(piece)[axis] for piece in call.outputs if piece is not None]
    call.out("Split", x, sizes, count=len(sizes), axis=axis)


@TABLE.lowers("hsplit.int", "hsplit.array", "vsplit.int", "vsplit.array", "dsplit.int", "dsplit.array")
def split_by_name(call: Call, x: Value, parts: object) -> None:
    """Along the axis that the first letter stands for; of a vector, along its only one."""
    axis = "vhd".index(str(call.node.target).removeprefix("aten.")[0])
    split(call, x, parts, min(axis, rank(x) - 1))


@TABLE.lowers("unbind.int")
def unbind(call: Call, x: Value, axis: int = 0) -> None:
    axis = axis_of(axis, x)
    pieces = call.split(x, [1] * len(call.outputs), axis, x.dynamic - {axis})
    for index, piece in enumerate(pieces):
        call.out_at(index, "Squeeze", piece, [axis])


@TABLE.lowers("meshgrid", "meshgrid.indexing")
def meshgrid(call: Call, tensors: Sequence[Value], indexing: str = "ij") -> None:
    for index, x in enumerate(tensors):
        axis = 1 - index if indexing == "xy" and index < 2 else index
        shape = [1] * len(tensors)
        shape[axis] = math.prod(known_shape(x))
        if call.wants(index):
            call.out_at(index, "Expand", reshaped(call, x, shape), call.shape)


@TABLE.lowers("flip")
def flip(call: Call, x: Value, axes: Sequence[int]) -> None:
    if not rank(x):  # torch takes axis 0 of a number
        call.yields(x)
        return
    n = len(axes)
    call.out("Slice", x, [-1] * n, [LAST.min] * n, axes_of(axes, rank(x)), [-1] * n)


@TABLE.lowers("roll")
def roll(call: Call, x: Value, shifts: Sequence[int], axes: Sequence[int] = ()) -> None:
    if axes:
        for shift, axis in zip(shifts, axes, strict=True):
            x = _rolled(call, x, shift, axis_of(axis, x))
        call.yields(x)
    else:
        call.yields(reshaped(call, _rolled(call, flat(call, x), shifts[0], 0), call.shape))


def _rolled(call: Call, x: Value, shift: int, axis: int) -> Value:
    size = known_shape(x)[axis]
    cut = -shift % size if size else 0
    head, tail = call.split(x, [cut, size - cut], axis, x.dynamic)
    return call.step("Concat", tail, head, like=x, axis=axis)


@TABLE.lowers("pixel_shuffle")
def pixel_shuffle(call: Call, x: Value, factor: int) -> None:
    if rank(x) == 4:
        call.out("DepthToSpace", x, blocksize=factor, mode="CRD")
        return
    *batch, channels, height, width = known_shape(x)
    n = len(batch)
    cells = reshaped(call, x, [*batch, channels // factor**2, factor, factor, height, width])
    turned = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    _reshape_of_transposed(call, cells, turned)


@TABLE.lowers("pixel_unshuffle")
def pixel_unshuffle(call: Call, x: Value, factor: int) -> None:
    *batch, channels, height, width = known_shape(x)
    n = len(batch)
    cells = reshaped(call, x, [*batch, channels, height // factor, factor, width // factor, factor])
    _reshape_of_transposed(call, cells, [*range(n), n, n + 2, n + 4, n + 1, n + 3])


@TABLE.lowers("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call, x: Value, groups: int) -> None:
    batch, channels, *space = known_shape(x)
    cells = reshaped(call, x, [batch, groups, channels // groups, *space])
    _reshape_of_transposed(call, cells, [0, 2, 1, *range(3, rank(cells))])


def _reshape_of_transposed(call: Call, cells: Value, perm: list[int]) -> None:
    call.out("Reshape", turned(call, cells, perm), call.shape)


@TABLE.lowers("pad")
def pad(
    call: Call, x: Value, pads: Sequence[int], mode: str = "constant", value: float | None = None
) -> None:
    # torch: (begin, end) of the last axis first; ONNX: all begins, then all ends.
    begins, ends = [0] * rank(x), [0] * rank(x)
    for index in range(len(pads) // 2):
        begins[-1 - index], ends[-1 - index] = pads[2 * index], pads[2 * index + 1]
    fill = call.number(value or 0, x.dtype) if mode == "constant" else None
    call.out("Pad", x, begins + ends, fill, mode=PAD_MODES[mode])


@TABLE.lowers("constant_pad_nd")
def constant_pad(call: Call, x: Value, pads: Sequence[int], value: Number = 0) -> None:
    pad(call, x, pads, "constant", value)


@TABLE.lowers("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
def reflection_pad(call: Call, x: Value, pads: Sequence[int]) -> None:
    pad(call, x, pads, "reflect")


@TABLE.lowers("replication_pad1d", "replication_pad2d", "replication_pad3d")
def replication_pad(call: Call, x: Value, pads: Sequence[int]) -> None:
    pad(call, x, pads, "replicate")


@TABLE.lowers("_pad_circular")
def circular_pad(call: Call, x: Value, pads: Sequence[int]) -> None:
    pad(call, x, pads, "circular")


@TABLE.lowers("tril")
def tril(call: Call, x: Value, diagonal: int = 0) -> None:
    call.out("Trilu", x, call.number(diagonal, "int64"), upper=0)


@TABLE.lowers("triu")
def triu(call: Call, x: Value, diagonal: int = 0) -> None:
    call.out("Trilu", x, call.number(diagonal, "int64"), upper=1)


@TABLE.lowers("repeat_interleave.self_int")
def repeat_interleave(call: Call, x: Value, repeats: int, axis: int | None = None, *_: object) -> None:
    if axis is None:
        x, axis = flat(call, x), 0
    axis = axis_of(axis, x)
    call.out("Gather", x, np.arange(known_shape(x)[axis]).repeat(repeats), axis=axis)
