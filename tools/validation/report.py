"""Findings for people: a table, and files that show a finding again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from rich.table import Table

from graphnorm.ir import Graph
from graphnorm.scales.registry import Registry
from tools.validation.evaluate import OLD, OPSET
from tools.validation.judge import FINDINGS, Verdict, make_case, stream
from tools.validation.network import minimal
from tools.validation.truth import Operator

_SNIPPET = '''"""{text}"""

from graphnorm.scales.rules.table import default_registry
from tools.validation.judge import make_case, validate

print(make_case({op!r}, {seed}, {index}))
print(validate({op!r}, {seed}, {index}, default_registry()))
'''


def table(verdicts: Sequence[Verdict], registry: Registry) -> Table:
    """One line an operator: its rule, counts of verdicts, and notes (the numbers of `reasons`)."""
    found = Table(title="Rules against what operators do", title_justify="left")
    for heading in ("operator", "rule", "cases", "verdict", "notes"):
        found.add_column(heading, overflow="fold")
    numbers = {reason: str(number) for number, reason in enumerate(reasons(verdicts), 1)}
    for op in dict.fromkeys(verdict.op for verdict in verdicts):
        mine = [verdict for verdict in verdicts if verdict.op == op]
        rule = registry.get(op)
        counts = Counter(verdict.kind for verdict in mine if verdict.is_finding)
        text = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "agrees"
        if all(verdict.kind == "exempt" for verdict in mine):
            text = "not validated"
        found.add_row(
            op, rule.signature if rule else "none", str(len(mine)), text,
            " ".join(numbers[reason] for reason in reasons(mine)),
        )  # fmt: skip
    return found


def reasons(verdicts: Sequence[Verdict]) -> list[str]:
    """Why freedoms are missing on purpose, or operators not validated."""
    return list(dict.fromkeys(verdict.text for verdict in verdicts if verdict.kind in {"allowed", "exempt"}))


def as_dict(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Findings and counts as plain values."""
    return {
        "cases": len(verdicts),
        "operators": len({verdict.op for verdict in verdicts}),
        "counts": dict(Counter(verdict.kind for verdict in verdicts)),
        "kinds": FINDINGS,
        "findings": [asdict(v) | {"command": v.command} for v in verdicts if v.is_finding],
        "allowed": sorted({(v.op, v.text) for v in verdicts if v.kind in {"allowed", "exempt"}}),
    }


def write_reproducer(verdict: Verdict, folder: Path) -> Path:
    """A minimal network as an ONNX file where the operator is ONNX's, and a script in any case."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{verdict.op.replace('::', '_')}-{verdict.seed}-{verdict.index}"
    script = folder / f"{stem}.py"
    text = verdict.text.replace("\\", "/").replace('"""', "'''")
    script.write_text(_SNIPPET.format(text=text, op=verdict.op, seed=verdict.seed, index=verdict.index))
    if "::" not in verdict.op and verdict.kind in {"unsound", "missing", "no rule"}:
        operator = Operator(make_case(verdict.op, verdict.seed, verdict.index))
        operands = operator.draw(stream(verdict.op, verdict.seed, verdict.index, 1))
        network = minimal(operator.case, operands, operator.run(operands))
        onnx.save(to_onnx(network, OLD.get(verdict.op, OPSET)), folder / f"{stem}.onnx")
    return script


def to_onnx(network: Graph, opset: int = OPSET) -> onnx.ModelProto:
    """The network as an ONNX model; its weights and constants are initializers."""
    kinds = {
        name: helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)) for name, value in network.values.items()
    }
    given, wanted = (
        [helper.make_tensor_value_info(name, kinds[name], network.values[name].shape) for name in names]
        for names in (network.inputs, network.outputs)
    )
    nodes = [
        helper.make_node(node.op, node.inputs, node.outputs, name=node.name, **node.attributes)
        for node in network.nodes
    ]
    tensors = [
        numpy_helper.from_array(array, name)
        for name, array in {**network.weights, **network.constants}.items()
    ]
    graph = helper.make_graph(nodes, network.name, given, wanted, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
