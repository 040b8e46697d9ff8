"""Operators in float64: ONNX's reference implementation, and what it lacks.

Functions of our own stand in where the reference has no float64, ignores an argument, or is slow, and for the
few operators of the intermediate representation that ONNX doesn't have.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from graphnorm.ir import Array, Node
from tests.support.ir_interpreter import SPECIAL as INTERPRETED
from tools.validation import special_functions, special_layers, special_windows
from tools.validation.case import Case
from tools.validation.specials import SPECIAL

STAND_INS = (special_functions, special_layers, special_windows)  # importing them fills the register
OPSET = onnx.defs.onnx_opset_version()
OLD = {"Upsample": 9, "Scatter": 10}
Run = Callable[[list[Array | None]], list[Array]]


def evaluator(case: Case) -> Run:
    """The operator of `case` as a function of its operands."""
    special = SPECIAL.get(case.op)
    if special is not None:
        return lambda operands: [np.asarray(y) for y in special(case, *operands)]
    if case.op in INTERPRETED:
        node = Node("op", case.op, tuple(str(k) for k, _ in enumerate(case.operands)),
                    tuple(f"y{j}" for j in range(case.results)), case.attributes)  # fmt: skip
        return lambda operands: [np.asarray(y) for y in INTERPRETED[case.op](node, operands)]
    return _reference(case)


def _reference(case: Case) -> Run:
    names = ["" if operand.kind == "absent" else f"u{k}" for k, operand in enumerate(case.operands)]
    results = [f"y{j}" for j in range(case.results)]
    model = one_node_model(case, names, results)
    session = ReferenceEvaluator(model)

    def run(operands: list[Array | None]) -> list[Array]:
        feeds = {name: x for name, x in zip(names, operands, strict=True) if x is not None}
        with np.errstate(all="ignore"):
            found = session.run(results, feeds)
        assert isinstance(found, list)
        return [np.asarray(y) for y in found]

    return run


def one_node_model(case: Case, names: list[str], results: list[str]) -> onnx.ModelProto:
    """A model of the one operator, without types."""
    node = helper.make_node(case.op, names, results, **case.attributes)
    given = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in names if name]
    wanted = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in results]
    graph = helper.make_graph([node], case.op, given, wanted)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OLD.get(case.op, OPSET))])
