"""External data: every layout and way of linking is read, and every broken one refused in a sentence."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphnorm
from graphnorm.errors import ModelFileError
from graphnorm.frontends.onnx.external import External, external_of, self_contained
from graphnorm.frontends.onnx.read import load_model, read_onnx

RNG = np.random.default_rng(0)
FIRST, SECOND = (RNG.normal(size=(6, 6)).astype(np.float32) for _ in range(2))


def network(first: Any = FIRST, second: Any = SECOND) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 6]) for name in "xy"]
    held = [numpy_helper.from_array(first, "a"), numpy_helper.from_array(second, "b")]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(path: Path, proto: onnx.ModelProto | None = None, **options: Any) -> Path:
    """The model with all its tensors external."""
    options = {"size_threshold": 0, "location": "weights.bin", **options}
    onnx.save_model(proto or network(), str(path), save_as_external_data=True, **options)
    return path


def edited(path: Path, tensor: int = 0, **entries: str) -> Path:
    """The model with entries of one tensor's external data changed."""
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[tensor].external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())
    return path


def in_a_folder(folder: Path) -> Path:
    (folder / "weights").mkdir()
    return saved(folder / "m.onnx", location="weights/all.bin")


def on_one_region(folder: Path) -> Path:
    return edited(saved(folder / "m.onnx", network(FIRST, FIRST)), 1, offset="0")


def unaligned(folder: Path) -> Path:
    path = saved(folder / "m.onnx")
    data = (folder / "weights.bin").read_bytes()
    (folder / "weights.bin").write_bytes(b"\1" + data)
    found = onnx.load(path, load_external_data=False).graph.initializer
    for i, tensor in enumerate(found):
        offset = next((int(e.value) for e in tensor.external_data if e.key == "offset"), 0)
        edited(path, i, offset=str(offset + 1))
    return path


def in_a_store(folder: Path) -> Path:
    """A cache of downloads: all files in one folder, under their hashes, linked to from another."""
    (folder / "blobs").mkdir()
    (folder / "snapshots" / "1f" / "onnx").mkdir(parents=True)
    path = saved(folder / "blobs" / "m.onnx", location="m.onnx_data")
    for name in ("m.onnx", "m.onnx_data"):
        (folder / "blobs" / name).rename(folder / "blobs" / f"{len(name)}-hash")
        (folder / "snapshots" / "1f" / "onnx" / name).symlink_to(f"../../../blobs/{len(name)}-hash")
    return folder / "snapshots" / "1f" / "onnx" / path.name


def linked_alone(folder: Path) -> Path:
    """A link to the model only: its data lie beside the model itself."""
    (folder / "far").mkdir()
    (folder / "m.onnx").symlink_to(saved(folder / "far" / "m.onnx"))
    return folder / "m.onnx"


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "one file": lambda folder: saved(folder / "m.onnx"),
    "a file per tensor": lambda folder: saved(
        folder / "m.onnx", all_tensors_to_one_file=False, location=None
    ),
    "some inline": lambda folder: saved(
        folder / "m.onnx", network(FIRST, SECOND[:, :6] * 2), size_threshold=144
    ),
    "in a folder": in_a_folder,
    "two tensors on one region": on_one_region,
    "unaligned": unaligned,
    "in a store": in_a_store,
    "linked alone": linked_alone,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(tmp_path: Path, layout: str) -> None:
    path = LAYOUTS[layout](tmp_path)
    plain = onnx.ModelProto()
    plain.CopyFrom(network(FIRST, FIRST) if layout == "two tensors on one region" else network())
    if layout == "some inline":
        plain = network(FIRST, SECOND * 2)
    assert graphnorm.check(path, plain).verdict == "identical"
    result = graphnorm.canonicalize(path)
    assert result.report.verification.verdict == "proved"
    assert next((t for t in result.model.graph.initializers.values()), None) is not None
    onnx.checker.check_model(onnx_ir.to_proto(result.model))  # holds all its data


def test_more_tensors_than_files_may_be_open(tmp_path: Path) -> None:
    count = 300
    chain = [helper.make_node("Add", [f"h{i}", f"b{i}"], [f"h{i + 1}"]) for i in range(count)]
    held = [numpy_helper.from_array(np.full(4, i, np.float32), f"b{i}") for i in range(count)]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("h0", f"h{count}")]
    proto = helper.make_model(helper.make_graph(chain, "net", ends[:1], ends[1:], held), ir_version=8)
    path = saved(tmp_path / "m.onnx", proto)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        graph = read_onnx(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert np.array_equal(graph.weights[f"b{count - 1}"], np.full(4, count - 1, np.float32))


@pytest.mark.parametrize("kind", ["int4", "uint4", "bfloat16", "float8_e4m3fn", "bool", "int64", "float16"])
def test_every_type_is_read(tmp_path: Path, kind: str) -> None:
    array = np.arange(10).reshape(2, 5) % 7
    typed = array.astype(getattr(ml_dtypes, kind, None) or np.dtype(kind))
    tensor = numpy_helper.from_array(typed, "a")
    shape = helper.make_tensor_value_info("y", tensor.data_type, [2, 5])
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["y"])], "net", [], [shape], [tensor])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = load_model(saved(tmp_path / "m.onnx", proto))
    held = model.graph.initializers["a"].const_value
    assert held is not None
    assert np.array_equal(held.numpy().view(np.uint8), typed.view(np.uint8))
    assert onnx_ir.to_proto(model).graph.initializer[0].raw_data == tensor.raw_data


