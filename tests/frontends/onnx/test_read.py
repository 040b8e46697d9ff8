"""Reading ONNX models: tensors, sizes, folding, control flow, and every way a file can be bad."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphnorm.errors import InputError, ModelFileError
from graphnorm.frontends.onnx.read import load_model, read_onnx
from graphnorm.ir import Graph
from graphnorm.rescaling.graph import build

FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64
Shape = Sequence[int | str | None] | None


def value(name: str, shape: Shape, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def tensor(name: str, array: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    seed = sum(map(ord, name))
    return tensor(name, np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Operands as words; ``-`` is an absent one."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attributes)


def constant(name: str, array: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=tensor("", array))


def make(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] = (value("x", [1, 4]),),
    outputs: Sequence[str] = ("y",),
    weights: Sequence[onnx.TensorProto] = (),
    opset: int = 18,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "net", inputs, [helper.make_empty_tensor_value_info(name) for name in outputs], weights
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)


def save(model: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def ops(graph: Graph) -> list[str]:
    return [found.op for found in graph.nodes]


# Tensors


def test_weights_are_float_tensors_and_constants_the_rest() -> None:
    nodes = [
        node("Gemm", "x w b", "h"),
        constant("table", np.arange(4, dtype=np.float32)),
        helper.make_node("Constant", [], ["floats"], value_floats=[1.0, 2.0, 3.0, 4.0]),
        helper.make_node("Constant", [], ["scalar"], value_float=2.0),
        constant("single", np.ones((1,), np.float32)),
        node("Add", "h table", "a"),
        node("Add", "a floats", "c"),
        node("Mul", "c scalar", "d"),
        node("Mul", "d single", "e"),
        node("Mul", "e rank0", "f"),
        node("Mul", "f gain", "g"),
        node("Reshape", "g shape", "y"),
    ]
    weights = [
        weight("w", 4, 4),
        weight("b", 4),
        tensor("rank0", np.float32(3)),
        tensor("gain", np.ones((1,), np.float32)),
        tensor("shape", np.array([4, 1])),
    ]
    graph = read_onnx(make(nodes, weights=weights))
    assert set(graph.weights) == {"w", "b", "table", "floats", "gain"}
    assert set(graph.constants) == {"scalar", "single", "rank0", "shape"}
    assert ops(graph) == ["Gemm", "Add", "Add", "Mul", "Mul", "Mul", "Mul", "Reshape"]
    assert graph.values["y"].shape == (4, 1)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_every_float_type_is_a_weight(dtype: Any) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = make(
        [node("Mul", "x w", "y")], [value("x", [4], kind)], weights=[tensor("w", np.arange(4).astype(dtype))]
    )
    graph = read_onnx(model)
    assert graph.weights["w"].dtype == dtype
    assert graph.values["y"].dtype == np.dtype(dtype).name


@pytest.mark.parametrize("version", [3, 4])
def test_initializer_that_is_also_an_input_is_a_weight_only_before_ir_4(version: int) -> None:
    model = make([node("Mul", "x w", "y")], [value("x", [4]), value("w", [4])], weights=[weight("w", 4)])
    model.ir_version = version
    graph = read_onnx(model)
    assert graph.inputs == ("x",)
    assert list(graph.weights if version < 4 else graph.constants) == ["w"]


def test_weight_with_nan_is_refused() -> None:
    model = make(
        [node("Mul", "x w", "y")], weights=[tensor("w", np.array([1, np.nan, np.nan, 2], np.float32))]
    )
    with pytest.raises(InputError, match=r"net: weight 'w' has 2 NaN of 4 entries"):
        read_onnx(model)


def test_infinite_mask_is_a_constant() -> None:
    mask = np.array([0, -np.inf, 0, 0], np.float32)
    graph = read_onnx(make([node("Add", "x mask", "y")], weights=[tensor("mask", mask)]))
    assert list(graph.constants) == ["mask"]
    assert not graph.weights


def test_unused_input_and_output_that_is_an_input() -> None:
    graph = read_onnx(make([node("Relu", "x", "y")], [value("x", [2]), value("z", [3])], ["y", "z", "x"]))
    assert graph.inputs == ("x", "z")
    assert graph.outputs == ("y", "z", "x")


# Names


def test_node_names_are_unique_and_told() -> None:
    nodes = [node("Relu", "x", "a", name="act"), node("Relu", "a", "b", name="act"), node("Relu", "b", "y")]
    graph = read_onnx(make(nodes))
    assert [found.name for found in graph.nodes] == ["act", "b", "y"]
    assert [found.scope for found in graph.nodes] == ["act", "act", ""]
    assert graph.nodes[0].source == "net: node act"


def test_name_taken_by_an_output_gets_a_number() -> None:
    nodes = [node("Relu", "x", "a", name="b"), node("Relu", "a", "b", name="b"), node("Relu", "b", "y")]
    assert [found.name for found in read_onnx(make(nodes)).nodes] == ["b", "b_2", "y"]


@pytest.mark.parametrize(
    ("key", "text", "scope"),
    [
        ("pkg.torch.onnx.name_scopes", "['', 'stem', 'stem.conv', 'conv2d']", "stem.conv"),
        ("pkg.torch.onnx.name_scopes", "not a list [", "n"),
        ("namespace", ": Net/stem: Stem/stem.conv: Conv2d/conv2d: aten.conv2d.default", "stem.conv"),
    ],
)
def test_scope_is_the_torch_module(key: str, text: str, scope: str) -> None:
    model = make([node("Relu", "x", "y", name="n")])
    trace = 'File "net.py", line 3, in forward\n    x = self.stem(x)'
    for name, entry in ((key, text), ("pkg.torch.onnx.stack_trace", trace)):
        model.graph.node[0].metadata_props.add(key=name, value=entry)
    found = read_onnx(model).nodes[0]
    assert found.scope == scope
    assert found.source == 'net: node n (File "net.py", line 3, in forward)'


def test_attributes_are_plain_values() -> None:
    model = make(
        [node("Conv", "x w", "y", kernel_shape=[3, 3], group=1, auto_pad="SAME_UPPER")],
        [value("x", [1, 3, 8, 8])],
        weights=[weight("w", 5, 3, 3, 3)],
    )
    graph = read_onnx(model)
    assert graph.nodes[0].attributes == {"kernel_shape": (3, 3), "group": 1, "auto_pad": "SAME_UPPER"}
    assert graph.values["y"].shape == (1, 5, 8, 8)


def test_other_domains_keep_their_domain_and_have_no_shape() -> None:
    graph = read_onnx(make([node("Fancy", "x", "y", domain="acme")], domains=["acme"]))
    assert ops(graph) == ["acme::Fancy"]
    assert graph.values["y"].shape is None


def test_other_domains_use_the_declared_shape() -> None:
    model = make([node("Fancy", "x", "h", domain="acme"), node("Relu", "h", "y")], domains=["acme"])
    model.graph.value_info.append(value("h", [1, 7]))
    graph = read_onnx(model)
    assert graph.values["y"].shape == (1, 7)
    assert graph.values["y"].dtype == "float32"


# Sizes


def flatten_by_shape(batch: str | int | None = "batch") -> onnx.ModelProto:
    """As torch exports ``x.view(x.size(0), -1)`` and a table cut to the sequence's length."""
    nodes = [
        node("Shape", "x", "size"),
        constant("zero", np.int64(0)),
        node("Gather", "size zero", "batch_size", axis=0),
        constant("axes", np.array([0])),
        node("Unsqueeze", "batch_size axes", "first"),
        constant("rest", np.array([-1])),
        node("Concat", "first rest", "target", axis=0),
        node("Conv", "x w", "h", pads=[1, 1, 1, 1]),
        node("Relu", "h", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Reshape", "p target", "flat"),
        node("Gemm", "flat fc", "y", transB=1),
    ]
    inputs = [value("x", [batch, 3, "height", "width"])]
    return make(nodes, inputs, weights=[weight("w", 8, 3, 3, 3), weight("fc", 10, 8)])


def test_shape_arithmetic_is_folded_at_example_sizes() -> None:
    graph = read_onnx(flatten_by_shape())
    assert ops(graph) == ["Conv", "Relu", "GlobalAveragePool", "Reshape", "Gemm"]
    assert graph.constants["target"].tolist() == [1, -1]
    assert set(graph.constants) == {"zero", "axes", "rest", "target"}
    shapes = {name: graph.values[name].shape for name in ("x", "h", "p", "flat", "y")}
    assert shapes == {
        "x": (1, 3, 224, 224),
        "h": (1, 8, 224, 224),
        "p": (1, 8, 1, 1),
        "flat": (1, 8),
        "y": (1, 10),
    }


def test_axes_that_follow_a_symbol_are_dynamic() -> None:
    values = read_onnx(flatten_by_shape()).values
    assert values["x"].dynamic == values["h"].dynamic == {0, 2, 3}
    assert values["p"].dynamic == values["y"].dynamic == {0}
    assert values["target"].dynamic == {0}  # the only way to say that its data is an example
    assert values["rest"].dynamic == values["w"].dynamic == frozenset()


def test_nothing_is_dynamic_without_symbols() -> None:
    model = flatten_by_shape(batch=2)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 32
    graph = read_onnx(model)
    assert not any(found.dynamic for found in graph.values.values())
    assert graph.constants["target"].tolist() == [2, -1]


def test_user_shapes_win_and_stay_dynamic() -> None:
    graph = read_onnx(flatten_by_shape(), {"x": (4, 3, 64, 48)})
    assert graph.values["h"].shape == (4, 8, 64, 48)
    assert graph.values["h"].dynamic == {0, 2, 3}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"image": (1, 3, 8, 8)}, r"net: no input is named 'image'; its inputs are: 'x'"),
        ({"x": (1, 3, 8)}, r"input 'x' has 4 dimensions \(batchx3xheightxwidth\), got 1x3x8"),
        ({"x": (1, 4, 8, 8)}, r"input 'x': dimension 3 is 3 in the model or another input, got 4"),
        ({"x": (1, 3, 0, 8)}, r"input 'x': sizes must be positive, got 1x3x0x8"),
    ],
)
def test_user_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_onnx(flatten_by_shape(), shapes)


