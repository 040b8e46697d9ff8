"""Nodes on sequences, rewritten to nodes on their elements, and casts to the type of another value."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import graphnorm
from graphnorm.api.sources import open_model
from graphnorm.frontends.onnx import rewriting as onnx_rewriting
from graphnorm.frontends.onnx.evaluation import Rewriting
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.ir import Array, Graph
from graphnorm.rescaling.graph import build
from graphnorm.weights.coefficients import powers_of_two, rescale
from tests.support.planting import plant

NUMBERS = (
    "<int64 zero = {0}, int64 one = {1}, int64 last = {-1}, int64 four = {4}, int64[3] sizes = {2, 5, 3}>"
)


def model(signature: str, body: str) -> onnx.ModelProto:
    header = '<ir_version: 9, opset_import: ["": 18]>'
    return onnx.parser.parse_model(f"{header} net {signature} {NUMBERS} {{ {body} }}")


def sequence_ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes if "Sequence" in node.op]


def run(found: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    session = onnxruntime.InferenceSession(found.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, feeds)]


def run_graph(graph: Graph, feeds: dict[str, Array]) -> list[Array]:
    """The graph as a model of opset 11, where sizes and axes are attributes."""
    nodes = [helper.make_node(n.op, n.inputs, n.outputs, **n.attributes) for n in graph.nodes]
    arrays = {**graph.weights, **graph.constants}
    found = helper.make_graph(
        nodes,
        "flat",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in graph.inputs],
        [helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in graph.outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    proto = helper.make_model(found, opset_imports=[helper.make_opsetid("", 11)])
    outputs = ReferenceEvaluator(proto).run(None, feeds)
    assert isinstance(outputs, list)
    return outputs


def assert_same(found: onnx.ModelProto) -> Graph:
    """No sequence is left, and the graph computes what the file does, in the shapes that it says."""
    graph = read_onnx(found)
    assert not sequence_ops(graph)
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal(graph.values[name].shape).astype(np.float32) for name in graph.inputs}
    for name, one, two in zip(graph.outputs, run(found, feeds), run_graph(graph, feeds), strict=True):
        np.testing.assert_array_equal(one, two)
        assert graph.values[name].shape == one.shape
        assert graph.values[name].dtype == one.dtype.name
    return graph


CASES = {
    "equal pieces": "q = SplitToSequence <axis=-1> (x, four) y = SequenceAt (q, one)",
    "smaller last piece": "q = SplitToSequence <axis=-1> (x, four) y = SequenceAt (q, last)",
    "listed pieces": "q = SplitToSequence <axis=1> (x, sizes) y = SequenceAt (q, last)",
    "keepdims is for single entries": "q = SplitToSequence <axis=1, keepdims=0> (x, sizes) "
    "y = SequenceAt (q, one)",
    "single entries": "q = SplitToSequence <axis=1, keepdims=0> (x) y = SequenceAt (q, last)",
    "single entries, kept": "q = SplitToSequence <axis=1> (x) y = SequenceAt (q, zero)",
    "one element twice": "q = SplitToSequence <axis=1> (x, sizes) "
    "a = SequenceAt (q, one) b = SequenceAt (q, one) y = Add (a, b)",
    "constructed": "n = Neg (x) q = SequenceConstruct (x, n) y = SequenceAt (q, last)",
    "joined": "n = Neg (x) q = SequenceConstruct (x, n, x) y = ConcatFromSequence <axis=-1> (q)",
    "stacked": "n = Neg (x) q = SequenceConstruct (x, n) y = ConcatFromSequence <axis=-1, new_axis=1> (q)",
    "inserted": "n = Neg (x) e = SequenceEmpty () q = SequenceInsert (e, x) r = SequenceInsert (q, n, last) "
    "y = ConcatFromSequence <axis=0> (r)",
    "erased": "n = Neg (x) q = SequenceConstruct (x, n) r = SequenceErase (q) y = SequenceAt (r, zero)",
    "length": "q = SplitToSequence <axis=1> (x, four) y = SequenceLength (q)",
}


@pytest.mark.parametrize("case", CASES)
def test_known_elements(case: str) -> None:
    assert_same(model("(float[2, 10] x) => (y)", CASES[case]))


def test_wrong_element_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = onnx_rewriting.RULES
    right = rules["SplitToSequence"]

    def reverse(found: Rewriting | None) -> Rewriting:
        assert found is not None
        assert found.elements is not None
        return Rewriting(found.steps, found.elements[::-1])

    plant(monkeypatch, rules, "SplitToSequence", lambda step, state: reverse(right(step, state)))
    with pytest.raises(AssertionError):
        assert_same(model("(float[2, 10] x) => (y)", CASES["smaller last piece"]))


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("(float[2, 10] x, int64 p) => (y)", "q = SplitToSequence <axis=1> (x, four) y = SequenceAt (q, p)"),
        ("(float[N, 10] x) => (y)", "q = SplitToSequence <axis=0> (x) y = SequenceAt (q, last)"),
        (
            "(float[N, 10] x) => (y)",  # the position is 0 for all short inputs
            "s = Shape <start=0, end=1> (x) l = Squeeze (s) big = Mul (four, four) "
            "p = Div (l, big) q = SplitToSequence <axis=1> (x) y = SequenceAt (q, p)",
        ),
        ("(float[2, 10] x) => (q)", "q = SplitToSequence <axis=1> (x, four)"),
    ],
)
def test_unknown_elements_stay(signature: str, body: str) -> None:
    graph = read_onnx(model(signature, body))
    assert "SplitToSequence" in sequence_ops(graph)
    assert "Split" not in [node.op for node in graph.nodes if node.outputs[0] in graph.outputs]


def test_other_axes_stay_dynamic() -> None:
    graph = read_onnx(model("(float[N, 10] x) => (y)", CASES["smaller last piece"]))
    assert graph.values["y"].dynamic == {0}
    assert graph.values["y"].shape == (1, 2)


def test_names_that_the_model_has_are_left_alone() -> None:
    graph = assert_same(
        model("(float[2, 10] x) => (y)", '"q.1" = Neg (x) q = SplitToSequence <axis=1> ("q.1") '
              "y = SequenceAt (q, one)")
    )  # fmt: skip
    assert "q.1_2" in graph.values


def test_the_type_of_a_cast_does_not_pin() -> None:
    body = "h = Gemm <transB=1> (x, a) c = CastLike (b, h) s = Mul (h, c) r = Relu (s) "
    body += "y = Gemm <transB=1> (r, d)"
    weights = "<float[6, 4] a = {%s}, float[6] b = {%s}, float[3, 6] d = {%s}>"
    rng = np.random.default_rng(0)
    filled = weights % tuple(", ".join(map(str, rng.uniform(1, 2, size))) for size in (24, 6, 18))
    header = '<ir_version: 9, opset_import: ["": 18]>'
    proto = onnx.parser.parse_model(f"{header} net (float[2, 4] x) => (y) {filled} {{ {body} }}")
    assert graphnorm.trace(proto).dimension == 12


class Chunks(nn.Module):
    """A gated layer, its halves from one projection."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.first(x).chunk(2, dim=-1)
        return torch.as_tensor(self.last(torch.relu(gate) * value))


class Stacks(nn.Module):
    """Unequal pieces, joined in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first(x)))
        one, two, three = torch.split_with_sizes(hidden, [2, 5, 3], dim=1)
        return torch.as_tensor(self.last(torch.cat([three, one, two], 1)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Chunks, Stacks])
def test_unoptimised_exports_have_the_freedom_of_torch(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module, x = kind().eval(), torch.randn(4, 6)
    logging.disable(logging.WARNING)
    try:
        program = torch.onnx.export(module, (x,), dynamo=True, optimize=False, verbose=False)
    finally:
        logging.disable(logging.NOTSET)
    assert program is not None
    proto = program.model_proto
    assert {"SplitToSequence", "SequenceAt"} <= {node.op_type for node in proto.graph.node}
    source = open_model(proto)
    graph = build(source.network)
    assert graph.dimension == graphnorm.trace(module, (x,)).dimension > 0
    z = powers_of_two(graph, np.random.default_rng(1).normal(size=graph.solution.count))
    emitted = source.emit(rescale(graph, z, exact=True).weights)
    before, after = (source.runner(found, "cpu").run([x.numpy()]) for found in (source.model, emitted))
    np.testing.assert_allclose(after[0], before[0], rtol=1e-4, atol=1e-5)
