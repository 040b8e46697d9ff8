"""New weights reach a torch model whole, or not at all; files are written whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from graphnorm.emission.torch_module import named_tensors, rescale_torch, save_torch
from graphnorm.errors import InputError
from graphnorm.frontends.torch.read import read_torch

x = torch.randn(2, 3, 6, 6)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.conv.weight.data = self.conv.weight.data.to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(4)
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)
        self.register_buffer("gain", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.conv(x)).relu().mean((2, 3)) * self.gain
        return self.second(self.first(hidden))


def net() -> Any:
    return Net().eval()


def exported(model: nn.Module) -> ExportedProgram:
    return torch.export.export(model, (x,), strict=False)


def call(program: ExportedProgram, x: Tensor) -> Any:
    module: Any = program.module()
    return module(x)


def doubled(model: nn.Module | ExportedProgram) -> dict[str, Any]:
    return {name: array * 2 for name, array in read_torch(model, x).weights.items()}


def snapshot(model: nn.Module | ExportedProgram) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in named_tensors(model).items()}


@pytest.mark.parametrize("kind", ["module", "graph module", "program"])
@pytest.mark.parametrize("inplace", [False, True])
def test_every_weight_is_replaced_and_nothing_else(kind: str, inplace: bool) -> None:
    model: Any = net()
    if kind == "graph module":
        model = fx.symbolic_trace(model)
    elif kind == "program":
        model = exported(model)
    before = snapshot(model)
    new = doubled(model)
    changed = rescale_torch(model, new, inplace=inplace)
    assert (changed is model) == inplace
    if kind == "graph module":  # each has a class of its own
        assert changed.code == model.code
    else:
        assert type(changed) is type(model)
    assert list(changed.state_dict if kind == "program" else changed.state_dict()) == list(
        model.state_dict if kind == "program" else model.state_dict()
    )
    for name, tensor in named_tensors(changed).items():
        old = before[name]
        expected = old * 2 if tensor.is_floating_point() else old
        assert torch.equal(tensor, expected), name
        original = named_tensors(model)[name]
        assert torch.equal(original, expected if inplace else old), name
        assert tensor.stride() == original.stride()
        assert tensor.dtype == original.dtype
        assert tensor.requires_grad == original.requires_grad
    tensors = named_tensors(changed)
    assert tensors["first.weight"].data_ptr() == tensors["second.weight"].data_ptr()
    assert tensors["conv.weight"].is_contiguous(memory_format=torch.channels_last)


def test_the_program_computes_with_its_new_weights() -> None:
    program = exported(net())
    changed = rescale_torch(program, {"second.bias": program.state_dict["second.bias"].numpy() + 1})
    torch.testing.assert_close(call(changed, x), call(program, x) + 1)


def test_bfloat16_is_written_bit_by_bit() -> None:
    model = nn.Linear(2, 2).to(torch.bfloat16)
    new = np.array([[1.5, 2], [3, 4]], dtype=ml_dtypes.bfloat16)
    changed = rescale_torch(model, {"weight": new})
    assert named_tensors(changed)["weight"].float().tolist() == [[1.5, 2], [3, 4]]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("nothing", np.ones(4, np.float32), "no parameter or buffer named 'nothing'"),
        ("second.bias", np.ones(3, np.float32), r"'second.bias' has shape \(4,\), its new value \(3,\)"),
        ("second.bias", np.ones(4), "is float32, its new value float64"),
        ("second.bias", np.full(4, np.inf, np.float32), "new value of weight 'second.bias' is not finite"),
    ],
)
def test_what_does_not_fit_changes_nothing(name: str, array: Any, message: str) -> None:
    model = net()
    before = snapshot(model)
    new = {"conv.bias": np.zeros(4, np.float32), name: array}
    with pytest.raises(InputError, match=message):
        rescale_torch(model, new, inplace=True)
    assert all(torch.equal(tensor, before[key]) for key, tensor in named_tensors(model).items())


def test_tensors_that_cannot_be_written() -> None:
    model = nn.Module()
    model.register_buffer("wide", torch.ones(1).expand(3))
    with pytest.raises(InputError, match="'wide' cannot be written to"):
        rescale_torch(model, {"wide": np.ones(3, np.float32)})


def test_modules_that_cannot_be_copied() -> None:
    model = nn.Linear(2, 2)
    model.cached = model.weight * 2
    new = {"bias": np.ones(2, np.float32)}
    with pytest.raises(InputError, match=r"cannot be copied .* use inplace=True"):
        rescale_torch(model, new)
    assert rescale_torch(model, new, inplace=True) is model
    assert model.bias.tolist() == [1, 1]


def test_files_round_trip(tmp_path: Path) -> None:
    model = net()
    program = exported(model)
    save_torch(program, tmp_path / "net.pt2")
    torch.testing.assert_close(call(torch.export.load(tmp_path / "net.pt2"), x), model(x))
    save_torch(model, tmp_path / "net.safetensors")
    other = net()
    safetensors.torch.load_model(other, tmp_path / "net.safetensors")
    torch.testing.assert_close(other(x), model(x))
    save_torch(program, tmp_path / "program.safetensors")
    state = safetensors.torch.load_file(tmp_path / "program.safetensors")
    assert set(state) == set(model.state_dict())
    assert {path.suffix for path in tmp_path.iterdir()} == {".pt2", ".safetensors"}  # no temporary is left


def test_files_are_replaced_only_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match="exists already; pass --force"):
        save_torch(net(), path)
    assert path.read_bytes() == b"mine"
    save_torch(net(), path, force=True)
    assert safetensors.torch.load_file(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"mine")

    def fail(model: nn.Module, name: str) -> None:
        Path(name).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_model", fail)
    with pytest.raises(OSError, match="disk full"):
        save_torch(net(), path, force=True)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("net.safetensors", b"mine")]


@pytest.mark.parametrize(
    ("name", "message"),
    [("net.pt2", "a module has no graph to write"), ("net.bin", "unknown suffix '.bin'")],
)
def test_formats_that_do_not_fit(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        save_torch(net(), tmp_path / name)