def test_one_symbol_has_one_size() -> None:
    model = make([node("Add", "x z", "y")], [value("x", ["n", 4]), value("z", ["n", 4])])
    assert read_onnx(model, {"z": (5, 4)}).values["x"].shape == (5, 4)
    with pytest.raises(
        InputError, match=r"input 'z': dimension 'n' is 2 in the model or another input, got 5"
    ):
        read_onnx(model, {"x": (2, 4), "z": (5, 4)})


def test_unknown_rank_asks_for_a_shape() -> None:
    model = make([node("Relu", "x", "y")], [value("x", None)])
    with pytest.raises(InputError, match=r"input 'x' has an unknown number.*--input x:1x3x224x224"):
        read_onnx(model)
    graph = read_onnx(model, {"x": (2, 3)})
    assert graph.values["y"].shape == (2, 3)
    assert graph.values["y"].dynamic == {0, 1}


@pytest.mark.parametrize("anonymous", ["?", None, ""])
def test_unnamed_dimensions_are_independent(anonymous: str | None) -> None:
    model = make([node("Relu", "x", "y")], [value("x", [anonymous, 3, anonymous, anonymous])])
    graph = read_onnx(model, {"x": (1, 3, 8, 16)})
    assert graph.values["y"].shape == (1, 3, 8, 16)
    assert graph.values["y"].dynamic == {0, 2, 3}


