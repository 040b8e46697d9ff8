"""ATen -> ONNX: copies, casts, dropout."""

from __future__ import annotations

from graphnorm.frontends.torch.call import Call, Unlowerable, known_shape, rank
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.frontends.torch.steps import combined, filled
from graphnorm.frontends.torch.tensors import ONNX_TYPES
from graphnorm.ir import Value

TABLE = Lowerings()
COPIES = (
    "alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "lift", "positive", "real",
    "resolve_conj", "resolve_neg", "_conj", "conj", "conj_physical", "pin_memory", "_to_cpu", "view_of",
    "alias_copy", "detach_copy", "_autocast_to_full_precision", "_autocast_to_reduced_precision",
)  # fmt: skip
CASTS = (
    "_to_copy", "to.dtype", "to.dtype_layout", "to.device", "prims.convert_element_type.default",
    *(f"_cast_{kind}" for kind in ("Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")),
)  # fmt: skip


@TABLE.lowers(*CASTS, *COPIES)
@TABLE.lowers("type_as", "to.other", ignores=(1,))
def cast(call: Call, x: Value, *_: object) -> None:
    dtype = call.result.dtype
    if x.dtype.startswith("complex"):
        raise Unlowerable
    if x.dtype == dtype:
        call.out("Identity", x)
    else:
        call.out("Cast", x, to=ONNX_TYPES[dtype])


@TABLE.lowers("copy", ignores=(0,))
def copy_into(call: Call, x: Value, source: Value, *_: object) -> None:
    source = call.typed(source, x.dtype)
    if source.shape == x.shape:
        call.out("Identity", source)
    else:
        call.out("Expand", source, known_shape(x))


@TABLE.lowers("fill.Tensor", "set.source_Tensor", ignores=(0,))
def fill_with(call: Call, x: Value, value: Value) -> None:
    copy_into(call, x, value)


@TABLE.lowers("dropout")
def dropout(call: Call, x: Value, p: float, train: bool) -> None:
    if not train or p == 0:
        call.out("Identity", x)
    else:
        call.out("Dropout", x, call.number(p, "float32"), call.number(True, "bool"))


@TABLE.lowers("native_dropout")
def native_dropout(call: Call, x: Value, p: float, train: bool | None) -> None:
    """The result, and which entries were kept."""
    if train is False or p == 0:
        call.out_at(0, "Identity", x)
        call.yields(filled(call, known_shape(x), True, "bool", x.dynamic), 1)
    else:
        call.out("Dropout", x, call.number(p, "float32"), call.number(True, "bool"), count=1 + call.wants(1))


@TABLE.lowers("feature_dropout")
def feature_dropout(call: Call, x: Value, p: float, train: bool) -> None:
    """Whole channels are dropped."""
    if not train or p == 0:
        call.out("Identity", x)
        return
    shape = [*known_shape(x)[:2], *[1] * (rank(x) - 2)]
    ones = filled(call, shape, 1, x.dtype, x.dynamic & {0, 1})
    mask = call.step("Dropout", ones, call.number(p, "float32"), call.number(True, "bool"), like=ones)
    call.yields(combined(call, "Mul", x, mask))


@TABLE.lowers("alpha_dropout", "feature_alpha_dropout")
def alpha_dropout(call: Call, x: Value, p: float, train: bool) -> None:
    if train and p:
        raise Unlowerable  # a random choice between the entry and a constant
    call.out("Identity", x)
