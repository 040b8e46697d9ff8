"""A folder with a model, and an earlier result that the next run replaces."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphnorm.errors import GraphNormError
from graphnorm.frontends.onnx.read import read_onnx
from graphnorm.util.atomic import PREFIX

WIDTH = 256
OLD, NEW = "old", "new"


@dataclass(frozen=True)
class Kind:
    """How a folder looks before the run: where the weights of input and earlier result lie."""

    external_input: bool
    external_result: bool

    def __str__(self) -> str:
        said = {True: "external", False: "inline"}
        return f"{said[self.external_input]} over {said[self.external_result]}"


KINDS = tuple(Kind(one, two) for one in (True, False) for two in (True, False))


def command(p: float) -> list[str]:
    """The run that is killed: `p` tells old results from new ones, which are the same function."""
    return ["canonicalize", "in.onnx", "-o", "out.onnx", "--force", "--no-verify", "--p", f"{p:g}"]


def build(folder: Path, external: bool) -> None:
    """Write ``in.onnx``."""
    rng = np.random.default_rng(0)
    sizes = (16, WIDTH, WIDTH, 16)
    held = [
        numpy_helper.from_array(rng.normal(size=(m, n)).astype(np.float32), f"w{i}")
        for i, (m, n) in enumerate(pairwise(sizes))
    ]
    nodes, value = [], "x"
    for i in range(len(held)):
        nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [f"h{i}"]))
        nodes.append(helper.make_node("Relu", [f"h{i}"], [f"r{i}"]))
        value = f"r{i}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16]) for name in ("x", value)]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(
        model,
        str(folder / "in.onnx"),
        save_as_external_data=external,
        location="in.bin" if external else None,
    )


def weights(path: Path) -> str:
    """Hash of a model's weights; what is wrong with it if it cannot be read."""
    try:
        read = read_onnx(path).weights
    except GraphNormError as error:
        return f"unreadable: {error}"
    digest = hashlib.sha256()
    for name in sorted(read):
        digest.update(read[name].tobytes())
    return digest.hexdigest()


def hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Of the files that must not change."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def temporaries(folder: Path) -> list[str]:
    """What a run has left unfinished."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(PREFIX))
