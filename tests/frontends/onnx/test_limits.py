"""Models that ask for too much or make no sense: one sentence that names the node, before all work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from typer.testing import CliRunner

import graphnorm
from graphnorm.alignment.lowering import LOWERINGS
from graphnorm.cli.commands import app
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.util.limits import Limits, current, limits
from tests.support.planting import plant

HEAD = '<ir_version: 9, opset_import: ["" : 19, "own" : 1]>\n'


def model(text: str, **weights: Any) -> onnx.ModelProto:
    found = parser.parse_model(HEAD + text)
    for name, array in weights.items():
        found.graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
    for number, node in enumerate(found.graph.node):
        node.name = f"n{number}"
    return found


HUGE = {
    "tile": "net (float[1, 4] x) => (y) <int64[2] s = {1048576, 1048576}> "
    "{ h = Tile(x, s) y = ReduceMax(h) }",
    "pad": "net (float[1, 4] x) => (y) <int64[4] s = {0, 0, 0, 70000000}> { h = Pad(x, s) y = ReduceMax(h) }",
    "constant": "net (float[1] x) => (y) <int64[2] s = {1048576, 1048576}> "
    "{ h = ConstantOfShape(s) m = Cast <to = 1> (h) n = Add(m, x) y = ReduceMax(n) }",
    "outer product": "net (float[40000, 1] x, float[1, 40000] z) => (y) { h = Mul(x, z) y = ReduceMax(h) }",
    "resize": "net (float[1, 1, 8, 8] x) => (y) <float[4] s = {1, 1, 1000000, 1000}> "
    "{ h = Resize(x, , s) y = ReduceMax(h) }",
    "input": "net (float[1000000, 1000] x) => (y) { y = Relu(x) }",
}


@pytest.mark.parametrize("name", HUGE)
def test_results_too_large_for_memory(name: str) -> None:
    with pytest.raises(
        graphnorm.ModelFileError, match=r"(node 'n\d' \(\w+\)|'x') has .* entries .*no-limits"
    ):
        graphnorm.trace(model(HUGE[name]))


def test_the_limit_grows_with_what_the_caller_gives_and_with_the_weights() -> None:
    text = (
        "net (float[N] x) => (y) { u = Unsqueeze(x, a) v = Unsqueeze(x, b) h = Mul(u, v) y = ReduceMax(h) }"
    )
    net = model(text)
    for name, axis in (("a", 0), ("b", 1)):
        net.graph.initializer.append(numpy_helper.from_array(np.array([axis]), name))
    with limits(entries=1_000):
        with pytest.raises(
            graphnorm.ModelFileError, match=r"has 9e\+04 entries \(300, 300\), at most 7.68e\+04"
        ):
            read_onnx(net, {"x": (300,)})
        read_onnx(net, {"x": (200,)})
        net.graph.initializer.append(numpy_helper.from_array(np.ones(20_000, np.float32), "large"))
        net.graph.node.add(op_type="ReduceSum", input=["large"], output=["z"], name="n9")
        net.graph.output.add().name = "z"
        read_onnx(net, {"x": (300,)})


def doubling(levels: int) -> onnx.ModelProto:
    net = model(f"net (float[2] x) => (y) {{ y = own.f{levels} (x) }}")
    texts = ["f0 (a) => (b) { b = Relu(a) }"]
    texts += [
        f"f{i} (a) => (b) {{ t = own.f{i - 1} (a) b = own.f{i - 1} (t) }}" for i in range(1, levels + 1)
    ]
    head = '<domain: "own", opset_import: ["" : 19, "own" : 1]>\n'
    net.functions.extend(parser.parse_function(head + text) for text in texts)
    return net


def test_functions_that_double() -> None:
    assert graphnorm.trace(doubling(5)).dimension == 0
    with pytest.raises(
        graphnorm.ModelFileError, match=r"the 62 nodes of the file are 1.07e\+09 once functions"
    ):
        graphnorm.trace(doubling(30))
    with limits(nodes=30), pytest.raises(graphnorm.ModelFileError, match=r"are 1.02e"):
        graphnorm.trace(doubling(10))


def test_functions_that_call_each_other() -> None:
    net = doubling(3)
    net.functions[0].node[0].op_type, net.functions[0].node[0].domain = "f3", "own"
    with pytest.raises(graphnorm.ModelFileError, match="calls itself: 'f3' -> 'f2' -> 'f1' -> 'f0' -> 'f3'"):
        graphnorm.trace(net)


def test_functions_nested_too_deeply() -> None:
    net = doubling(1000)
    for function in net.functions[1:]:
        del function.node[1]
        function.node[0].output[0] = "b"
    with pytest.raises(
        graphnorm.ModelFileError, match=r"its functions (are nested too deeply|cannot be inlined)"
    ):
        graphnorm.trace(net)


LOOP = """net (float[2] x) => (y) <int64 trips = {%d}, bool go = {1}> {
    y = Loop (%s, go, x) <body = b (int64 i, bool on, float[2] s) => (bool on_, float[2] n) {
        on_ = %s n = Relu(s) }> }"""


@pytest.mark.parametrize(
    ("trips", "operand", "proceed", "often"),
    [
        (2**60, "trips", "Identity(on)", r"1.15e\+18 times"),
        (60_000, "trips", "Identity(on)", r"6e\+04 times"),
        (1, "", "Identity(on)", "without end"),
    ],
)
def test_loops_that_do_not_end(trips: int, operand: str, proceed: str, often: str) -> None:
    net = model(LOOP % (trips, operand, proceed))
    with pytest.raises(
        graphnorm.ModelFileError, match=rf"node 'n0' \(Loop\) is not valid: its body .* {often}"
    ):
        graphnorm.trace(net)


def test_loops_that_end() -> None:
    assert graphnorm.trace(model(LOOP % (40_000, "trips", "Identity(on)"))).dimension == 0
    with limits(steps=math.inf):
        assert graphnorm.trace(model(LOOP % (10**9, "trips", "Identity(on)"))).dimension == 0


def test_a_scan_over_too_many() -> None:
    net = model(
        "net (float[2] s, float[1000000, 2] x) => (y, z) { y, z = Scan <num_scan_inputs = 1, body = b "
        "(float[2] c, float[2] e) => (float[2] n, float[2] r) { n = Add(c, e) r = Relu(n) }> (s, x) }"
    )
    with pytest.raises(graphnorm.ModelFileError, match=r"node 'n0' \(Scan\) .* of 2 nodes runs 1e\+06 times"):
        graphnorm.trace(net)


def test_limits_hold_within_the_block_alone() -> None:
    with limits(nodes=3):
        with limits(entries=5.0):
            assert current() == Limits(entries=5.0, nodes=3)
        assert current() == Limits(nodes=3)
    assert current() == Limits()


def test_the_option_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model(HUGE["tile"]), path)
    refused = CliRunner().invoke(app, ["inspect", str(path)])
    assert refused.exit_code == 2
    assert "node 'n0' (Tile) has 4.4e+12 entries" in " ".join(refused.stderr.split())
    assert CliRunner().invoke(app, ["--no-limits", "inspect", str(path)]).exit_code == 0
    assert CliRunner().invoke(app, ["inspect", str(path)]).exit_code == 2


CONV = "net (float[1, 4, 6, 6] x) => (y) { y = Conv <%s> (x, k) }"
DECONV = "net (float[1, 4, 6, 6] x) => (y) { y = ConvTranspose <%s> (x, k) }"
BATCHED = "net (float[2, 3] x, int64[2, 1] i) => (y) { y = GatherND <batch_dims = %d> (x, i) }"
INVALID = {
    "group of none": (CONV % "group = 0", (4, 2, 1, 1), "group must be positive, got 0"),
    "negative group": (DECONV % "group = -2", (4, 2, 1, 1), "group must be positive, got -2"),
    "groups that do not divide": (CONV % "group = 3", (4, 2, 1, 1), "do not make 3 groups"),
    "another number of channels": (CONV % "group = 1", (4, 3, 1, 1), "do not make 1 groups"),
    "filters that do not divide": (CONV % "group = 2", (5, 2, 1, 1), "do not make 2 groups"),
    "channels of the transposed": (DECONV % "group = 1", (3, 2, 1, 1), "do not make 1 groups"),
    "stride of none": (CONV % "strides = [0, 1]", (4, 4, 1, 1), r"strides must be positive, got \(0, 1\)"),
    "negative dilation": (CONV % "dilations = [-1, 1]", (4, 4, 1, 1), "dilations must be positive"),
    "no operand": ("net (float[1, 4] x) => (y) { y = Transpose () }", (1,), "0 of 1 operands are given"),
    "length of nothing": ("net (float[1, 4] x) => (y) { y = SequenceLength () }", (1,), "0 of 1 operands"),
    "place in nothing": ("net (float[1, 4] x) => (y) { y = SequenceAt () }", (1,), "0 of 2 operands"),
    "one of two": ("net (float[1, 4] x) => (y) { y = GatherND (x) }", (1,), "1 of 2 operands are given"),
    "batch of none": (BATCHED % -100, (1,), "batch_dims must be from 0 to 1, got -100"),
    "batch of all": (BATCHED % 2, (1,), "batch_dims must be from 0 to 1, got 2"),
    "attribute of a type": (CONV % "group = 1.5", (4, 4, 1, 1), "group must be INT, got FLOAT"),
    "permutation": ("net (float[1, 4] x) => (y) { y = Transpose <perm = [0, 5]> (x) }", (1,), "perm"),
    "axis": ("net (float[1, 4] x) => (y) { y = Concat <axis = 9> (x, x) }", (1,), "axis"),
    "sizes": ("net (float[1, 4] x) => (y) { y = MatMul (x, k) }", (3, 2), "[Ii]ncompatible dimensions"),
    "expanded": ("net (float[1, 4] x) => (y) <int64[2] s = {1, 3}> { y = Expand (x, s) }", (1,), "."),
}


@pytest.mark.parametrize("name", INVALID)
def test_nodes_that_no_runtime_takes(name: str) -> None:
    text, shape, why = INVALID[name]
    with pytest.raises(graphnorm.ModelFileError, match=rf"node 'n0' \(\w+\) is not valid: .*{why}"):
        graphnorm.trace(model(text, k=np.ones(shape)))


def test_a_body_with_a_node_of_no_operands() -> None:
    """Its trip count is asked for before its nodes are looked at."""
    text = (
        "net (float[1, 4] x) => (y) <int64 t = {3}, bool g = {1}> { y = Loop <body = b (int64 i, bool on, "
        "float[1, 4] s) => (bool off, float[1, 4] n) { off = Identity () n = Tanh (s) }> (t, g, x) }"
    )
    with pytest.raises(graphnorm.ModelFileError, match="0 of 1 operands are given"):
        graphnorm.trace(model(text))


def test_what_open_sizes_may_mend_is_not_refused() -> None:
    """No example size fits here; the caller's may."""
    net = model("net (float[N] x) => (y) { y = Add(x, k) }", k=np.ones(37))
    assert graphnorm.trace(net).dimension == 0
    assert graphnorm.trace(net, input_shapes={"x": (37,)}).dimension == 0


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"location": "w.bin", "offset": "ten"}, "has offset 'ten', a number of bytes is needed"),
        ({"location": "w.bin", "length": "-1"}, "has length '-1', a number"),
        ({"location": "w.bin", "offset": str(2**70)}, "has offset '118"),
        ({"location": ""}, "has no location"),
        ({"offset": "0"}, "has no location"),
    ],
)
@pytest.mark.parametrize("place", ["initializer", "attribute", "body"])
def test_external_data_in_words(entries: dict[str, str], why: str, place: str) -> None:
    net = model(
        "net (float[2] x) => (y) { c = Constant <value = float[2] {1, 2}> () y = Add(x, c) }", w=[1, 2]
    )
    tensor = net.graph.initializer[0]
    if place != "initializer":
        tensor = net.graph.node[0].attribute[0].t
    tensor.name = "w"
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    if place == "body":
        inner = onnx.GraphProto()
        inner.CopyFrom(net.graph)
        net.graph.node.add(op_type="If", name="n9").attribute.add(
            name="then_branch", type=onnx.AttributeProto.GRAPH, g=inner
        )
        tensor.data_location = onnx.TensorProto.DEFAULT
    with pytest.raises(graphnorm.ModelFileError, match=f"external data of tensor 'w' .* {why}"):
        graphnorm.trace(net)


