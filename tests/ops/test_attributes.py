"""Attributes are complete: left out, one says the same as at its default, for all of ONNX's schemas."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, defs, helper

from graphnorm.errors import GraphNormError, InvalidGraphError
from graphnorm.frontends.onnx.load import to_model
from graphnorm.frontends.onnx.nodes import _BEFORE_ATTRIBUTE
from graphnorm.frontends.onnx.read import OLDEST_OPSET, read_onnx
from graphnorm.frontends.onnx.schemas import schema_defaults
from graphnorm.ir import Graph, Node, Value
from graphnorm.ops.attributes import BEFORE, DEFAULTS, completed
from graphnorm.ops.defaults import OPSET, SCHEMAS
from tools.operator_defaults import newest

TYPES = {f"tensor({name.lower()})": code for name, code in TensorProto.DataType.items()}
SHAPES = [(2, 4), (1, 4, 6, 6), (2, 3, 4), (4,), (), (1, 4, 6, 6, 2), (3, 4, 4)]
OPERANDS: dict[str, tuple[tuple[int, ...], ...]] = {  # where their shapes must fit
    "BatchNormalization": ((1, 4, 6, 6), (4,), (4,), (4,), (4,)),
    "ConvTranspose": ((1, 4, 6, 6), (4, 2, 2, 2)),
    "Gemm": ((2, 4), (4, 3)), "RNN": ((3, 2, 4), (1, 2, 4), (1, 2, 2)),
    "GRU": ((3, 2, 4), (1, 6, 4), (1, 6, 2)), "LSTM": ((3, 2, 4), (1, 8, 4), (1, 8, 2)),
    "Conv": ((1, 4, 6, 6), (2, 4, 2, 2)), "InstanceNormalization": ((1, 4, 6, 6), (4,), (4,)),
    "GroupNormalization": ((1, 4, 6, 6), (4,), (4,)), "LayerNormalization": ((2, 4), (4,)),
    "MaxRoiPool": ((1, 4, 6, 6), (2, 5)), "RoiAlign": ((1, 4, 6, 6), (2, 4), (2,)), "STFT": ((1, 8, 1), ()),
    "GridSample": ((1, 4, 6, 6), (1, 3, 3, 2)), "OneHot": ((4,), (), (2,)), "Resize": ((1, 4, 6, 6),),
    "ReverseSequence": ((3, 2, 4), (2,)), "ScatterElements": ((2, 4), (2, 4), (2, 4)),
    "NegativeLogLikelihoodLoss": ((2, 4), (2,)), "SoftmaxCrossEntropyLoss": ((2, 4), (2,)),
    "DeformConv": ((1, 4, 6, 6), (2, 4, 2, 2), (1, 8, 5, 5)), "ConvInteger": ((1, 4, 6, 6), (2, 4, 2, 2)),
    "RotaryEmbedding": ((1, 2, 3, 4), (3, 2), (3, 2)), "SpaceToDepth": ((1, 4, 6, 6),),
    "DepthToSpace": ((1, 4, 6, 6),), "CausalConvWithState": ((1, 4, 6), (4, 1, 2)),
}  # fmt: skip
REQUIRED: dict[str, Any] = {  # of attributes without a default
    "kernel_shape": [2, 2], "to": 1, "axis": 0, "blocksize": 2, "hidden_size": 2, "pooled_shape": [2, 2],
    "equation": "ij->ij", "size": 3, "num_groups": 2, "direction": "MAX", "shape": [2, 3], "num_heads": 2,
    "q_num_heads": 2, "kv_num_heads": 2, "dtype": 1, "blocks": 2,
}  # fmt: skip


def small(name: str, attributes: dict[str, Any], shapes: tuple[tuple[int, ...], ...]) -> onnx.ModelProto:
    """A model of one operator, whose operands are inputs of the first type that it takes."""
    schema = defs.get_schema(name, OPSET)
    needed = [item for item in schema.inputs if item.option == defs.OpSchema.FormalParameterOption.Single]
    chosen: dict[str, int] = {}
    for item in schema.type_constraints:
        allowed = [TYPES[text] for text in item.allowed_type_strs if text in TYPES]
        chosen[item.type_param_str] = (
            TensorProto.FLOAT if TensorProto.FLOAT in allowed else (allowed or [1])[0]
        )
    inputs = [
        helper.make_tensor_value_info(f"x{i}", chosen.get(item.type_str, TYPES.get(item.type_str, 1)), shape)
        for i, (item, shape) in enumerate(zip(needed, itertools.cycle(shapes), strict=False))
    ]
    given = {
        key: REQUIRED[key] for key, item in schema.attributes.items() if item.required and key in REQUIRED
    }
    results = [f"y{i}" for i in range(max(schema.min_output, 1))]
    node = helper.make_node(name, [x.name for x in inputs], results, **{**given, **attributes})
    outputs = [onnx.ValueInfoProto(name=result) for result in results]
    graph = helper.make_graph([node], "one", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])


def network(name: str, attributes: dict[str, Any], shapes: tuple[tuple[int, ...], ...]) -> Graph:
    return read_onnx(to_model(small(name, attributes, shapes), "one"))


def shapes_of(name: str) -> tuple[tuple[int, ...], ...] | None:
    """Shapes that the front end reads the operator with."""
    for shapes in [OPERANDS[name]] if name in OPERANDS else [(shape,) for shape in SHAPES]:
        try:
            network(name, {}, shapes)
        except (GraphNormError, onnx_ir.serde.SerdeError):
            continue
        return shapes
    return None


@pytest.mark.skipif(defs.onnx_opset_version() < OPSET, reason="an older onnx")
def test_the_table_is_that_of_onnx() -> None:
    known = {schema.name for schema in defs.get_all_schemas() if schema.since_version <= OPSET}
    expected = {name: found for name, found in newest().items() if name in known}
    if defs.onnx_opset_version() == OPSET:
        assert expected == SCHEMAS
    for name in SCHEMAS:
        assert schema_defaults(defs.get_schema(name, OPSET)) == SCHEMAS[name], name


READ = {name: shapes for name in SCHEMAS if (shapes := shapes_of(name)) is not None}


def test_nearly_all_operators_are_tried() -> None:
    """The others need operands of types or shapes of their own."""
    assert len(READ) > 0.85 * len(SCHEMAS), sorted(set(SCHEMAS) - set(READ))


@pytest.mark.parametrize("name", READ)
def test_a_default_written_out_says_the_same(name: str) -> None:
    shapes = READ[name]
    expected = network(name, {}, shapes)
    for attribute, value in SCHEMAS[name].items():
        found = network(name, {attribute: value}, shapes)
        assert found.nodes == expected.nodes, attribute
    for node in expected.nodes:  # none where the result is known
        assert SCHEMAS[name].keys() <= node.attributes.keys()


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_a_node_holds_every_attribute(name: str) -> None:
    assert DEFAULTS[name].keys() <= Node("n", name, ("x",), ("y",)).attributes.keys()


def test_a_value_other_than_the_default_is_kept() -> None:
    for name, attribute, value in (("Softmax", "axis", 1), ("Gemm", "alpha", 0.5), ("LRN", "beta", 0.5)):
        assert Node("n", name, ("x", "w", "b"), ("y",), {attribute: value}).attributes[attribute] == value


@pytest.mark.parametrize(
    ("name", "given", "same"),
    [
        ("Resize", {"mode": "linear", "cubic_coeff_a": -0.5}, {"mode": "linear"}),
        ("Resize", {"mode": "linear", "nearest_mode": "ceil"}, {"mode": "linear"}),
        ("Resize", {"extrapolation_value": 3.0}, {}),
        ("BatchNormalization", {"momentum": 0.5}, {}),
        ("MaxPool", {"kernel_shape": (2,), "storage_order": 1}, {"kernel_shape": (2,)}),
        ("Conv", {"auto_pad": "SAME_UPPER", "pads": (1, 1)}, {"auto_pad": "SAME_UPPER"}),
        ("Conv", {"auto_pad": "VALID", "pads": (0, 0)}, {}),
        ("GridSample", {"mode": b"bilinear"}, {"mode": "linear"}),
        ("RNN", {"activations": ("Tanh", "Tanh")}, {}),
        ("BatchNormalization", {"spatial": 1, "consumed_inputs": (0, 0)}, {}),
    ],
)
def test_what_means_nothing_is_no_difference(name: str, given: dict[str, Any], same: dict[str, Any]) -> None:
    assert completed(name, given, 2, 1) == completed(name, same, 2, 1)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("Resize", {"mode": "cubic", "cubic_coeff_a": -0.5}),
        ("Resize", {"nearest_mode": "ceil"}),
        ("Resize", {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 3.0}),
        ("BatchNormalization", {"momentum": 0.5, "training_mode": 1}),
        ("BatchNormalization", {"momentum": 0.5, BEFORE: 14}),
        ("BatchNormalization", {"spatial": 0}),
        ("RNN", {"activations": ("Relu",)}),
        ("Gemm", {"beta": 0.5}),
    ],
)
def test_what_means_something_stays(name: str, given: dict[str, Any]) -> None:
    found = completed(name, given, 3, 1)
    assert {key: found[key] for key in given} == given


def test_what_a_result_reads_stays() -> None:
    assert completed("MaxPool", {"storage_order": 1}, 1, 2)["storage_order"] == 1
    assert completed("MaxPool", {"storage_order": 1}, 1, 1)["storage_order"] == 0
    assert completed("Gemm", {"beta": 0.5}, 2, 1)["beta"] == 1.0


def test_the_default_is_that_of_the_models_opset() -> None:
    """Softmax before opset 13 flattens from axis 1; Resize of opset 10 has no half pixels."""

    def read(opset: int, op: str, *operands: str, held: Any = None) -> Node:
        value = helper.make_tensor_value_info
        tensors = [onnx.numpy_helper.from_array(array, name) for name, array in (held or {}).items()]
        graph = helper.make_graph(
            [helper.make_node(op, ["x", *operands], ["y"])],
            "one", [value("x", 1, (1, 2, 3, 4))], [value("y", 1, None)], tensors,
        )  # fmt: skip
        return read_onnx(
            to_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), "one")
        ).nodes[-1]

    assert read(11, "Softmax").attributes["axis"] == 1
    assert read(13, "Softmax").attributes["axis"] == -1
    scales = {"s": np.array([1, 1, 2, 2], np.float32)}
    assert read(10, "Resize", "s", held=scales).attributes["coordinate_transformation_mode"] == "asymmetric"
    newer = read(13, "Resize", "", "s", held=scales).attributes["coordinate_transformation_mode"]
    assert newer == "half_pixel"


# Attributes that came later, at whose default the operator does what it did before.
SAME_BEFORE = {
    "ceil_mode", "storage_order", "training_mode", "select_last_index", "left_window_size", "round_mode",
    "right_window_size", "saturate", "axis", "block_size", "output_dtype", "precision", "layout", "start",
    "batch_dims", "stash_type", "noop_with_empty_axes", "allowzero", "antialias", "keep_aspect_ratio_policy",
    "reduction", "largest", "sorted", "mode", "cubic_coeff_a", "exclude_outside", "extrapolation_value",
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_defaults_of_later_attributes_say_what_was_before(name: str) -> None:
    """An attribute that a former schema lacks is in the list above, or has a former value."""
    _, former = _BEFORE_ATTRIBUTE.get(name, (0, {}))
    for opset in range(OLDEST_OPSET, OPSET):
        if defs.has(name, opset, ""):
            known = schema_defaults(defs.get_schema(name, opset)).keys()
            assert SCHEMAS[name].keys() - known - SAME_BEFORE <= former.keys(), opset


def test_rois_have_whole_pixels_before_opset_16() -> None:
    def read(opset: int) -> Any:
        value = helper.make_tensor_value_info
        inputs = [value("x", 1, (1, 2, 8, 8)), value("r", 1, (2, 4)), value("b", 7, (2,))]
        node = helper.make_node("RoiAlign", ["x", "r", "b"], ["y"])
        graph = helper.make_graph([node], "one", inputs, [value("y", 1, None)])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        return read_onnx(to_model(model, "one")).nodes[-1].attributes["coordinate_transformation_mode"]

    assert [read(10), read(16)] == ["output_half_pixel", "half_pixel"]


def test_an_incomplete_node_is_refused() -> None:
    node = Node("n", "Softmax", ("x",), ("y",))
    object.__setattr__(node, "attributes", {})
    values = {name: Value(name, (2,), "float32") for name in "xy"}
    with pytest.raises(InvalidGraphError, match="node 'n' \\(Softmax\\) lacks attribute 'axis'"):
        Graph("g", ("x",), ("y",), (node,), values).verify()
