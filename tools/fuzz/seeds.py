"""Small models to damage: layers, attention, control flow, functions, quantisation, sizes that are open."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper, parser

_HEAD = '<ir_version: 9, opset_import: ["" : 21, "own" : 1]>\n'
# Name -> graph in ONNX's text format, and the weights that join it.
_TEXTS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "perceptron": (
        """net (float[N, 4] x) => (float[N, 2] y) {
            h = Gemm <alpha = 1.0> (x, a, c)
            r = Relu(h)
            y = MatMul(r, b)
        }""",
        {"a": (4, 6), "c": (6,), "b": (6, 2)},
    ),
    "convolution": (
        """net (float[1, 3, 8, 8] x) => (y) {
            h = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x, k, b)
            n = BatchNormalization <epsilon = 0.001> (h, gain, shift, mean, variance)
            r = LeakyRelu <alpha = 0.1> (n)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
            d = Conv <group = 4> (p, depth)
            g = GlobalAveragePool(d)
            f = Flatten <axis = 1> (g)
            y = MatMul(f, out)
        }""",
        {
            "k": (4, 3, 3, 3),
            "b": (4,),
            "gain": (4,),
            "shift": (4,),
            "mean": (4,),
            "variance": (4,),
            "depth": (4, 1, 1, 1),
            "out": (4, 2),
        },
    ),
    "attention": (
        """net (float[batch, length, 8] x) => (y)
        <int64[4] heads = {0, 0, 2, 4}, int64[3] flat = {0, 0, 8}, float scale = {0.5}> {
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            qs = Reshape(q, heads)
            ks = Reshape(k, heads)
            vs = Reshape(v, heads)
            qt = Transpose <perm = [0, 2, 1, 3]> (qs)
            kt = Transpose <perm = [0, 2, 3, 1]> (ks)
            vt = Transpose <perm = [0, 2, 1, 3]> (vs)
            s = MatMul(qt, kt)
            m = Mul(s, scale)
            p = Softmax <axis = -1> (m)
            o = MatMul(p, vt)
            t = Transpose <perm = [0, 2, 1, 3]> (o)
            f = Reshape(t, flat)
            e = MatMul(f, wo)
            a = Add(e, x)
            y = LayerNormalization <axis = -1> (a, gain)
        }""",
        {"wq": (8, 8), "wk": (8, 8), "wv": (8, 8), "wo": (8, 8), "gain": (8,)},
    ),
    "loop": (
        """net (float[2, 4] x) => (y, stacked)
        <int64 trips = {3}, bool go = {1}> {
            y, stacked = Loop (trips, go, x) <
                body = body (int64 i, bool on, float[2, 4] s) => (bool on_, float[2, 4] n, float[2, 4] e) {
                on_ = Identity(on)
                h = MatMul(s, w)
                n = Tanh(h)
                e = Identity(n)
            }>
        }""",
        {"w": (4, 4)},
    ),
    "scan": (
        """net (float[5, 4] x) => (last, all)
        <float[4] start = {0, 0, 0, 0}> {
            last, all = Scan <num_scan_inputs = 1,
                body = body (float[4] s, float[4] e) => (float[4] n, float[4] r) {
                h = Add(s, e)
                n = Relu(h)
                r = Mul(n, g)
            }> (start, x)
        }""",
        {"g": (4,)},
    ),
    "branch": (
        """net (float[2, 4] x) => (y)
        <float zero = {0.0}> {
            total = ReduceSum <keepdims = 0> (x)
            positive = Greater(total, zero)
            y = If (positive) <
                then_branch = yes () => (float[2, 4] a) { h = MatMul(x, w) a = Relu(h) },
                else_branch = no () => (float[2, 4] b) { b = MatMul(x, v) }>
        }""",
        {"w": (4, 4), "v": (4, 4)},
    ),
    "shapes": (
        """net (float[N, C, H, W] x) => (y)
        <int64 one = {1}, int64[1] axes = {0}, int64[1] last = {-1},
         float[4] scales = {1, 1, 2, 2}, int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}> {
            shape = Shape(x)
            n = Gather <axis = 0> (shape, one)
            nu = Unsqueeze(n, axes)
            target = Concat <axis = 0> (nu, last)
            r = Resize <mode = "nearest"> (x, , scales)
            p = Pad(r, pads)
            f = Reshape(p, target)
            t = Transpose(f)
            s = ReduceMax <keepdims = 1> (t, last)
            e = Expand(s, nu)
            first, second = Split <axis = 0, num_outputs = 2> (t)
            c = Concat <axis = 0> (first, second)
            y = Mul(c, e)
        }""",
        {},
    ),
    "recurrent": (
        """net (float[3, 2, 4] x) => (y, h, c)
        <int64[1] one = {1}> {
            all, h, c = LSTM <hidden_size = 3> (x, w, r, b)
            s = Squeeze(all, one)
            y = MatMul(s, out)
        }""",
        {"w": (1, 12, 4), "r": (1, 12, 3), "b": (1, 24), "out": (3, 2)},
    ),
    "quantised": (
        """net (float[2, 4] x) => (y)
        <float scale = {0.1}, int8 zero = {0}> {
            q = QuantizeLinear(x, scale, zero)
            d = DequantizeLinear(q, scale, zero)
            h = MatMul(d, a)
            c = Clip(h, low, high)
            e = Einsum <equation = "ij,jk->ik"> (c, b)
            i = ArgMax <axis = 1, keepdims = 0> (e)
            t = Gather(b, i)
            y = Sum(e, t)
        }""",
        {"a": (4, 2), "b": (2, 2), "low": (), "high": ()},
    ),
}
_FUNCTION = """<domain: "own", opset_import: ["" : 21]>
block (x, w) => (y) { h = MatMul(x, w) y = Relu(h) }"""


def seeds() -> dict[str, onnx.ModelProto]:
    """Name -> model."""
    found: dict[str, onnx.ModelProto] = {}
    for name, (text, shapes) in _TEXTS.items():
        model = parser.parse_model(_HEAD + text)
        _add_weights(model, shapes)
        found[name] = model
    called = parser.parse_model(
        _HEAD + "net (float[2, 4] x) => (y) { h = own.block(x, a) y = own.block(h, b) }"
    )
    called.functions.append(parser.parse_function(_FUNCTION))
    _add_weights(called, {"a": (4, 4), "b": (4, 2)})
    return {**found, "functions": called}


def _add_weights(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        array = np.asarray(generator.normal(size=shape), np.float32)
        if name == "variance":
            array = np.abs(array) + 1
        model.graph.initializer.append(numpy_helper.from_array(array, name))