def test_memory_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: object) -> None:
        np.empty(2**58)

    monkeypatch.setattr("graphnorm.api.trace.open_model", greedy)
    with pytest.raises(
        graphnorm.InputError, match=r"not enough memory for this model \(Unable to allocate .*EiB"
    ):
        graphnorm.trace(model(HUGE["tile"]))


def test_a_version_that_no_operator_has() -> None:
    net = model("net (float[2] x) => (y) { y = own.f(x) }")
    net.opset_import[1].version = 2**40
    assert graphnorm.trace(net).dimension == 0


def test_a_weight_that_is_an_output_is_compared() -> None:
    net = model("net (float[2] x) => (y, w) { y = Add(x, w) }", w=[1, 2])
    other = model("net (float[2] x) => (y, w) { y = Add(x, w) }", w=[1, 3])
    assert graphnorm.check(net, net, seconds=0.5).verdict == "identical"
    assert graphnorm.check(net, other, seconds=0.5).verdict == "differs"


def test_a_defect_in_a_normal_form_leaves_the_operator_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def defective(*_: object) -> None:
        raise IndexError("tuple index out of range")

    plant(monkeypatch, LOWERINGS, "Relu", defective)
    net = model("net (float[2, 2] x) => (y) { h = MatMul(x, w) y = Relu(h) }", w=[[1, 2], [3, 4]])
    other = model("net (float[2, 2] x) => (y) { h = MatMul(x, w) y = Relu(h) }", w=[[1, 2], [3, 5]])
    assert graphnorm.check(net, net, seconds=0.5).verdict == "identical"
    assert graphnorm.check(net, other, seconds=0.5).verdict == "differs"