def test_sizes_are_tried_until_the_network_runs() -> None:
    """The classifier takes 32 x 32 only: its height and width are symbols that cannot vary."""
    nodes = [node("Conv", "x w", "h", strides=[4, 4]), node("Flatten", "h", "f"), node("MatMul", "f fc", "y")]
    model = make(
        nodes,
        [value("x", ["batch", 3, "side", "side"])],
        weights=[weight("w", 2, 3, 4, 4), weight("fc", 128, 10)],
    )
    graph = read_onnx(model)
    assert graph.values["x"].shape == (1, 3, 32, 32)
    assert graph.values["f"].dynamic == {0}
    assert graph.values["y"].dynamic == {0}


def test_two_names_of_one_size_move_together() -> None:
    model = make([node("Add", "x z", "y")], [value("x", ["n", 4, "t"]), value("z", ["n", 4, "s"])])
    graph = read_onnx(model)
    assert graph.values["y"].shape == (1, 4, 16)
    assert graph.values["y"].dynamic == {0, 2}


def test_roles_by_name_and_layout() -> None:
    inputs = [
        value("ids", ["batch", "seq"]),
        value("image", ["?", 224, 224, 3]),
        value("photo", ["?", "h", "w", 3]),
        value("state", [2, None, 128]),
        value("frames", ["sequence_length", 576]),
    ]
    values = read_onnx(make([node("Relu", "ids", "y")], inputs)).values
    shapes = [values[found.name].shape for found in inputs]
    assert shapes == [(1, 16), (1, 224, 224, 3), (1, 224, 224, 3), (2, 1, 128), (16, 576)]


