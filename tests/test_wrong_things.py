"""What is given in place of something else: missing packages, foreign files, TorchScript, no optimizers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.errors import ExportError, InputError, MissingPackageError, ModelFileError
from graphnorm.util.extras import needing

_BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import graphnorm
for statement in sys.argv[2:]:
    try:
        exec(statement)
    except graphnorm.GraphNormError as error:
        print(isinstance(error, ImportError), error)
"""


@pytest.mark.parametrize(
    ("absent", "extra", "statements"),
    [
        (
            "torch",
            "graphnorm[torch]",
            ["import graphnorm.passes.fx", "import graphnorm.nn", "graphnorm.ENorm", "graphnorm.PathSGD",
             "graphnorm.ImplicitENorm", "from graphnorm.training.symmetry import find_symmetries"],
        ),
        ("onnx,onnx_ir", "graphnorm[onnx]", ["import graphnorm.passes.onnx"]),
    ],
)  # fmt: skip
def test_missing_packages(absent: str, extra: str, statements: list[str]) -> None:
    """Each statement ends in a sentence, which is an ImportError as well."""
    command = [sys.executable, "-c", _BLOCKED, absent, *statements]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == len(statements)
    assert all(line.startswith("True ") and extra in line for line in said)


def test_other_packages_are_no_extras() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package") as caught, needing("this"):
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401
    assert not isinstance(caught.value, MissingPackageError)
    said = r"this needs torch: pip install 'graphnorm\[torch\]'"
    with pytest.raises(MissingPackageError, match=said), needing("this"):
        raise ModuleNotFoundError("No module named 'torch.fx'", name="torch.fx")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


X = torch.rand(3, 4)


class Holds(nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.inner(x))


def traced() -> Any:
    return torch.jit.trace(network(), X)  # type: ignore[no-untyped-call]


def scripted() -> Any:
    return torch.jit.script(network())


@pytest.mark.parametrize(
    ("made", "name"),
    [(traced, "the model"), (scripted, "the model"), (lambda: Holds(scripted()), "'inner'")],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(made: Callable[[], nn.Module], name: str) -> None:
    with pytest.raises(ExportError, match=rf"hint: {name} is TorchScript, .* give the module"):
        graphnorm.trace(made(), X)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_traced_modules_inside_are_exported() -> None:
    assert graphnorm.trace(Holds(traced()), X).dimension == 8


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize(
    "given",
    [
        None,
        0.1,
        torch.optim.lr_scheduler.StepLR(sgd(network()), 3),
        network().parameters(),
        [sgd(network()), None],
    ],
    ids=["nothing", "number", "scheduler", "parameters", "one of two"],
)
def test_no_optimizers(given: Any) -> None:
    with pytest.raises(InputError, match=r"expected a torch.optim.Optimizer or several of them, got "):
        graphnorm.ENorm(network(), given, X)


def test_optimizers_of_another_model() -> None:
    model = network()
    for given in (sgd(network()), [], [sgd(network()), sgd(network())]):
        with pytest.raises(InputError, match="no optimizer holds a parameter of Sequential"):
            graphnorm.ENorm(model, given, X)
    graphnorm.ENorm(model, [sgd(network()), sgd(model)], X).step()


def test_results_are_short() -> None:
    model = nn.Sequential(*(layer for _ in range(30) for layer in (nn.Linear(9, 9), nn.ReLU())))
    result = graphnorm.canonicalize(model, torch.rand(2, 9), verify=False)
    checked = graphnorm.check(model, result.model, torch.rand(2, 9))
    for item in (result, result.graph, result.report, checked):
        assert repr(item).startswith(type(item).__name__)
        assert len(repr(item)) < 300
    assert "dimension=261" in repr(result.graph)
    assert repr(checked) == "CheckReport(verdict='proved')"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
        ("a.onnx", b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
        ("a.keras", b"PK\x03\x04" + bytes(40), "a Keras model"),
        ("a.tflite", bytes(40), "a TensorFlow Lite model"),
        ("weights", b"\x1c\x00\x00\x00TFL3" + bytes(40), "a TensorFlow Lite model"),
        ("a.safetensors", bytes(40), "a safetensors file"),
        ("model.onnx", b"\x40" + bytes(7) + b'{"__metadata__":{}}' + bytes(40), "a safetensors file"),
        ("a.GGUF", b"GGUF" + bytes(40), "a GGUF file"),
        ("a.pb", bytes(40), "a TensorFlow graph"),
    ],
)
def test_files_of_other_formats(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(
        ModelFileError, match=f"is {said}.*, not an ONNX model; graphnorm reads .onnx"
    ) as caught:
        graphnorm.trace(tmp_path / name)
    assert "truncated" not in str(caught.value)
