"""Cases of reductions, scans and orderings."""

from __future__ import annotations

from tools.validation.case import Case, positive, signed
from tools.validation.maker import Maker, cases

REDUCTIONS = (
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd",
    "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip


@cases(*REDUCTIONS)
def reduce(m: Maker) -> Case:
    shape = m.shape(1, 3, smallest=2 if "Exp" in m.op else 1)
    axes = sorted(int(a) for a in m.rng.permutation(len(shape))[: m.integer(0, len(shape))])
    given = [m.fixed(axes)] if m.chance(0.8) else []
    attributes = {"noop_with_empty_axes": 1} if m.op != "ReduceLogSumExp" and m.chance(0.2) else {}
    sample = positive if m.op == "ReduceLogSum" else signed
    return m.case(m.real(shape, sample), *given, keepdims=m.integer(0, 1), **attributes)


@cases("ArgMax", "ArgMin")
def arg(m: Maker) -> Case:
    shape = m.shape(1, 2, smallest=2)
    return m.case(m.real(shape), axis=m.axis(len(shape)), keepdims=m.integer(0, 1))


@cases("CumSum", "CumProd")
def scan(m: Maker) -> Case:
    shape = m.shape(1, 3, smallest=2)
    axis = m.axis(len(shape))
    exclusive = int(m.op == "CumSum" and shape[axis] > 2 and m.chance())
    along = tuple(a for a in range(len(shape)) if a != axis % len(shape)) if exclusive else None
    return m.case(m.real(shape, along=along), m.fixed(axis), exclusive=exclusive, reverse=m.integer(0, 1))


@cases("TopK")
def top_k(m: Maker) -> Case:
    shape = m.shape(1, 3)
    axis = m.axis(len(shape))
    return m.case(
        m.real(shape), m.fixed([m.integer(1, shape[axis])]), results=2, axis=axis, largest=m.integer(0, 1)
    )


@cases("aten::cummax", "aten::cummin")
def running(m: Maker) -> Case:
    shape = m.shape(1, 3, smallest=2)
    return m.case(m.real(shape), results=2, axis=m.axis(len(shape)))


@cases("Det")
def determinant(m: Maker) -> Case:
    return m.case(m.real((2, 3, 3)))