# Folding


def test_what_depends_on_a_weight_is_not_folded() -> None:
    nodes = [
        node("Mul", "w two", "doubled"),
        node("Add", "x doubled", "h"),
        node("Shape", "doubled", "size"),
        node("Reshape", "h size", "y"),
    ]
    graph = read_onnx(make(nodes, [value("x", [4])], weights=[weight("w", 4), tensor("two", np.float32(2))]))
    assert ops(graph) == ["Mul", "Add", "Reshape"]
    assert graph.constants["size"].tolist() == [4]


def test_a_small_weight_may_still_say_a_shape() -> None:
    nodes = [node("Mul", "scales one", "s"), node("Resize", "x - s", "y")]
    weights = [tensor("scales", np.array([1, 1, 2, 2], np.float32)), tensor("one", np.float32(1))]
    graph = read_onnx(make(nodes, [value("x", [1, 3, 8, 8])], weights=weights))
    assert graph.values["y"].shape == (1, 3, 16, 16)
    assert ops(graph) == ["Mul", "Resize"]


def test_random_nodes_are_not_folded() -> None:
    nodes = [constant("size", np.array([4])), node("RandomNormalLike", "size", "noise", dtype=FLOAT)]
    graph = read_onnx(make([*nodes, node("Add", "x noise", "y")]))
    assert ops(graph) == ["RandomNormalLike", "Add"]


def test_arithmetic_on_sizes_stays_a_node_when_sizes_vary() -> None:
    """A float that varies with the sizes is no constant: nothing could mark a scalar as dynamic."""
    nodes = [
        node("Shape", "x", "size"),
        constant("one", np.int64(1)),
        node("Gather", "size one", "t"),
        node("Cast", "t", "scale", to=FLOAT),
        node("Mul", "x scale", "y"),
    ]
    graph = read_onnx(make(nodes, [value("x", ["n", "t"])]))
    assert ops(graph) == ["Gather", "Cast", "Mul"]
    graph = read_onnx(make(nodes, [value("x", [2, 5])]))
    assert ops(graph) == ["Mul"]
    assert graph.constants["scale"] == 5


def test_large_constants_are_not_folded() -> None:
    nodes = [constant("size", np.array([1024, 1024])), node("ConstantOfShape", "size", "big")]
    graph = read_onnx(make([*nodes, node("MatMul", "x big", "y")], [value("x", [1, 1024])]))
    assert ops(graph) == ["ConstantOfShape", "MatMul"]
    assert graph.values["big"].shape == (1024, 1024)


def test_a_reshape_to_the_wrong_size_has_no_shape() -> None:
    graph = read_onnx(make([node("Reshape", "x shape", "y")], weights=[tensor("shape", np.array([5]))]))
    assert graph.values["y"].shape is None
    assert graph.values["y"].dtype == "float32"


def test_a_folded_value_may_be_an_output() -> None:
    graph = read_onnx(make([node("Shape", "x", "y")]))
    assert graph.nodes == ()
    assert graph.constants["y"].tolist() == [1, 4]


# Control flow, functions


