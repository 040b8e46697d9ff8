"""ONNX operators for which a plausible rule would change the function, or leave freedom out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphnorm.emission.onnx_file import rescale_onnx
from graphnorm.frontends.onnx.load import to_model, to_proto
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.ir import Array
from graphnorm.rescaling.graph import build
from graphnorm.weights.coefficients import rescale
from tests.support.control_models import node, number, value, weight


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int]],
    weights: Sequence[onnx.TensorProto],
    outputs: str = "y",
    opset: int = 23,
) -> onnx.ModelProto:
    results = [helper.make_empty_tensor_value_info(name) for name in outputs.split()]
    given = [value(name, shape) for name, shape in inputs.items()]
    graph = helper.make_graph(nodes, "net", given, results, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def change(proto: onnx.ModelProto) -> tuple[int, float]:
    """(dimension, largest relative change of an output under a random rescaling), in float64."""
    graph = build(read_onnx(proto))
    rng = np.random.default_rng(0)
    new = rescale(graph, rng.normal(size=graph.solution.count)).weights
    other = to_proto(rescale_onnx(to_model(proto, "net"), new))
    shapes = [(name, graph.network.values[name].shape) for name in graph.network.inputs]
    worst = 0.0
    for _ in range(4):
        feeds: dict[str, Array] = {name: rng.standard_normal(shape) for name, shape in shapes}
        before, after = (ReferenceEvaluator(found).run(None, feeds) for found in (proto, other))
        assert isinstance(before, list)
        assert isinstance(after, list)
        for one, two in zip(map(np.asarray, before), map(np.asarray, after), strict=True):
            assert np.linalg.norm(one) > 0
            worst = max(worst, float(np.linalg.norm(one - two) / np.linalg.norm(one)))
    return graph.dimension, worst


def gained(*operands: str) -> list[onnx.NodeProto]:
    """Operands whose entries all have a scale of their own: o = x * g."""
    return [node("Mul", f"x{name} g{name}", name) for name in operands]


def spectrum(opset: int = 17) -> onnx.ModelProto:
    """Two samples, each with a gain of its own."""
    nodes = [*gained("a"), number("step", 2), number("size", 4), node("STFT", "a step - size", "r")]
    weights = [weight("ga", 2, 1, 1), weight("q", 2, 1, 1, 1)]
    return model([*nodes, node("Mul", "r q", "y")], {"xa": (2, 6, 1)}, weights, opset=opset)


def transform(opset: int) -> onnx.ModelProto:
    """Fourier transform along the default axis, the one before the last."""
    nodes = [*gained("a"), node("DFT", "a", "r"), node("Mul", "r q", "y")]
    return model(nodes, {"xa": (2, 3, 1)}, [weight("ga", 2, 3, 1), weight("q", 2, 3, 2)], opset=opset)


def largest() -> onnx.ModelProto:
    """Hardmax before opset 13 looks at all axes from the second on."""
    nodes = [*gained("a"), node("Hardmax", "a", "y")]
    return model(nodes, {"xa": (2, 2, 3)}, [weight("ga", 2, 2, 3)], opset=11)


def resampled(axis: int, scale: float) -> onnx.ModelProto:
    """Three channels resampled to as many."""
    scales = number("scales", np.array([scale], dtype=np.float32))
    nodes = [*gained("a"), scales, node("Resize", "a - scales", "r", axes=[axis], mode="linear")]
    weights = [weight("ga", 1, 3, 1, 1), weight("q", 1, 3, 1, 1)]
    return model([*nodes, node("Mul", "r q", "y")], {"xa": (1, 3, 2, 2)}, weights)


def enlarged(*scales: float) -> onnx.ModelProto:
    """Three channels; the scales are an initializer, like a weight."""
    nodes = [*gained("a"), node("Resize", "a - scales", "r", mode="linear"), node("Mul", "r q", "y")]
    weights = [weight("ga", 1, 3, 1, 1), weight("q", 1, 3, 1, 1)]
    weights.append(numpy_helper.from_array(np.array(scales, dtype=np.float32), "scales"))
    return model(nodes, {"xa": (1, 3, 2, 2)}, weights, opset=13)


def unpooled(places: Array | None) -> onnx.ModelProto:
    """Two channels put back to where they came from, or to given places."""
    find = [node("MaxPool", "xb", "p i", kernel_shape=[2, 2], strides=[2, 2])]
    if places is not None:
        find = [number("i", places)]
    put = node("MaxUnpool", "a i", "r", kernel_shape=[2, 2], strides=[2, 2])
    weights = [weight("ga", 1, 2, 1, 1), weight("q", 1, 2, 1, 1)]
    sizes = {"xa": (1, 2, 1, 1)} | ({"xb": (1, 2, 2, 2)} if places is None else {})
    return model([*gained("a"), *find, put, node("Mul", "r q", "y")], sizes, weights)


def attention(operands: str = "q k v", outputs: str = "r", **extra: Array) -> onnx.ModelProto:
    """One head; queries, keys and values with a scale per entry, as the value of the result."""
    nodes = [*gained("q", "k", "v"), *(number(name, array) for name, array in extra.items())]
    if "size" in extra:
        nodes.append(node("ConstantOfShape", "size", "zero", value=numpy_helper.from_array(np.zeros(1))))
        nodes += [node("Concat", f"{name} zero", f"{name}0", axis=2) for name in "kv"]
    layer = node("Attention", operands, outputs)
    layer.output[:] = ["" if name == "-" else name for name in layer.output]
    nodes += [layer, node("Mul", "r u", "y")]
    weights = [weight(f"g{name}", 1, 1, 2, 2) for name in "qkv"] + [weight("u", 1, 1, 2, 2)]
    given = "y scores" if "scores" in outputs else "y"
    return model(nodes, {f"x{name}": (1, 1, 2, 2) for name in "qkv"}, weights, given, opset=24)


CASES: dict[str, tuple[Callable[[], onnx.ModelProto], int]] = {
    "STFT keeps samples apart": (spectrum, 2),
    "DFT of opset 17": (lambda: transform(17), 2),
    "DFT of opset 20": (lambda: transform(20), 2),
    "Hardmax of opset 11": (largest, 2),
    "Resize of channels to as many": (lambda: resampled(1, 1.2), 1),
    "Resize by 1": (lambda: resampled(1, 1.0), 3),
    "Resize of pixels, by an initializer": (lambda: enlarged(1.0, 1.0, 2.0, 2.0), 3),
    "Resize of channels, by an initializer": (lambda: enlarged(1.0, 1.2, 2.0, 2.0), 1),
    "MaxUnpool of a MaxPool": (lambda: unpooled(None), 2),
    "MaxUnpool into the other channel": (lambda: unpooled(np.array([[[[5]], [[1]]]])), 1),
    "Attention": (attention, 4),
    "Attention with its scores": (lambda: attention("q k v", "r - - scores"), 4),
    "Attention with padding": (lambda: attention("q k v - - - n", n=np.array([1])), 4),
    "Attention to zeros": (lambda: attention("q k0 v0", size=np.array([1, 1, 1, 2])), 4),
    "Attention with zeros as cache": (
        lambda: attention("q k v - zero zero", "r pk pv", size=np.array([1, 1, 1, 2])), 4
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operators_keep_their_function(name: str) -> None:
    make, dimension = CASES[name]
    found, difference = change(make())
    assert found == dimension
    assert difference < 1e-9


def test_batch_norm_of_a_vector_is_pinned() -> None:
    nodes = [*gained("a"), node("BatchNormalization", "a s b m v", "r"), node("Mul", "r q", "y")]
    sizes = {"ga": 1, "s": 1, "b": 1, "m": 1, "v": 1, "q": 1}
    proto = model(nodes, {"xa": (3,)}, [weight(name, n) for name, n in sizes.items()], opset=15)
    assert build(read_onnx(proto)).dimension == 0


def test_resize_of_opset_10_has_its_scales_second() -> None:
    nodes = [*gained("a"), number("scales", np.array([1.0, 1.2, 1.0, 1.0], dtype=np.float32))]
    nodes += [node("Resize", "a scales", "r", mode="linear"), node("Mul", "r q", "y")]
    weights = [weight("ga", 1, 3, 1, 1), weight("q", 1, 3, 1, 1)]
    proto = model(nodes, {"xa": (1, 3, 2, 2)}, weights, opset=10)
    assert build(read_onnx(proto)).dimension == 1


def test_statistics_as_results_mean_training_before_opset_14() -> None:
    names = "s", "b", "m", "v"
    nodes = [*gained("a"), node("BatchNormalization", "a s b m v", "y new_m new_v old_m old_v")]
    weights = [weight("ga", 1, 2, 1), *(weight(name, 2) for name in names)]
    alone, training = (
        model(nodes, {"xa": (2, 2, 2)}, weights, outputs, opset=9) for outputs in ("y", "y new_m")
    )
    del alone.graph.node[-1].output[1:]
    assert build(read_onnx(alone)).dimension == 2
    assert build(read_onnx(training)).dimension == 0


@pytest.mark.parametrize(("version", "moves"), [(3, True), (10, False)])
def test_initializers_that_callers_may_override_keep_their_values(version: int, moves: bool) -> None:
    """Before IR version 4 every initializer had to be listed as an input; since then listing is an offer."""
    nodes = [node("MatMul", "x a", "h"), node("Relu", "h", "r"), node("MatMul", "r b", "y")]
    given = {"x": (2, 3), "a": (3, 4)}
    proto = model(nodes, given, [weight("a", 3, 4), weight("b", 4, 2)], opset=8)
    proto.ir_version = version
    graph = build(read_onnx(proto))
    assert graph.dimension == (4 if moves else 0)
    assert ("a" in graph.network.weights) is moves
    assert graph.network.inputs == ("x",) or list(graph.network.inputs) == ["x"]
