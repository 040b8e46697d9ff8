"""Rules for permutations, one operator at a time: what they say holds, and it is all that is meant.

Signatures: a letter is a factor that may be permuted, alike wherever it stands; ``.`` keeps its order and
``1`` is an axis of size 1; ``ab`` is a product of two factors, ``a+b`` a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from graphnorm.ir import Node
from graphnorm.ops.table import TABLE
from graphnorm.permutation.axes import Axis
from graphnorm.permutation.context import Context
from graphnorm.permutation.rules import RULES
from tests.support.planting import plant
from tools.validation import permutations
from tools.validation.families import GENERATORS
from tools.validation.permutations import settle, visited

Shapes = Sequence[Sequence[int] | None]


def signature(
    op: str, shapes: Shapes, results: Shapes, constants: dict[int, Any] | None = None, **attributes: Any
) -> str:
    names = ["" if shape is None else f"x{i}" for i, shape in enumerate(shapes)]
    outs = ["" if shape is None else f"y{i}" for i, shape in enumerate(results)]
    arrays = {
        name: np.zeros(shape)
        for name, shape in zip([*names, *outs], [*shapes, *results], strict=True)
        if shape is not None
    }
    fixed = {f"x{i}": np.asarray(array) for i, array in (constants or {}).items()}
    walk = visited(Node("n", op, tuple(names), tuple(outs), attributes), arrays | fixed, list(fixed))
    settle(walk)
    letters: dict[int, str] = {}

    def letter(factor: int) -> str:
        if walk.table.size(factor) == 1:
            return "1"
        return "." if walk.table.is_frozen(factor) else letters.setdefault(factor, "abcdefghij"[len(letters)])

    def one(axis: Axis) -> str:
        return "+".join("".join(map(letter, segment)) for segment in walk.table.resolve(axis))

    sides = [
        [" ".join(map(one, walk.found[name])) if name else "-" for name in side if name not in fixed]
        for side in (names, outs)
    ]
    return f"{', '.join(sides[0])} -> {', '.join(sides[1])}"


CASES: list[tuple[str, str, Shapes, Shapes, dict[str, Any]]] = []


def case(text: str, op: str, shapes: Shapes, results: Shapes, **rest: Any) -> None:
    CASES.append((text, op, shapes, results, rest))


X, K = (2, 6, 5, 5), (3, 3)
case("a b -> a b", "Relu", [(2, 3)], [(2, 3)])
case("a b -> a b", "Softmax", [(2, 3)], [(2, 3)], axis=-1)
case("a b, 1 -> a b", "Clip", [(2, 3), (1,)], [(2, 3)])
case("a b, b -> a b", "Clip", [(2, 3), (3,)], [(2, 3)])
case("a b, a b -> a b", "Add", [(2, 3), (2, 3)], [(2, 3)])
case("a b, b -> a b", "Mul", [(2, 3), (3,)], [(2, 3)])
case("a 1, b -> a b", "Mul", [(2, 1), (3,)], [(2, 3)])
case("a b, 1, a b -> a b", "Where", [(2, 3), (1,), (2, 3)], [(2, 3)])
case("a b c, c d -> a b d", "MatMul", [(2, 3, 4), (4, 5)], [(2, 3, 5)])
case("a b c, a c d -> a b d", "MatMul", [(2, 3, 4), (2, 4, 5)], [(2, 3, 5)])
case("a b, b -> a", "MatMul", [(3, 4), (4,)], [(3,)])
case("a, a b -> b", "MatMul", [(3,), (3, 4)], [(4,)])
case("a, a -> ", "MatMul", [(3,), (3,)], [()])
case("a, b a c -> b c", "MatMul", [(3,), (2, 3, 4)], [(2, 4)])
case("a b, b c -> a c", "Gemm", [(3, 4), (4, 5)], [(3, 5)])
case("a b, a c, c -> b c", "Gemm", [(4, 3), (4, 5), (5,)], [(3, 5)], transA=1)
case("a b, c b, a c -> a c", "Gemm", [(3, 4), (5, 4), (3, 5)], [(3, 5)], transB=1)
case("a b . ., c b . . -> a c . .", "Conv", [X, (4, 6, *K)], [(2, 4, 3, 3)])
case("a b . ., c b . ., c -> a c . .", "Conv", [X, (4, 6, *K), (4,)], [(2, 4, 3, 3)])
case("a b . ., b 1 . ., b -> a b . .", "Conv", [X, (6, 1, *K), (6,)], [(2, 6, 3, 3)], group=6)
case("a .b . ., .c b . ., .c -> a .c . .", "Conv", [X, (4, 3, *K), (4,)], [(2, 4, 3, 3)], group=2)
case("a .b . ., .b c . ., .c -> a .c . .", "ConvTranspose", [X, (6, 5, *K), (10,)], [(2, 10, 7, 7)], group=2)
case("a b . ., b c . . -> a c . .", "ConvTranspose", [X, (6, 4, *K)], [(2, 4, 7, 7)])
case("a b . ., b 1 . ., b -> a b . .", "ConvTranspose", [X, (6, 1, *K), (6,)], [(2, 6, 7, 7)], group=6)
case("a b c d, b, b, b, b -> a b c d", "BatchNormalization", [X, *[(6,)] * 4], [X])
case("a b c d, b, b -> a b c d", "InstanceNormalization", [X, (6,), (6,)], [X])
case(". . . ., ., ., ., . -> . . . ., ., .", "BatchNormalization", [X, *[(6,)] * 4], [X, (6,), (6,)])
case("a b c, c, c -> a b c", "LayerNormalization", [(2, 3, 4), (4,), (4,)], [(2, 3, 4)])
case("a b c, c -> a b c", "RMSNormalization", [(2, 3, 4), (4,)], [(2, 3, 4)])
case(". . ., ., . -> . . ., . . 1", "LayerNormalization", [(2, 3, 4), (4,), (4,)], [(2, 3, 4), (2, 3, 1)])
case("a bc d e, bc, bc -> a bc d e", "GroupNormalization", [X, (6,), (6,)], [X], num_groups=2)
case(". a -> . a", "CumSum", [(4, 3), ()], [(4, 3)], constants={1: 0})
case("a . -> a .", "CumProd", [(4, 3), ()], [(4, 3)], constants={1: -1})
case(". a, 1 -> . a, . a", "TopK", [(4, 3), (1,)], [(2, 3), (2, 3)], axis=0)
case(". a -> a", "ArgMax", [(4, 3)], [(3,)], axis=0, keepdims=0)
case("a . -> a 1", "ArgMin", [(4, 3)], [(4, 1)], axis=-1)
case(". a -> . a", "Hardmax", [(4, 3)], [(4, 3)], axis=0)
case(". . -> . .", "Hardmax", [(4, 3)], [(4, 3)], axis=0, before_opset=13)
case("a . -> a ., a .", "aten::cummax", [(4, 3)], [(4, 3), (4, 3)], axis=1)
case(". a, b a -> b a", "GatherElements", [(4, 3), (2, 3)], [(2, 3)], axis=0)
case("a ., a b -> a b", "GatherElements", [(4, 3), (4, 2)], [(4, 2)], axis=-1)
case(". ., a . -> a .", "GatherElements", [(4, 3), (2, 2)], [(2, 2)], axis=0)
case("a b . . -> a b . .", "MaxPool", [X], [(2, 6, 3, 3)])
case("a b c d -> a b 1 1", "GlobalAveragePool", [X], [(2, 6, 1, 1)])
case(". . . . -> . . . ., . . . .", "MaxPool", [X], [(2, 6, 3, 3)] * 2)
case("a b c -> a 1 c", "ReduceSum", [(2, 3, 4)], [(2, 1, 4)], axes=[1], keepdims=1)
case("a b c -> a c", "ReduceMean", [(2, 3, 4)], [(2, 4)], axes=[-2], keepdims=0)
case("a b -> 1 1", "ReduceMax", [(2, 3)], [(1, 1)])
case("a b -> a b", "ReduceSum", [(2, 3)], [(2, 3)], noop_with_empty_axes=1)
case("a b -> 1 b", "ReduceSum", [(2, 3), (1,)], [(1, 3)], constants={1: [0]})
case("a b c -> a bc", "Reshape", [(2, 3, 4), (2,)], [(2, 12)], constants={1: [2, 12]})
case("a bc -> a b c", "Reshape", [(2, 12), (3,)], [(2, 3, 4)], constants={1: [2, 3, 4]})
case("a b c -> ab c", "Flatten", [(2, 3, 4)], [(6, 4)], axis=2)
case(". . . -> . .", "Reshape", [(2, 3, 4)], [(4, 6)])
case("a 1 b -> a b", "Squeeze", [(2, 1, 4)], [(2, 4)])
case("a b -> b a", "Transpose", [(2, 3)], [(3, 2)])
case("a b c -> c a b", "Transpose", [(2, 3, 4)], [(4, 2, 3)], perm=[2, 0, 1])
case("a b, a c -> a b+c", "Concat", [(2, 3), (2, 4)], [(2, 7)], axis=-1)
case("a b+c+d e -> a c e", "Slice", [(2, 9, 3)], [(2, 4, 3)], starts=[2], ends=[6], axes=[1])
case("a b+c -> a b", "Slice", [(2, 9)], [(2, 4)], starts=[0], ends=[4], axes=[-1])
case("a b+c -> a c", "Slice", [(2, 9)], [(2, 5)], starts=[4], ends=[99], axes=[-1], steps=[1])
case("a b+c d -> a c d", "Slice", [(2, 9, 3)], [(2, 5, 3)], starts=[0, 4], ends=[2, 9])
case("a . -> a .", "Slice", [(2, 9)], [(2, 3)], starts=[0], ends=[9], axes=[1], steps=[3])
case("a b+c d -> a b d, a c d", "Split", [(2, 9, 3)], [(2, 4, 3), (2, 5, 3)], axis=1)
case("a b+c -> a b, a c", "Split", [(2, 9)], [(2, 4), (2, 5)], axis=-1)
case(
    "a . b -> a . . b", "Gather", [(2, 9, 3), (2, 2)], [(2, 2, 2, 3)], axis=1, constants={1: [[1, 0], [2, 2]]}
)
case("a 1 -> a b", "Expand", [(2, 1), (2,)], [(2, 4)], constants={1: [2, 4]})
case(
    "a b . . -> a c+b+1 . .",
    "Pad",
    [X],
    [(2, 9, 7, 7)],
    pads=[0, 2, 1, 1, 0, 1, 1, 1],
)
case("a b c . -> a b c .", "Pad", [X], [(2, 6, 5, 7)], pads=[0, 0, 0, 1, 0, 0, 0, 1])
case("a . b c -> a . b c", "Pad", [X], [(2, 7, 5, 5)], pads=[0, 1, 0, 0, 0, 0, 0, 0], value=1.0)
case("a . b c -> a . b c", "Pad", [X], [(2, 7, 5, 5)], pads=[0, 1, 0, 0, 0, 0, 0, 0], mode="edge")
case("a b . . -> a b . .", "Resize", [X], [(2, 6, 10, 10)], scales=[1.0, 1.0, 2.0, 2.0])
case(". . . . -> . . . .", "Resize", [X], [(2, 12, 10, 10)], scales=[1.0, 2.0, 2.0, 2.0])
case(
    ". . . . -> . . . .", "Resize", [X], [(2, 6, 10, 10)], scales=[1.0, 1.0, 2.0, 2.0],
    coordinate_transformation_mode="tf_crop_and_resize",
)  # fmt: skip
case(
    "a b . ., -, - -> a b . .",
    "Resize",
    [X, None, None, (4,)],
    [(2, 6, 10, 10)],
    constants={3: [2, 6, 10, 10]},
)
case(
    ". . . ., -, - -> . . . .", "Resize", [X, None, None, (4,)], [(2, 6, 10, 10)],
    constants={3: [2, 6, 10, 10]}, coordinate_transformation_mode="tf_crop_and_resize",
)  # fmt: skip
QKV = [(2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 7)]
case("a b c d, a b e d, a b e f -> a b c f", "Attention", QKV, [(2, 3, 4, 7)])
case(". . . a, . . . a, . . . b -> . . . b", "Attention", QKV, [(2, 3, 4, 7)], is_causal=1)
case(". . . a, . . . a, . . . b, . . -> . . . b", "Attention", [*QKV, (4, 6)], [(2, 3, 4, 7)])
case("a b c, d c e -> a b d e", "Einsum", [(2, 3, 4), (5, 4, 6)], [(2, 3, 5, 6)], equation="abk, ckd -> abcd")
case(". ., . . -> . .", "Einsum", [(2, 2), (2, 3)], [(2, 3)], equation="ii,ij->ij")
case(". . -> .", "Einsum", [(2, 3)], [(3,)], equation="...j->j")
case("a b -> .", "Shape", [(2, 3)], [(2,)])
case(". . -> . .", "CumSum", [(2, 3)], [(2, 3)])


@pytest.mark.parametrize(
    ("text", "op", "shapes", "results", "rest"), CASES, ids=[f"{op} {text}" for text, op, *_ in CASES]
)
def test_signatures(text: str, op: str, shapes: Shapes, results: Shapes, rest: dict[str, Any]) -> None:
    assert signature(op, shapes, results, **rest) == text


def test_every_rule_has_a_signature() -> None:
    """Of entrywise operators, and of reductions and pools, one stands for all."""
    functions = {RULES.get(op) for _, op, *_ in CASES}
    assert not {RULES.get(op) for op in TABLE} - functions - {None}


def kinds(op: str, cases: int) -> set[str]:
    with np.errstate(all="ignore"):
        return {permutations.validate(op, 0, index).kind for index in range(cases)}


@pytest.mark.parametrize("op", sorted(op for op in GENERATORS if op in RULES))
def test_rules_are_sound_and_complete(op: str) -> None:
    """Permuted operands give permuted results, and no freedom is left out but for a reason."""
    assert kinds(op, 12) <= {"ok", "allowed"}


def test_reasons_are_needed() -> None:
    assert [op for op in permutations.ALLOWED if "allowed" not in kinds(op, 24)] == []


def test_the_judge_sees_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Softmax whose axes all keep their order."""
    plant(monkeypatch, RULES, "Softmax", lambda ctx, node: None)
    assert "missing" in kinds("Softmax", 4)


def test_the_judge_sees_a_wrong_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions of a causal attention, left free."""

    def free(ctx: Context, node: Node) -> list[tuple[Axis, ...]] | None:
        q, k, v = (ctx.axes(name) for name in node.inputs[:3])
        if len(q) != 4:
            return None
        for axis in (0, 1, 3):
            ctx.unite(q[axis], k[axis])
            if axis < 3:
                ctx.unite(k[axis], v[axis])
        ctx.unite(k[2], v[2])
        return [(q[0], q[1], q[2], v[3])]

    plant(monkeypatch, RULES, "Attention", free)
    assert "unsound" in kinds("Attention", 12)