def branch(name: str, nodes: Sequence[onnx.NodeProto], weights: Sequence[onnx.TensorProto] = ()) -> Any:
    output = nodes[-1].output[0]
    return helper.make_graph(nodes, name, [], [helper.make_empty_tensor_value_info(output)], weights)


def test_branches_join_the_graph_and_take_the_common_shape() -> None:
    then = branch("then", [node("MatMul", "x inner", "a")], [weight("inner", 4, 3)])
    deep = branch("deep", [node("MatMul", "h w", "d")])
    same = branch("same", [node("Identity", "d2", "d3")])
    same.node.insert(0, node("MatMul", "x w", "d2"))
    other = branch("else", [node("If", "flag", "b", then_branch=deep, else_branch=same)])
    nodes = [node("Relu", "x", "h"), node("If", "flag", "y", then_branch=then, else_branch=other)]
    inputs = [value("x", ["batch", 4]), value("flag", [], TensorProto.BOOL)]
    graph = read_onnx(make(nodes, inputs, weights=[weight("w", 4, 3)]))
    inner = ["MatMul", "MatMul", "Identity", "graphnorm::Choice"]
    assert ops(graph) == ["Relu", "MatMul", *inner, "graphnorm::Choice"]
    assert graph.nodes[-2].inputs == ("flag", "d", "d3")
    assert graph.nodes[-1].inputs == ("flag", "a", "b")
    assert set(graph.weights) == {"w", "inner"}
    assert graph.values["y"].shape == graph.values["d"].shape == (1, 3)
    assert graph.values["y"].dynamic == graph.values["d"].dynamic == {0}


def test_if_with_a_known_condition_takes_that_branch() -> None:
    then = branch("then", [node("Flatten", "x", "a")])
    other = branch("else", [node("Identity", "x", "b")])
    nodes = [constant("flag", np.array(True)), node("If", "flag", "y", then_branch=then, else_branch=other)]
    assert read_onnx(make(nodes, [value("x", [1, 2, 3])])).values["y"].shape == (1, 6)


def test_if_with_unlike_branches_has_no_shape() -> None:
    then = branch("then", [node("Flatten", "x", "a")])
    other = branch("else", [node("Identity", "x", "b")])
    nodes = [node("If", "flag", "y", then_branch=then, else_branch=other)]
    inputs = [value("x", [1, 2, 3]), value("flag", [], TensorProto.BOOL)]
    assert read_onnx(make(nodes, inputs)).values["y"].shape is None


def test_the_body_of_a_loop_joins_the_graph() -> None:
    body = helper.make_graph(
        [node("MatMul", "state w", "next"), node("Identity", "go", "again")],
        "body",
        [value("i", [], INT64), value("go", [], TensorProto.BOOL), value("state", None)],
        [helper.make_empty_tensor_value_info("again"), helper.make_empty_tensor_value_info("next")],
    )
    nodes = [constant("count", np.int64(3)), node("Loop", "count - x", "y", body=body)]
    graph = read_onnx(make(nodes, weights=[weight("w", 4, 4)]))
    before, after = ["Control", "State"], ["Control", "Carried"]
    glue = [[f"graphnorm::{word}" for word in words] for words in (before, after)]
    assert ops(graph) == [*glue[0], "MatMul", "Identity", *glue[1]]
    assert graph.nodes[0].inputs == ("count", "")
    assert graph.nodes[-1].inputs == ("state", "next")
    assert graph.values["state"].shape == graph.values["y"].shape == (1, 4)


def test_mapped_sequences_are_opaque() -> None:
    inside = helper.make_graph(
        [node("MatMul", "item w", "done")], "body", [value("item", None)], [value("done", None)]
    )
    nodes = [node("SequenceConstruct", "x x", "s"), node("SequenceMap", "s", "m", body=inside)]
    model = make([*nodes, node("ConcatFromSequence", "m", "y", axis=0)], weights=[weight("w", 4, 4)])
    graph = read_onnx(model)
    assert ops(graph) == ["SequenceConstruct", "SequenceMap", "ConcatFromSequence"]
    assert graph.nodes[1].inputs == ("s", "w")
    model.graph.node[1].attribute[0].g.node[0].op_type = "Gemm"  # another body is another node
    assert read_onnx(model).nodes[1].attributes != graph.nodes[1].attributes


