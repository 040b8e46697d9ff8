"""Writing ONNX models: killed at any moment, the old model or the new one is there, never a mix."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphnorm.emission.onnx_bytes import data_of, pieces, to_bytes
from graphnorm.emission.onnx_save import save_onnx
from graphnorm.errors import InputError
from graphnorm.frontends.onnx.external import External
from graphnorm.frontends.onnx.load import to_model, to_proto
from graphnorm.frontends.onnx.read import load_model, read_onnx
from graphnorm.ir import Array
from graphnorm.util.atomic import PREFIX

OLD, NEW = (np.full((20, 20), value, np.float32) for value in (1, 2))


class Killed(BaseException):
    """Stands for a signal that cannot be caught."""


def network(weight: Array, external: bool) -> onnx_ir.Model:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 20]) for name in "xy"]
    graph = helper.make_graph([node], "net", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    model = to_model(helper.make_model(graph, ir_version=8), "net")
    if external:
        model.graph.meta["graphnorm.external"] = External(frozenset({"w"}))
    return model


def written(path: Path) -> float:
    """The entries of the weight: one number, or the file is a mix."""
    (value,) = set(read_onnx(path).weights["w"].flat)
    return float(value)


def listing(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def dying(monkeypatch: pytest.MonkeyPatch, moment: int, error: BaseException, once: bool) -> list[str]:
    """Let renames and deletions fail from one of them on, or that one alone; the list of them fills."""
    seen: list[str] = []

    def failing(method: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Path, *args: Any, **options: Any) -> Any:
            if method is unlink and not path.exists():
                return method(path, *args, **options)
            seen.append(f"{method.__name__} {path.name}")
            if len(seen) == moment or (len(seen) > moment and not once):
                raise error
            return method(path, *args, **options)

        return called

    replace, unlink = Path.replace, Path.unlink
    monkeypatch.setattr(Path, "replace", failing(replace))
    monkeypatch.setattr(Path, "unlink", failing(unlink))
    return seen


CHANGES = {
    "external to external": (True, True),
    "external to inline": (True, False),
    "inline to external": (False, True),
    "inline to inline": (False, False),
}


@pytest.mark.parametrize("stale", [False, True], ids=["clean", "stale data file"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", [1, 2, 3, 99])
def test_a_kill_leaves_the_old_model_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int, change: str, stale: bool
) -> None:
    before, after = CHANGES[change]
    target = tmp_path / "out.onnx"
    save_onnx(network(OLD, before), target)
    if stale:
        for name in ("out.onnx.data", "out.onnx.1.data"):
            if not (tmp_path / name).exists():
                (tmp_path / name).write_bytes(b"\0" * 7)
    with monkeypatch.context() as patched:
        seen = dying(patched, moment, Killed(), once=False)
        try:
            save_onnx(network(NEW, after), target, force=True)
        except Killed:
            assert len(seen) >= moment
    renamed = any(name.startswith("replace .graphnorm") for name in seen) and moment > 1 + after
    assert written(target) == (2 if renamed else 1)
    save_onnx(network(NEW, True), target, force=True)  # whatever was left is no obstacle
    assert written(target) == 2
    assert not [name for name in listing(tmp_path) if name.startswith(PREFIX)] or moment < 99


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(143)]
)
@pytest.mark.parametrize("moment", [1, 2])
def test_an_error_or_a_signal_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int, error: BaseException, change: str
) -> None:
    before, after = CHANGES[change]
    target = tmp_path / "out.onnx"
    save_onnx(network(OLD, before), target)
    files = listing(tmp_path)
    with monkeypatch.context() as patched:
        seen = dying(patched, moment, error, once=True)
        expected = InputError if isinstance(error, OSError) else type(error)
        try:
            save_onnx(network(NEW, after), target, force=True)
        except expected:
            pass
        else:
            assert len(seen) < moment
    if moment <= 1 + after:
        assert listing(tmp_path) == files
    else:
        assert written(target) == 2


def test_the_data_file_has_its_usual_name_unless_the_old_model_needs_it(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    names = []
    for weight in (OLD, NEW, OLD):
        files = save_onnx(network(weight, True), target, force=True)
        names.append(files[1].name)
        assert set(listing(tmp_path)) == {file.name for file in files}
        assert written(target) == weight[0, 0]
    assert names == ["out.onnx.data", "out.onnx.1.data", "out.onnx.data"]
    assert save_onnx(network(NEW, False), target, force=True) == (target,)
    assert set(listing(tmp_path)) == {"out.onnx"}


def test_data_of_another_name_stay(tmp_path: Path) -> None:
    """Only files that were written with the old model go with it."""
    onnx.save_model(
        to_proto(network(OLD, False)), str(tmp_path / "out.onnx"), save_as_external_data=True,
        location="shared.bin", size_threshold=0,
    )  # fmt: skip
    (tmp_path / "out.onnx.2.data").write_bytes(b"unrelated")
    save_onnx(network(NEW, True), tmp_path / "out.onnx", force=True)
    assert set(listing(tmp_path)) == {"out.onnx", "out.onnx.data", "shared.bin", "out.onnx.2.data"}


def test_a_damaged_model_keeps_all_its_possible_data(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_bytes(b"no model")
    (tmp_path / "out.onnx.data").write_bytes(b"whose?")
    with pytest.raises(InputError, match="exists already"):
        save_onnx(network(NEW, True), tmp_path / "out.onnx")
    save_onnx(network(NEW, True), tmp_path / "out.onnx", force=True)
    assert written(tmp_path / "out.onnx") == 2
    assert (tmp_path / "out.onnx.1.data").exists()


def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 240 + ".onnx")
    save_onnx(network(NEW, True), target)
    assert written(target) == 2


# Bytes


ARRAYS: dict[str, Array] = {
    "large": np.arange(3000, dtype=np.float32).reshape(30, 100),
    "fortran": np.asfortranarray(np.arange(3000, dtype=np.float32).reshape(30, 100)),
    "small": np.arange(4, dtype=np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "rank 0": np.array(3, np.float32),
    "bfloat16": np.arange(3000).astype(ml_dtypes.bfloat16),
    "int4": (np.arange(3000) % 7).astype(ml_dtypes.int4),
    "bool": np.arange(3000) % 3 == 0,
    "strings": np.array([b"a", b"bc"] * 700),
}


def test_bytes_are_those_of_protobuf() -> None:
    tensors = [
        onnx_ir.StringTensor(array, name=name)
        if array.dtype.kind == "S"
        else onnx_ir.Tensor(array, name=name, doc_string="one", metadata_props={"key": name})
        for name, array in ARRAYS.items()
    ]
    values = [onnx_ir.Value(name=tensor.name, const_value=tensor) for tensor in tensors]
    graph = onnx_ir.Graph([], [], nodes=[], initializers=values, opset_imports={"": 21}, name="net")
    model = onnx_ir.Model(graph, ir_version=10, metadata_props={"author": "someone"})
    found = to_bytes(model)
    assert onnx.ModelProto.FromString(found) == to_proto(model)
    assert sum(isinstance(piece, memoryview) for piece in pieces(model)) == 3
    assert model.graph.initializers["large"].const_value is tensors[0]


@pytest.mark.parametrize("name", ARRAYS)
def test_data_are_those_of_files(name: str) -> None:
    array = ARRAYS[name]
    if array.dtype.kind != "S":
        tensor = onnx_ir.Tensor(array)
        assert bytes(data_of(tensor)) == tensor.tobytes()


def test_a_graph_longer_than_a_small_number_can_say() -> None:
    """Lengths of one to four bytes."""
    for rows in (1, 50, 5000, 600_000):
        model = network(OLD, False)
        model.graph.initializers["w"].const_value = onnx_ir.Tensor(np.ones((rows, 20), np.float32), name="w")
        assert onnx.ModelProto.FromString(to_bytes(model)) == to_proto(model)


def test_models_are_loaded_without_their_message(tmp_path: Path) -> None:
    """Arrays of large tensors are made once, and small or damaged ones are copies."""
    proto = to_proto(network(OLD, False))
    strings = numpy_helper.from_array(np.array(["a", "b"], object), "s")
    proto.graph.initializer.extend([strings, numpy_helper.from_array(np.ones(3, np.float32), "small")])
    damaged = numpy_helper.from_array(OLD, "damaged")
    damaged.raw_data = damaged.raw_data[:-1]
    proto.graph.initializer.append(damaged)
    model = to_model(proto, "net")
    before = proto.SerializeToString(deterministic=True)
    assert to_proto(model).SerializeToString(deterministic=True) == before
    del proto.graph.initializer[:]
    held = model.graph.initializers
    weight = held["w"].const_value
    assert weight is not None
    assert weight.numpy() is weight.numpy()
    assert to_proto(model).SerializeToString(deterministic=True) == before
    assert set(read_onnx(network(OLD, False)).weights) == {"w"}
    onnx.save(onnx.ModelProto.FromString(before), str(tmp_path / "m.onnx"))
    with pytest.raises(InputError, match="tensor 'damaged' cannot be read"):
        read_onnx(load_model(tmp_path / "m.onnx"))


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"m\.onnx: is a pipe or a device"):
        load_model(tmp_path / "m.onnx")