def test_a_model_of_onnx_ir_stays_as_it_is(tmp_path: Path) -> None:
    given = onnx_ir.load(saved(tmp_path / "m.onnx"))
    result = graphnorm.canonicalize(given)
    assert result.report.verification.verdict == "proved"
    assert isinstance(given.graph.initializers["a"].const_value, onnx_ir.ExternalTensor)
    assert external_of(self_contained(given, "net")) == External(
        frozenset({"a", "b"}), (tmp_path / "weights.bin",)
    )


def test_the_data_file_may_be_replaced_later(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx")
    result = graphnorm.canonicalize(path)
    (tmp_path / "weights.bin").write_bytes(b"")  # truncated in place: a memory map would end the process
    assert graphnorm.check(result.model, network()).verdict == "proved"
    assert np.array_equal(result.graph.network.weights["a"], FIRST)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = saved(tmp_path / "in" / "m.onnx")
    (tmp_path / "in" / "weights.bin").rename(tmp_path / "secret")
    (tmp_path / "in" / "weights.bin").symlink_to("../secret")
    with pytest.raises(ModelFileError, match=r"'a' \(weights\.bin\) leaves the model's folder"):
        load_model(path)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "has no location; export the model again"),
        ("sub/../../x", "leaves the model's folder"),
        ("x" * 300, "cannot be found: .*name too long"),
    ],
)
def test_locations_of_no_file(tmp_path: Path, location: str, message: str) -> None:
    path = edited(saved(tmp_path / "m.onnx"), location=location)
    with pytest.raises(ModelFileError, match=message):
        load_model(path)


@pytest.mark.parametrize(
    ("dims", "kind", "message"),
    [
        ([-6, 6], TensorProto.FLOAT, "ends at byte|need"),
        ([6, 6], TensorProto.STRING, "has no size, so it cannot be external"),
    ],
)
def test_shapes_and_types_of_no_data(tmp_path: Path, dims: list[int], kind: int, message: str) -> None:
    path = saved(tmp_path / "m.onnx")
    proto = onnx.load(path, load_external_data=False)
    tensor = proto.graph.initializer[0]
    tensor.data_type = kind
    del tensor.dims[:]
    tensor.dims.extend(dims)
    del tensor.external_data[1:]
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelFileError, match=message):
        load_model(path)


def test_a_data_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "m.onnx")

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "fromfile", refuse)
    with pytest.raises(ModelFileError, match="cannot be read: Permission denied"):
        load_model(path)


def test_a_data_file_that_shrinks_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "m.onnx")
    monkeypatch.setattr(np, "fromfile", lambda *args, **options: np.zeros(3, np.uint8))
    with pytest.raises(ModelFileError, match="changed while it was read; run again"):
        load_model(path)


def external_array(folder: Path, tensor: TensorProto) -> Any:
    """A tensor of a file, wherever it is."""
    return numpy_helper.to_array(tensor, str(folder))


ROWS, COLUMNS = 4_300_000, 128  # 2.2 GB, beyond what a protobuf message or 32 bits hold


@pytest.mark.slow
def test_more_than_two_gigabytes(tmp_path: Path) -> None:
    """Read, rescaled and written by the command, in a process whose memory is measured."""
    first, last, matrix = (
        RNG.normal(size=size).astype(np.float32) for size in (COLUMNS, COLUMNS, (COLUMNS, 3))
    )
    data = tmp_path / "table.bin"
    with data.open("wb") as file:  # sparse: all rows between are zeros
        file.write(first.tobytes())
        file.truncate(4 * ROWS * COLUMNS)
        file.seek(4 * (ROWS - 1) * COLUMNS)
        file.write(last.tobytes())
    table = TensorProto(name="table", dims=[ROWS, COLUMNS], data_type=TensorProto.FLOAT)
    table.data_location = TensorProto.EXTERNAL
    for key, value in (("location", data.name), ("offset", "0"), ("length", str(data.stat().st_size))):
        table.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Relu", ["rows"], ["r"]),
        helper.make_node("MatMul", ["r", "matrix"], ["y"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])
    held = [table, numpy_helper.from_array(matrix, "matrix")]
    graph = helper.make_graph(nodes, "net", [ids], [y], held)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    source, target = tmp_path / "m.onnx", tmp_path / "out.onnx"
    source.write_bytes(proto.SerializeToString())
    command = [
        sys.executable,
        "-m",
        "graphnorm",
        "canonicalize",
        str(source),
        "-o",
        str(target),
        "--no-verify",
    ]
    with subprocess.Popen(command) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert usage.ru_maxrss < 7.5e6  # kB: both tables and what the norm takes
    initializers = onnx.load(target, load_external_data=False).graph.initializer
    written = {tensor.name: tensor for tensor in initializers}
    entries = {entry.key: entry.value for entry in written["table"].external_data}
    path, offset = tmp_path / entries["location"], int(entries["offset"])
    found = np.memmap(path, np.float32, "r", offset, (ROWS, COLUMNS))
    other = external_array(tmp_path, written["matrix"])
    for row, before in ((0, first), (ROWS - 1, last)):
        assert (found[row] != before).any()
        was, now = (np.maximum(one, 0) @ two for one, two in ((before, matrix), (found[row], other)))
        assert np.allclose(was, now, rtol=1e-5, atol=1e-6)
    assert not found[1 : ROWS - 1 : 999].any()
    data.unlink()
    path.unlink()