def test_sequences_have_no_shape() -> None:
    graph = read_onnx(
        make(
            [node("SequenceConstruct", "x x", "s"), node("SequenceAt", "s p", "y")],
            [value("x", [1, 4]), value("p", [], INT64)],
        )
    )
    assert graph.values["s"].shape is None
    assert graph.values["s"].dtype == "sequence"


def function(nodes: Sequence[onnx.NodeProto], opset: int = 18, name: str = "Double") -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["u"], ["v"], nodes, opsets)


def test_functions_are_inlined_and_their_tensors_are_constants() -> None:
    body = [constant("k", np.full(4, 2, np.float32)), node("Mul", "u k", "v")]
    nodes = [
        node("Mul", "x w", "h"),
        node("Double", "h", "a", domain="local"),
        node("Double", "a", "y", domain="local"),
    ]
    model = make(nodes, weights=[weight("w", 4)], domains=["local"], functions=[function(body)])
    loaded = onnx_ir.from_proto(model)
    graph = read_onnx(loaded)
    assert ops(graph) == ["Mul", "Mul", "Mul"]
    assert set(graph.weights) == {"w"}
    assert len(graph.constants) == 2
    assert len(loaded.functions) == 1  # the argument is as it was


@pytest.mark.parametrize(
    ("functions", "why"),
    [
        ([function([node("Relu", "u", "v")], opset=17)], "net: its functions cannot be inlined"),
        (
            [function([node("Double", "u", "v", domain="local")])],
            "net: a function calls itself: 'Double' -> 'Double'",
        ),
    ],
    ids=["other opset", "recursion"],
)
def test_functions_that_cannot_be_inlined(functions: list[onnx.FunctionProto], why: str) -> None:
    model = make([node("Double", "x", "y", domain="local")], domains=["local"], functions=functions)
    with pytest.raises(ModelFileError, match=why):
        read_onnx(model)


# Bad graphs


@pytest.mark.parametrize("opset", [6, onnx.defs.onnx_opset_version() + 1])
def test_opset_out_of_range(opset: int) -> None:
    with pytest.raises(ModelFileError, match=rf"net: unknown opset {opset} of ai.onnx, supported 7\.\.\d+"):
        read_onnx(make([node("Relu", "x", "y")], opset=opset))


def test_no_opset_at_all() -> None:
    model = make([node("Fancy", "x", "y", domain="acme")], domains=["acme"])
    del model.opset_import[0]
    with pytest.raises(ModelFileError, match="unknown opset None"):
        read_onnx(model)


def test_unsorted_nodes_are_sorted() -> None:
    graph = read_onnx(make([node("Relu", "a", "y"), node("Abs", "x", "a")]))
    assert ops(graph) == ["Abs", "Relu"]


def test_cycle() -> None:
    with pytest.raises(ModelFileError, match="net: the graph has a cycle: 'one' -> 'two' -> 'one'"):
        read_onnx(make([node("Add", "x y", "h", name="one"), node("Relu", "h", "y", name="two")]))


def test_dangling_operand() -> None:
    with pytest.raises(ModelFileError, match="net: node 'Add' reads 'ghost', which nothing defines"):
        read_onnx(make([node("Add", "x ghost", "y")]))


def test_dangling_output() -> None:
    with pytest.raises(ModelFileError, match="output 'z' is never defined"):
        read_onnx(make([node("Relu", "x", "y")], outputs=["z"]))


