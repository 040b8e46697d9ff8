"""Writing ONNX models: only the weights change, and a write happens wholly or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphnorm.emission import onnx_save
from graphnorm.emission.onnx_file import rescale_onnx
from graphnorm.emission.onnx_save import save_onnx
from graphnorm.errors import InputError
from graphnorm.frontends.onnx.external import External, external_of
from graphnorm.frontends.onnx.load import to_model, to_proto
from graphnorm.frontends.onnx.read import load_model, read_onnx

WEIGHT = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)


def network() -> onnx.ModelProto:
    """Initializers, Constant nodes of each float form, a subgraph, metadata, two domains."""
    output = helper.make_empty_tensor_value_info("inner")
    branch = helper.make_graph([helper.make_node("Mul", ["h", "gain"], ["inner"])], "branch", [], [output])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first", doc_string="a layer"),
        helper.make_node("Constant", [], ["bias"], value=numpy_helper.from_array(WEIGHT[0], "old name")),
        helper.make_node("Constant", [], ["gain"], value_floats=[1.0, 2.0, 3.0, 4.0]),
        helper.make_node("Constant", [], ["scale"], value_float=0.5),
        helper.make_node("Constant", [], ["steps"], value_ints=[1, 2, 3, 4]),
        helper.make_node("If", ["flag"], ["b"], then_branch=branch, else_branch=branch),
        helper.make_node("Fancy", ["b", "bias"], ["f"], domain="acme", mode="odd"),
        helper.make_node("Mul", ["f", "scale"], ["y"]),
    ]
    half = numpy_helper.from_array(WEIGHT.astype(ml_dtypes.bfloat16), "half")
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(WEIGHT, "w"), half, numpy_helper.from_array(np.arange(3), "indices")],
        doc_string="a graph",
        value_info=[helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 4])],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("acme", 3)],
        producer_name="tests",
        producer_version="7",
        ir_version=9,
        doc_string="a model",
    )
    helper.set_model_props(model, {"author": "someone"})
    model.graph.node[0].metadata_props.add(key="namespace", value="layer")
    return model


def to_file(folder: Path, name: str = "net.onnx", *, external: bool = False) -> Path:
    path = folder / name
    options: dict[str, Any] = {"location": "weights.bin", "size_threshold": 60} if external else {}
    onnx.save_model(network(), str(path), save_as_external_data=external, **options)
    return path


def listing(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def without(proto: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """The model with these tensors emptied."""
    for tensor in proto.graph.initializer:
        if tensor.name in names:
            tensor.ClearField("raw_data")
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.output[0] in names:
            for attribute in node.attribute:
                attribute.t.ClearField("raw_data")
                attribute.ClearField("floats")
                attribute.ClearField("f")
    return proto


# Rescaling


def test_only_the_given_tensors_change() -> None:
    source = network()
    model = to_model(source, "net")
    new = {
        "w": WEIGHT * 2,
        "half": (WEIGHT / 2).astype(ml_dtypes.bfloat16),
        "bias": WEIGHT[1],
        "gain": np.array([4, 3, 2, 1], np.float32),
        "scale": np.array(0.25, np.float32),
    }
    emitted = to_proto(rescale_onnx(model, new))
    assert without(emitted, *new) == without(network(), *new)
    graph = read_onnx(rescale_onnx(model, new))
    arrays = {**graph.weights, **graph.constants}
    for name, array in new.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
    assert to_proto(model) == source


def test_nothing_given_is_the_same_model() -> None:
    assert to_proto(rescale_onnx(to_model(network(), "net"), {})) == network()


def test_unchanged_tensors_are_shared() -> None:
    model = to_model(network(), "net")
    emitted = rescale_onnx(model, {"w": WEIGHT})
    assert emitted.graph.initializers["half"].const_value is model.graph.initializers["half"].const_value


def test_arrays_of_any_layout_are_taken() -> None:
    emitted = rescale_onnx(to_model(network(), "net"), {"w": np.asfortranarray(WEIGHT)})
    assert np.array_equal(read_onnx(emitted).weights["w"], WEIGHT)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("ghost", WEIGHT, "weight 'ghost': the model has no initializer or Constant of this name"),
        ("w", WEIGHT[0], r"weight 'w': expected float32\[4, 4\] as in the model, got float32\[4\]"),
        ("w", WEIGHT.astype(np.float64), r"weight 'w': expected float32\[4, 4\].*got float64\[4, 4\]"),
        ("gain", WEIGHT, r"weight 'gain': expected float32\[4\].*got float32\[4, 4\]"),
        (
            "steps",
            np.zeros(4, np.float32),
            r"weight 'steps': its Constant node holds no float value \(value_ints\)",
        ),
    ],
)
def test_weights_that_do_not_fit(name: str, array: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rescale_onnx(to_model(network(), "net"), {name: array})


# Saving


def test_inline_model_stays_in_one_file(tmp_path: Path) -> None:
    model = load_model(to_file(tmp_path))
    target = tmp_path / "new.onnx"
    save_onnx(rescale_onnx(model, {"w": WEIGHT * 2}), target, like=model)
    assert set(listing(tmp_path)) == {"net.onnx", "new.onnx"}
    assert np.array_equal(read_onnx(target).weights["w"], WEIGHT * 2)
    assert without(onnx.load(target), "w") == without(network(), "w")


def test_external_tensors_stay_external(tmp_path: Path) -> None:
    model = load_model(to_file(tmp_path, external=True))
    emitted = rescale_onnx(model, {"w": WEIGHT * 2})
    target = tmp_path / "new.onnx"
    save_onnx(emitted, target, like=model)
    assert set(listing(tmp_path)) == {"net.onnx", "weights.bin", "new.onnx", "new.onnx.data"}
    assert external_of(load_model(target)) == External(
        frozenset({"w", "half"}), (tmp_path / "new.onnx.data",)
    )
    weights = read_onnx(target).weights
    assert np.array_equal(weights["w"], WEIGHT * 2)
    assert np.array_equal(weights["half"], WEIGHT.astype(ml_dtypes.bfloat16))
    assert onnx.load(target).graph.node == network().graph.node
    (tmp_path / "weights.bin").unlink()
    assert read_onnx(emitted).weights["half"].shape == (4, 4)  # the model needs no file any more


def test_external_constant_is_written_too(tmp_path: Path) -> None:
    source = network()
    options: dict[str, Any] = {"size_threshold": 0, "convert_attribute": True, "location": "weights.bin"}
    onnx.save_model(source, str(tmp_path / "net.onnx"), save_as_external_data=True, **options)
    folder = tmp_path / "out"
    folder.mkdir()
    save_onnx(load_model(tmp_path / "net.onnx"), folder / "new.onnx")
    assert np.array_equal(read_onnx(folder / "new.onnx").weights["bias"], WEIGHT[0])


def test_a_model_beyond_the_limit_of_protobuf_goes_external(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_save, "INLINE_LIMIT", 64)
    monkeypatch.setattr(onnx_save, "_INLINE_ALWAYS", 32)
    save_onnx(to_model(network(), "net"), tmp_path / "new.onnx")
    assert set(listing(tmp_path)) == {"new.onnx", "new.onnx.data"}
    assert np.array_equal(read_onnx(tmp_path / "new.onnx").weights["w"], WEIGHT)


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    reference.touch()
    save_onnx(to_model(network(), "net"), tmp_path / "new.onnx")
    assert (tmp_path / "new.onnx").stat().st_mode == reference.stat().st_mode


def test_an_existing_file_needs_force(tmp_path: Path) -> None:
    target = tmp_path / "new.onnx"
    target.write_bytes(b"precious")
    model = to_model(network(), "net")
    with pytest.raises(InputError, match=r"new\.onnx: exists already; give --force"):
        save_onnx(model, target)
    assert target.read_bytes() == b"precious"
    save_onnx(model, target, force=True)
    assert onnx.load(target) == network()


def test_an_existing_data_file_needs_force(tmp_path: Path) -> None:
    model = load_model(to_file(tmp_path, external=True))
    (tmp_path / "new.onnx.data").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"new\.onnx\.data: exists already; give --force"):
        save_onnx(model, tmp_path / "new.onnx")
    assert (tmp_path / "new.onnx.data").read_bytes() == b"precious"


@pytest.mark.parametrize("force", [False, True])
def test_the_input_is_never_overwritten(tmp_path: Path, force: bool) -> None:
    path = to_file(tmp_path, external=True)
    model = load_model(path)
    os.link(path, tmp_path / "alias.onnx")
    before = listing(tmp_path)
    for name in ("net.onnx", "alias.onnx", "weights.bin"):
        with pytest.raises(InputError, match="the model was read from this file; write to another one"):
            save_onnx(rescale_onnx(model, {"w": WEIGHT}), tmp_path / name, force=force)
    assert listing(tmp_path) == before


def test_the_inputs_data_file_is_never_overwritten(tmp_path: Path) -> None:
    source = network()
    path = tmp_path / "net.onnx"
    onnx.save_model(
        source, str(path), save_as_external_data=True, location="new.onnx.data", size_threshold=60
    )
    model = load_model(path)
    inlined = rescale_onnx(model, {"w": WEIGHT, "half": WEIGHT.astype(ml_dtypes.bfloat16)})
    with pytest.raises(InputError, match=r"new\.onnx\.data: the model was read from this file"):
        save_onnx(inlined, tmp_path / "new.onnx", like=model, force=True)


def test_destination_without_a_folder(tmp_path: Path) -> None:
    model = to_model(network(), "net")
    with pytest.raises(InputError, match=r"new\.onnx: its folder does not exist; create .*gone first"):
        save_onnx(model, tmp_path / "gone" / "new.onnx")
    with pytest.raises(InputError, match="is a folder; name a file in it"):
        save_onnx(model, tmp_path)


@pytest.mark.parametrize("failing", ["net.onnx", "net.onnx.data"])
def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    model = load_model(to_file(tmp_path, external=True))
    folder = tmp_path / "out"
    folder.mkdir()
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == failing:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match=r"net\.onnx: cannot be written: No space left on device"):
        save_onnx(model, folder / "net.onnx")
    assert listing(folder) == {}
