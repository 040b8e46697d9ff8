"""In-place operators: read as they are where that is exact, else left to `run_decompositions`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphnorm.errors import ExportError
from graphnorm.frontends.torch import inplace as torch_inplace
from graphnorm.frontends.torch import read as torch_export
from graphnorm.frontends.torch.inplace import is_functional_enough
from graphnorm.frontends.torch.read import read_torch
from tests.support.torch_functions import Fn, check, rand


def chain(x: Tensor) -> Tensor:
    return (x * 2).relu_().add_(1).mul_(3)


def old_name(x: Tensor) -> Tensor:
    y = x * 2
    z = y + 1
    y.relu_()
    y.sub_(1)
    return y + z


def result_ignored(x: Tensor) -> Tensor:
    y = x.sin()
    F.relu(y, inplace=True)
    return y.cos()


def branch_reads_before(x: Tensor) -> Tensor:
    y = x - 1
    before = y.exp()
    y.clamp_(min=0)
    return before + y


def view_held_before(x: Tensor) -> Tensor:
    y = x * 2
    flat = y.view(-1)
    y.relu_()
    return flat + 1


def view_written(x: Tensor) -> Tensor:
    y = x * 2
    y[0].fill_(5)
    return y


def transposed_written(x: Tensor) -> Tensor:
    y = x * 2
    y.t().relu_()
    return y


def dropout_shares(x: Tensor) -> Tensor:
    y = x * 2
    same = F.dropout(y, training=False)
    y.relu_()
    return same


def reshaped_in_place(x: Tensor) -> Tensor:
    y = (x * 2).flatten()
    y.relu_()
    return y


def view_after(x: Tensor) -> Tensor:
    y = (x * 2).relu_()
    flat = y.flatten()
    y.add_(1)
    return flat


def einsum_shares(x: Tensor) -> Tensor:
    y = x * 2
    turned = torch.einsum("ij->ji", y)
    y.relu_()
    return turned


def storage_replaced(x: Tensor) -> Tensor:
    z, w = x * 3, x * 2
    z.set_(w)  # type: ignore[call-overload]
    w.relu_()
    return z + w


READ_AS_THEY_ARE = (chain, old_name, result_ignored, branch_reads_before, dropout_shares)
DECOMPOSED = (
    view_held_before, view_written, transposed_written, reshaped_in_place, view_after, einsum_shares,
    storage_replaced,
)  # fmt: skip


def program(model: nn.Module, *inputs: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model, inputs, strict=False)


@pytest.mark.parametrize("function", READ_AS_THEY_ARE + DECOMPOSED)
def test_values(function: Callable[[Tensor], Tensor]) -> None:
    x = rand(3, 4) - 0.5
    assert is_functional_enough(program(Fn(function), x)) == (function in READ_AS_THEY_ARE)
    check(Fn(function), x)


@pytest.mark.parametrize("function", [view_held_before, view_after])
def test_a_hazard_read_as_it_is_gives_other_values(
    function: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_export, "is_functional_enough", lambda program: True)
    with pytest.raises(AssertionError):
        check(Fn(function), rand(3, 4) - 0.5)


def test_written_inputs_and_statistics_are_decomposed() -> None:
    assert not is_functional_enough(program(Fn(lambda x: x.relu_()), rand(3)))
    norm = nn.BatchNorm1d(4)
    assert not is_functional_enough(program(norm.train(), rand(3, 4)))
    assert is_functional_enough(program(norm.eval(), rand(3, 4)))


def test_a_dropout_that_shares_what_is_written_through_a_view_is_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        same = F.dropout(y, training=False)
        y.view(-1).relu_()
        return same

    with pytest.raises(ExportError, match=r"aten\.dropout.* may share"):
        read_torch(Fn(forward), rand(3, 4))


def test_views_that_no_schema_declares_are_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        torch.unsafe_split(y, 2, 1)[0].relu_()
        return y

    with pytest.raises(ExportError, match=r"unsafe_split.* may share"):
        read_torch(Fn(forward), rand(3, 4))


def test_residual_block_keeps_its_layers() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
            self.act = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.act(self.one(x))
            z: Tensor = self.two(y)
            z += y
            return self.act(z)

    model = Block()
    x = rand(1, 2, 3, 3) - 0.5
    assert is_functional_enough(program(model, x))
    assert [node.op for node in check(model, x).nodes] == ["Conv", "Relu", "Conv", "Add", "Relu"]


def test_functional_operators_are_their_own() -> None:
    add = torch.ops.aten.add.Tensor
    assert torch_inplace.functional(add) is add
    assert torch_inplace.functional(torch.ops.aten.add_.Tensor) is add


@pytest.mark.parametrize(("rate", "shares"), [(0.5, False), (0.0, True)])
def test_a_dropout_that_drops_makes_a_tensor_of_its_own(rate: float, shares: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.last = nn.BatchNorm1d(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.norm(x).relu_()
            dropped = F.dropout(y.flatten(1), rate, training=True)
            y.mul_(2)
            return self.last(dropped), y

    hidden = torch_inplace.hidden_views(program(Net().train(), rand(3, 4)))
    assert (torch.ops.aten.dropout.default in hidden) == shares
    if not shares:
        graph = read_torch(Net().train(), rand(3, 4))
        assert "Dropout" in {node.op for node in graph.nodes}