def test_two_definitions() -> None:
    with pytest.raises(ModelFileError, match=r"net: not a valid ONNX graph: .*'y'"):
        read_onnx(make([node("Relu", "x", "y"), node("Abs", "x", "y")]))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (node("Add", "x", "y"), r"net: node 'y' \(Add\) is not valid: 1 of 2 operands are given"),
        (
            node("Relu", "x", "y", slope=1),
            r"net: node 'y' \(Relu\) is not valid: Unrecognized attribute: slope",
        ),
        (
            node("If", "x", "y"),
            r"net: node 'y' \(If\) is not valid: it needs the graph 'then_branch'",
        ),
    ],
)
def test_node_against_its_operators_definition(bad: onnx.NodeProto, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        read_onnx(make([bad]))


def damaged(name: str) -> onnx.TensorProto:
    found = weight(name, 4)
    found.raw_data = b"\0" * 12
    return found


def test_damaged_tensor_in_a_branch() -> None:
    then = branch("then", [node("Add", "x inner", "a")], [damaged("inner")])
    nodes = [node("If", "flag", "y", then_branch=then, else_branch=then)]
    inputs = [value("x", [1, 4]), value("flag", [], TensorProto.BOOL)]
    with pytest.raises(ModelFileError, match=r"net: tensor 'inner(_2)?' cannot be read"):
        read_onnx(make(nodes, inputs))


def test_damaged_attribute() -> None:
    model = make([node("Fancy", "x", "y", domain="acme", table=damaged("t"))], domains=["acme"])
    with pytest.raises(ModelFileError, match=r"\(Fancy\) is not valid: attribute 'table' cannot be read"):
        read_onnx(model)


def test_name_that_is_not_utf8() -> None:
    model = make([node("Relu", "x", "y"), node("Relu", "y", "QQQQ")], outputs=["QQQQ"])
    data = model.SerializeToString().replace(b"QQQQ", b"Q\xff\xffQ")
    with pytest.raises(ModelFileError, match="net: "):
        read_onnx(onnx.ModelProto.FromString(data))


def sparse() -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(tensor("s", np.ones(1, np.float32)), tensor("i", np.array([2])), [4])


def test_sparse_initializer() -> None:
    model = make([node("Add", "x s", "y")])
    model.graph.sparse_initializer.append(sparse())
    with pytest.raises(ModelFileError, match="net: sparse initializer 's' is not supported"):
        read_onnx(model)


def test_sparse_constant() -> None:
    model = make([helper.make_node("Constant", [], ["s"], sparse_value=sparse()), node("Add", "x s", "y")])
    with pytest.raises(ModelFileError, match="not a valid ONNX graph: Sparse tensors are not supported"):
        read_onnx(model)


def test_tensor_with_too_few_bytes() -> None:
    model = make([node("Mul", "x w", "y")], weights=[weight("w", 4)])
    model.graph.initializer[0].raw_data = b"\0" * 12
    with pytest.raises(ModelFileError, match="net: tensor 'w' cannot be read"):
        read_onnx(model)


def test_constant_with_too_few_bytes() -> None:
    model = make([constant("w", np.ones(4, np.float32)), node("Mul", "x w", "y")])
    model.graph.node[0].attribute[0].t.raw_data = b"\0" * 12
    with pytest.raises(ModelFileError, match="net: tensor 'w' cannot be read"):
        read_onnx(model)


def test_constant_without_a_value() -> None:
    with pytest.raises(ModelFileError, match="net: Constant node 'w' holds no dense value"):
        read_onnx(make([helper.make_node("Constant", [], ["w"]), node("Mul", "x w", "y")]))


# Bad files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"net\.onnx: is empty"),
        (b"not a model", r"net\.onnx: is not an ONNX model, or is truncated"),
        (b"PK\x03\x04rest", r"net\.onnx: is a pickle or zip archive.*torch\.onnx\.export"),
        (b"\x80\x02}q\x00.", r"net\.onnx: is a pickle or zip archive"),
    ],
)
def test_other_bytes(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        read_onnx(path)


def test_truncated_file(tmp_path: Path) -> None:
    path = save(flatten_by_shape(), tmp_path)
    content = path.read_bytes()
    for end in range(1, len(content), len(content) // 23):
        path.write_bytes(content[:end])
        with pytest.raises(ModelFileError, match=r"net\.onnx"):
            read_onnx(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"gone\.onnx: no such file"):
        load_model(tmp_path / "gone.onnx")
    with pytest.raises(ModelFileError, match=r"is a folder; name the \.onnx file"):
        load_model(tmp_path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(onnx, "load_model", refuse)
    with pytest.raises(ModelFileError, match=r"net\.onnx: cannot be read: Permission denied"):
        load_model(tmp_path / "net.onnx")


# External data


def external(folder: Path, **entries: str) -> Path:
    """One Mul whose weight lies in ``net.data``, with these entries changed."""
    model = make([node("Mul", "x w", "y")], weights=[weight("w", 4)])
    found = model.graph.initializer[0]
    data = folder / "net.data"
    if not data.exists():
        data.write_bytes(found.raw_data)
    found.ClearField("raw_data")
    found.data_location = TensorProto.EXTERNAL
    for key, text in ({"location": "net.data", "offset": "0", "length": "16"} | entries).items():
        found.external_data.add(key=key, value=text)
    return save(model, folder)


def test_external_data_is_read(tmp_path: Path) -> None:
    graph = read_onnx(external(tmp_path))
    assert np.array_equal(graph.weights["w"], numpy_helper.to_array(weight("w", 4)))
    assert graph.nodes[0].source == "net.onnx: node y"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "gone.data"}, r"tensor 'w' \(gone\.data\) is missing"),
        ({"location": "../net.data"}, r"tensor 'w' \(\.\./net\.data\) leaves the model's folder"),
        ({"location": "/net.data"}, r"leaves the model's folder"),
        (
            {"offset": "8"},
            r"net\.onnx: external data of tensor 'w' \(net\.data\) ends at byte 24, the file has 16",
        ),
        ({"length": "8"}, r"holds 8 bytes, its shape and type need 16"),
    ],
)
def test_bad_external_data(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        load_model(external(tmp_path, **entries))


def test_external_data_behind_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 16)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "net.data").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelFileError, match="leaves the model's folder"):
        load_model(external(folder))


