"""Example inputs that cannot be taken: one sentence a cause, which says what to do; models with caches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphnorm
from graphnorm.errors import ExportError, InputError
from graphnorm.frontends.torch.caches import REMARK


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, mask: Tensor, *, factor: float = 1.0) -> Tensor:
        return self.last(torch.relu(self.first(x)) * mask) * factor


JAGGED = torch.nested.as_nested_tensor([torch.ones(2, 3)] * 2, layout=torch.jagged)
X, MASK = torch.randn(2, 3), torch.ones(2, 8)


def inference() -> nn.Module:
    with torch.inference_mode():
        return network()


class Inferred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def made_in_inference() -> Tensor:
    with torch.inference_mode():
        return torch.randn(2, 3)


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise LookupError("no such language")


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


# What is given -> how the model is made, example inputs, keyword inputs, and what is said.
REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, Any, str]] = {
    "dictionary": (Masked, {"x": X, "mask": MASK}, None, r"dictionary \(x, mask\): .* kwargs="),
    "array": (network, X.numpy(), None, r"example input 0 is a NumPy array: .* torch.from_numpy"),
    "array inside": (Masked, (X,), {"mask": MASK.numpy()}, r"example input 'mask' is a NumPy array"),
    "array in a list": (network, ([X, X.numpy()],), None, r"example input 0\[1\] is a NumPy array"),
    "number": (network, 3.0, None, r"of type float: pass a tensor, or a tuple"),
    "text": (network, "x", None, r"of type str"),
    "coo": (network, X.to_sparse(), None, r"example input 0 is a sparse \(coo\) tensor"),
    "csr": (Masked, (X,), {"mask": MASK.to_sparse_csr()}, r"example input 'mask' is a sparse \(csr\) tensor"),
    "bsr": (network, torch.ones(4, 4).to_sparse_bsr((2, 2)), None, r"sparse \(bsr\) tensor"),
    "nested": (network, JAGGED, None, r"is a nested tensor"),
    "missing": (Masked, X, None, r"Masked takes \(x.*, mask.*\).*: missing a required argument: 'mask'"),
    "surplus": (network, (X, X), None, r"forward of Sequential takes .*: too many positional arguments"),
    "unknown": (Masked, (X, MASK), {"scale": 2.0}, r"unexpected keyword argument 'scale'"),
    "positional": (Masked, (X, MASK, 2.0), None, r"too many positional arguments"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4)), X, None, r"'0.weight' of Sequential has no shape yet"),
    "lazy norm": (nn.LazyBatchNorm1d, X, None, r"'weight' of LazyBatchNorm1d has no shape yet"),
    "inference": (inference, X, None, r"'0.weight' of Sequential was made in torch.inference_mode"),
    "inference input": (Inferred, made_in_inference(), None, r"input 0 was made in torch.inf"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("call", [graphnorm.trace, graphnorm.canonicalize])
def test_refused(call: Callable[..., Any], name: str) -> None:
    make, inputs, kwargs, said = REFUSED[name]
    with pytest.raises(InputError, match=said):
        call(make(), inputs, kwargs=kwargs)


# The same where only running the module tells.
FAILING: dict[str, tuple[Callable[[], nn.Module], Tensor, str]] = {
    "shape": (network, torch.randn(2, 5), r"shapes do not fit \(Linear '0': .*inputs are float32\(2, 5\)"),
    "channels": (lambda: nn.Conv2d(3, 4, 1), torch.randn(1, 2, 4, 4), r"shapes do not fit \(Conv2d: "),
    "axes": (lambda: nn.BatchNorm2d(3), torch.randn(2, 3), r"shapes do not fit \(BatchNorm2d: "),
    "indices": (lambda: nn.Embedding(9, 2), X, r"types do not fit \(Embedding: .*the weights float32"),
    "half": (lambda: nn.Conv1d(2, 2, 1).half(), X, r"types do not fit \(Conv1d: .*the weights float16"),
    "other": (Fails, X, r"fails on these inputs \(Fails: no such language\): float32\(2, 3\)"),
    "values": (Branch, X, r"control flow that depends on tensor values cannot be exported"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILING)
def test_cause_of_a_failed_export(name: str) -> None:
    make, x, said = FAILING[name]
    with pytest.raises(ExportError, match=rf"(?s)torch.export cannot trace .*\nhint: .*{said}"):
        graphnorm.trace(make(), x)


def test_module_that_cannot_be_copied() -> None:
    class Held(Branch):
        def __init__(self) -> None:
            super().__init__()
            self.lock = (n for n in range(3))

    with pytest.raises(ExportError, match="hint: control flow"):
        graphnorm.trace(Held(), X)


def test_what_is_taken() -> None:
    model = Masked()
    for inputs, kwargs in (
        ((X, MASK), None),
        ([X, MASK], None),
        (X, {"mask": MASK}),
        (None, {"x": X, "mask": MASK}),
    ):
        assert graphnorm.trace(model, inputs, kwargs=kwargs).dimension == 8
    with torch.inference_mode():
        assert graphnorm.trace(model, (X, MASK)).dimension == 8


# A cache of keys and values.


class Cache:
    """No class that ``torch.export`` knows."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys


class Language(nn.Module):
    """Keys and queries that meet, with the cache that its configuration asks for."""

    def __init__(self, nested: bool, tensor: bool) -> None:
        super().__init__()
        self.inner = SimpleNamespace(use_cache=True)
        self.config = SimpleNamespace(use_cache=not nested, text_config=self.inner)
        self.keys, self.queries, self.tensor = nn.Linear(3, 4), nn.Linear(3, 4), tensor

    def forward(self, x: Tensor) -> Any:
        keys = self.keys(x)
        scores = self.queries(x) @ keys.T
        if self.inner.use_cache or self.config.use_cache:
            return scores, keys if self.tensor else Cache(keys)
        return scores


@pytest.mark.parametrize("tensor", [True, False], ids=["tensors", "own class"])
@pytest.mark.parametrize("nested", [True, False])
def test_cache_is_off_while_tracing(nested: bool, tensor: bool) -> None:
    model = Language(nested, tensor).double()
    x = X.double()
    before = copy.deepcopy(model.config)
    graph = graphnorm.trace(model, x)
    assert graph.dimension == 4
    assert graph.remarks == (REMARK,)
    result = graphnorm.canonicalize(model, x)
    assert result.report.remarks == (REMARK,)
    assert result.report.verification.verdict == "proved"
    assert model.config == before == result.model.config
    assert torch.allclose(model(x)[0], result.model(x)[0])
    assert graphnorm.check(model, result.model, x).verdict == "proved"


def test_cache_that_is_off_or_absent() -> None:
    model = Language(nested=True, tensor=True).double()
    model.inner.use_cache = False
    assert graphnorm.trace(model, X.double()).remarks == ()


def test_cache_is_restored_after_a_failure() -> None:
    model = Language(nested=False, tensor=False)
    with pytest.raises(ExportError, match="shapes do not fit"):
        graphnorm.trace(model, torch.randn(2, 5))
    assert model.config.use_cache is True
    assert model.inner.use_cache is True
