"""Peak memory of `canonicalize` and `check`, with verification, per byte of the weights.

    OMP_NUM_THREADS=1 python -m tools.bench_memory --megabytes 100 1000

Each line is a process of its own: plain layers (matrices, ReLU) or convolutions, read from a file where
the network is an ONNX model.  `check` compares a network with a rescaled copy and holds the weights of both.
Bound: 4 times the weights of one model and half a gigabyte.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("onnx", "torch")
COMMANDS = ("canonicalize", "check")
NETWORKS = ("mlp", "conv")
_BASE = 0.5e9  # bytes that are allowed whatever the weights


def layers(network: str, megabytes: float) -> list[tuple[int, ...]]:
    """Shapes of the weights: (out, in) or (out, in, 3, 3)."""
    kernel: tuple[int, ...] = () if network == "mlp" else (3, 3)
    width = (2048 if megabytes > 300 else 1024) if network == "mlp" else (512 if megabytes > 300 else 256)
    each = 4 * width**2 * int(np.prod(kernel, dtype=np.int64))
    return [(width, width, *kernel)] * max(2, round(megabytes * 1e6 / each))


def arrays(shapes: list[tuple[int, ...]], rescaled: bool) -> list[np.ndarray]:
    """Random weights; rescaled: each channel between two layers by a factor from 1/4 to 4."""
    generator = np.random.default_rng(0)
    found: list[np.ndarray] = []
    before: Any = np.float32(1)
    for index, shape in enumerate(shapes):
        last = index + 1 == len(shapes)
        weight = generator.standard_normal(shape, np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        factor = np.exp2(generator.integers(-2, 3, shape[0])).astype(np.float32)
        if rescaled:
            across = (1,) * (len(shape) - 2)
            weight *= (1 / before).reshape(1, -1, *across) if index else np.float32(1)
            weight *= np.float32(1) if last else factor.reshape(-1, 1, *across)
        before = factor
        found.append(weight)
    return found


def write_onnx(path: Path, network: str, megabytes: float, rescaled: bool) -> None:
    """The network as an ONNX file with external data."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shapes = layers(network, megabytes)
    nodes, held, last = [], [], "x"
    for index, array in enumerate(arrays(shapes, rescaled)):
        end = index + 1 == len(shapes)
        held.append(numpy_helper.from_array(array, f"w{index}"))
        name = "y" if end else f"h{index}"
        kind = {"op_type": "Gemm", "transB": 1} if network == "mlp" else {"op_type": "Conv", "pads": [1] * 4}
        nodes.append(helper.make_node(inputs=[last, f"w{index}"], outputs=[name], **kind))
        if not end:
            nodes.append(helper.make_node("Relu", [name], [f"r{index}"]))
        last = f"r{index}"
    side = () if network == "mlp" else (8, 8)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width, *side])
        for name, width in (("x", shapes[0][1]), ("y", shapes[-1][0]))
    ]
    graph = helper.make_graph(nodes, network, ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path, save_as_external_data=True, location=path.name + ".data")


def torch_model(network: str, megabytes: float, rescaled: bool) -> Any:
    """The network as a torch module."""
    import torch
    from torch import nn

    found: list[nn.Module] = []
    for array in arrays(layers(network, megabytes), rescaled):
        out, inner = array.shape[:2]
        layer: Any
        if network == "mlp":
            layer = nn.Linear(inner, out, bias=False, device="meta")
        else:
            layer = nn.Conv2d(inner, out, 3, padding=1, bias=False, device="meta")
        layer.weight = nn.Parameter(torch.from_numpy(array))
        found += [layer, nn.ReLU()]
    return nn.Sequential(*found[:-1]).eval()


def work(kind: str, command: str, network: str, megabytes: float, folder: Path) -> None:
    """Run a command in this process and print its peak memory in bytes; or write the files for one."""
    if command == "write":
        for name in ("a", "b"):
            write_onnx(folder / f"{name}.onnx", network, megabytes, name == "b")
        return
    import graphnorm

    if kind == "onnx":
        models: list[Any] = [folder / "a.onnx", folder / "b.onnx"]
        example = None
    else:
        import torch

        width = layers(network, megabytes)[0][1]
        example = torch.randn(1, width, *(() if network == "mlp" else (8, 8)))
        wanted = (False, True) if command == "check" else (False,)
        models = [torch_model(network, megabytes, rescaled) for rescaled in wanted]
    if command == "canonicalize":
        verdict = graphnorm.canonicalize(models[0], example).report.verification.verdict
    else:
        verdict = graphnorm.check(models[0], models[1], example).verdict
    print(verdict, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[100.0, 1000.0])
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--commands", nargs="+", default=COMMANDS, choices=COMMANDS)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        kind, command, network, megabytes, folder = options.work
        work(kind, command, network, float(megabytes), Path(folder))
        return
    print("| model | command | weights | peak | over weights | bound | verdict |", "|---" * 7 + "|", sep="\n")
    for megabytes in options.megabytes:
        for network in options.networks:
            with tempfile.TemporaryDirectory() as folder:
                for kind in options.kinds:
                    for command in options.commands:
                        print(row(kind, command, network, megabytes, folder), flush=True)


def row(kind: str, command: str, network: str, megabytes: float, folder: str) -> str:
    """One line of the table: a process for the files, if there are none yet, and one for the command."""
    line = [sys.executable, "-m", "tools.bench_memory", "--work", kind]
    rest = [network, str(megabytes), folder]
    if kind == "onnx" and not (Path(folder) / "a.onnx").exists():
        subprocess.run([*line, "write", *rest], check=True)
    ran = subprocess.run([*line, command, *rest], capture_output=True, text=True, check=True)
    *words, peak = ran.stdout.split()
    size = 4 * sum(int(np.prod(shape)) for shape in layers(network, megabytes))
    held = "within" if int(peak) <= 4 * size + _BASE else "beyond"
    ends = f"{int(peak) / size:.2f} | {held} | {' '.join(words)}"
    return f"| {kind} {network} | {command} | {size / 1e6:.0f} MB | {int(peak) / 1e6:.0f} MB | {ends} |"


if __name__ == "__main__":
    main()