def test_external_data_with_a_hard_link(tmp_path: Path) -> None:
    """Package managers link files from their stores."""
    path = external(tmp_path)
    os.link(tmp_path / "net.data", tmp_path / "second")
    assert np.array_equal(read_onnx(path).weights["w"], numpy_helper.to_array(weight("w", 4)))


def test_strings_are_constants() -> None:
    model = make([node("Identity", "words", "y")], weights=[weight("w", 4)])
    model.graph.initializer.append(numpy_helper.from_array(np.array(["a", "bcd"], object), "words"))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    assert read_onnx(model).constants["y"].tolist() == [b"a", b"bcd"]


def test_the_model_read_is_not_changed(tmp_path: Path) -> None:
    path = save(flatten_by_shape(), tmp_path)
    model = load_model(path)
    before = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    read_onnx(model)
    assert onnx_ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(("rows", "dimension"), [("n", 5), (4, 10)])
def test_a_comparison_of_a_variable_size_is_no_constant(rows: int | str, dimension: int) -> None:
    """It is false at every size that is tried, and true for longer inputs."""
    model = make(
        [
            node("MatMul", "x w", "a"), node("Relu", "a", "p"), node("MatMul", "x v", "b"),
            node("Relu", "b", "q"), node("Shape", "x", "sizes", start=0, end=1),
            node("Greater", "sizes limit", "long"), node("Where", "long p q", "h"),
            node("MatMul", "h o", "y"),
        ],
        [value("x", [rows, 3])],
        weights=[weight("w", 3, 5), weight("v", 3, 5), weight("o", 5, 2), tensor("limit", np.array([1000]))],
    )  # fmt: skip
    assert build(read_onnx(model)).dimension == dimension


def test_pieces_of_a_size_known_only_at_run_time_share_a_scale() -> None:
    model = make(
        [
            node("MatMul", "x w", "a"), node("Relu", "a", "h"), node("Shape", "x", "sizes", start=0, end=1),
            node("Min", "sizes three", "first"), node("Sub", "five first", "second"),
            node("Concat", "first second", "cut", axis=0), node("Split", "h cut", "p q", axis=1),
            node("Concat", "q p", "c", axis=1), node("MatMul", "c o", "y"),
        ],
        [value("x", ["n", 3])],
        weights=[
            weight("w", 3, 5), weight("o", 5, 2),
            tensor("three", np.array([3])), tensor("five", np.array([5])),
        ],
    )  # fmt: skip
    assert build(read_onnx(model)).dimension == 1
