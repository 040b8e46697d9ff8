"""Permutations: what is allowed keeps the function, what is found is the one that was applied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx.helper as oh
import onnx_ir
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

import graphnorm
from graphnorm import ir
from graphnorm.api.sources import open_model
from graphnorm.emission.onnx_file import rescale_onnx
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.permutation import rules
from graphnorm.permutation.axes import Axes
from graphnorm.permutation.order import canonical_order
from graphnorm.permutation.symmetry import inverse, symmetry
from graphnorm.proof.prove import attempt
from tests.api.test_canonicalize import exported, network
from tests.api.test_check import COMMON
from tests.support.equivalents import equivalent_weights
from tests.support.networks import NETWORKS
from tests.support.planting import plant, uproot

Model = Any


def doubled(name: str) -> tuple[Model, Any]:
    model, arguments = network(name)
    model.train("train" in name).double()
    return model, tree_map(
        lambda t: t.double() if isinstance(t, torch.Tensor) and t.is_floating_point() else t, arguments
    )


def outputs(model: Model, arguments: Any) -> list[torch.Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(model(*arguments)) if isinstance(leaf, torch.Tensor)]


def distance(one: list[torch.Tensor], two: list[torch.Tensor]) -> float:
    return max(
        float((a - b).abs().max() / a.abs().max().clamp_min(1e-300))
        for a, b in zip(one, two, strict=True)
        if a.is_floating_point()
    )


def permuted(model: Model, arguments: Any, seed: int = 0) -> tuple[Model, int]:
    """A copy with every factor permuted at random, and how many there are."""
    traced = open_model(model, arguments).network
    allowed = symmetry(traced)
    generator = np.random.default_rng(seed)
    orders = {factor: generator.permutation(size) for factor, size in allowed.sizes.items()}
    weights = {k: np.asarray(v, order="C") for k, v in allowed.apply(orders, traced.weights).items()}
    return rescale_torch(model, weights), len(orders)


# These cannot be deep-copied, or change their weights when run.
UNCOPIED = {"weight_norm_hook", "batch_norm_train"}


@pytest.mark.parametrize(
    "name",
    [
        name if name in COMMON else pytest.param(name, marks=pytest.mark.slow)
        for name in NETWORKS
        if name not in UNCOPIED
    ],
)
def test_every_allowed_permutation_keeps_the_function(name: str) -> None:
    model, arguments = doubled(name)
    expected = outputs(model, arguments)
    other, _ = permuted(model, arguments)
    assert distance(expected, outputs(other, arguments)) < 1e-9


@pytest.mark.parametrize(
    ("name", "factors"),
    [("mlp", 2), ("residual_identity", 2), ("squeeze_excite", 2), ("grouped", 2), ("transformer", 5)],
)
def test_number_of_factors(name: str, factors: int) -> None:
    model, arguments = doubled(name)
    assert permuted(model, arguments)[1] == factors


def test_a_wrong_rule_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above must reject a rule that ties nothing."""
    model, arguments = doubled("residual_identity")

    def loose(walk: Any, node: ir.Node) -> Any:
        return [tuple(walk.table.new(size) for size in walk.shape(node.outputs[0]))]

    plant(monkeypatch, rules.RULES, "Add", loose)
    other, _ = permuted(model, arguments)
    assert distance(outputs(model, arguments), outputs(other, arguments)) > 1e-3


def test_operators_without_a_rule_freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    model, arguments = doubled("mlp")
    uproot(monkeypatch, rules.RULES, "Relu")
    assert permuted(model, arguments)[1] == 0


@pytest.mark.parametrize(
    "name", ["mlp", "residual_projection", "densenet", "grouped", "transformer", "batch_norm_eval", "unet"]
)
def test_permuted_and_rescaled_copies_are_proved(name: str) -> None:
    model, arguments = network(name)
    traced = open_model(model.eval(), arguments).network
    weights = equivalent_weights(traced, seed=3)
    found = attempt(traced, replace(traced, weights=weights))
    assert found.proof is not None, found.note
    assert found.structure.form == "as written"
    without = attempt(traced, replace(traced, weights=weights), permutations=False)
    assert (without.proof is None) == bool(found.proof.permutation)


def test_a_permutation_of_one_tensor_alone_is_not_proved() -> None:
    model, arguments = network("residual_projection")
    traced = open_model(model.eval(), arguments).network
    weights = equivalent_weights(traced, seed=3)
    name = "first.weight"
    swapped = weights[name].copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    found = attempt(traced, replace(traced, weights={**weights, name: swapped}))
    assert found.proof is None
    assert not found.identical


class TestAxes:
    def test_products_are_cut_alike(self) -> None:
        table = Axes()
        whole, parts = table.new(12), (*table.new(3)[0], *table.new(4)[0])
        table.unite(whole, (parts,))
        assert table.resolve(whole) == (parts,)

    def test_sums_are_cut_alike(self) -> None:
        table = Axes()
        whole, parts = table.new(7), (table.new(3)[0], table.new(4)[0])
        table.unite(whole, parts)
        assert [table.length(segment) for segment in table.resolve(whole)] == [3, 4]
        assert table.resolve(whole) == table.resolve(parts)

    def test_what_cannot_be_cut_alike_is_frozen(self) -> None:
        table = Axes()
        one = (tuple(factor for size in (2, 3) for factor in table.new(size)[0]),)
        two = (tuple(factor for size in (3, 2) for factor in table.new(size)[0]),)
        table.unite(one, two)
        assert all(table.is_frozen(factor) for axis in (one, two) for factor in axis[0])

    def test_frozen_is_frozen_everywhere(self) -> None:
        table = Axes()
        one, two, three = table.new(6), table.new(6), table.new(6)
        table.unite(one, two)
        table.freeze([two])
        table.unite(three, one)
        assert all(table.is_frozen(factor) for axis in (one, two, three) for factor in axis[0])

    def test_a_cut_reaches_all_that_was_united(self) -> None:
        table = Axes()
        one, two = table.new(6), table.new(6)
        table.unite(one, two)
        parts = table.split(one, (2, 3))
        table.freeze([parts[0]])
        (segment,) = table.resolve(two)
        assert [table.is_frozen(factor) for factor in segment] == [True, False]


def test_inverse_undoes() -> None:
    model, arguments = network("transformer")
    traced = open_model(model.eval(), arguments).network
    allowed = symmetry(traced)
    generator = np.random.default_rng(0)
    orders = {factor: generator.permutation(size) for factor, size in allowed.sizes.items()}
    there = allowed.apply(orders, traced.weights)
    back = allowed.apply(inverse(orders), there)
    assert all((back[name] == array).all() for name, array in traced.weights.items())
    assert any((there[name] != array).any() for name, array in traced.weights.items())


class TestCanonicalOrder:
    @pytest.mark.parametrize("name", ["mlp", "residual_projection", "transformer", "batch_norm_eval"])
    @pytest.mark.parametrize("double", [False, True])
    def test_equivalent_copies_come_out_equal(self, name: str, double: bool) -> None:
        model, arguments = doubled(name) if double else network(name)
        model.eval()
        source = open_model(model, arguments)
        other = rescale_torch(model, equivalent_weights(source.network, seed=1))
        tol = 1e-14 if double else 1e-8
        results = [graphnorm.canonicalize(one, arguments, permute=True, tol=tol) for one in (model, other)]
        assert all(result.report.verification.verdict == "proved" for result in results)
        assert any(result.permutation for result in results)
        one, two = (result.model.state_dict() for result in results)
        for key, tensor in one.items():
            if tensor.is_floating_point():
                assert (tensor - two[key]).norm() <= (1e-12 if double else 1e-6) * tensor.norm()

    def test_idempotent(self) -> None:
        model, arguments = network("transformer")
        once = graphnorm.canonicalize(model.eval(), arguments, permute=True)
        twice = graphnorm.canonicalize(once.model, arguments, permute=True)
        assert once.permutation
        assert twice.permutation == {}

    @pytest.mark.parametrize("double", [False, True])
    def test_equivalent_onnx_copies_come_out_equal(self, double: bool) -> None:
        model, arguments = doubled("mlp") if double else network("mlp")
        loaded = onnx_ir.from_proto(exported(model.eval(), *arguments))
        other = rescale_onnx(loaded, equivalent_weights(open_model(loaded).network, seed=1))
        tol = 1e-14 if double else 1e-8
        results = [graphnorm.canonicalize(one, permute=True, tol=tol) for one in (loaded, other)]
        assert any(result.permutation for result in results)
        one, two = (open_model(result.model).network.weights for result in results)
        for name, array in one.items():
            assert array.dtype == (np.float64 if double else np.float32)
            assert np.linalg.norm(array - two[name]) <= (1e-12 if double else 1e-6) * np.linalg.norm(array)
        assert graphnorm.canonicalize(results[0].model, permute=True).permutation == {}

    def test_scalar_weights_stay_scalars(self) -> None:
        model, arguments = network("weight_norm_whole")
        assert graphnorm.canonicalize(model.eval(), arguments, permute=True).permutation

    def test_exact_mode_refuses(self) -> None:
        with pytest.raises(graphnorm.InputError, match="permute=True changes the order of sums"):
            graphnorm.canonicalize(nn.Linear(2, 2), torch.ones(1, 2), permute=True, mode="exact")

    def test_order_of_equal_channels_is_kept(self) -> None:
        model, arguments = network("mlp")
        traced = open_model(model.eval(), arguments).network
        flat = {name: np.ones(array.shape) for name, array in traced.weights.items()}
        assert canonical_order(symmetry(traced), flat) == {}


def onnx_network(equation_or_scales: Any, **weights: Any) -> ir.Graph:
    """``bi,i->bi`` and the like between two matrices, or a Resize."""
    held = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()]
    if isinstance(equation_or_scales, str):
        shape, out = [2, 4], [2, 3]
        names = [name for name in weights if name not in {"first", "last"}]
        nodes = [
            oh.make_node("MatMul", ["x", "first"], ["h"]),
            oh.make_node("Einsum", ["h", *names], ["k"], equation=equation_or_scales),
            oh.make_node("MatMul", ["k", "last"], ["y"]),
        ]
    else:
        shape, out = [1, 2, 4, 4], [1, 2, *(int(4 * n) for n in equation_or_scales[2:])]
        held.append(numpy_helper.from_array(np.array(equation_or_scales, dtype=np.float32), "scales"))
        nodes = [oh.make_node("Resize", ["x", "", "scales"], ["y"])]
    values = [oh.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", out))]
    graph = oh.make_graph(nodes, "g", values[:1], values[1:], held)
    return open_model(oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18)], ir_version=8)).network


def test_scales_of_a_resize_keep_their_order() -> None:
    network = onnx_network([1, 1, 2, 1.5])
    assert "scales" in network.weights
    assert not symmetry(network).sizes
    assert attempt(onnx_network([1, 1, 1.5, 2]), network).proof is None


def test_broadcast_letters_of_an_einsum_are_frozen() -> None:
    """Along a broadcast axis of size 1, one order does not lead to the next operand."""
    draw = np.random.default_rng(0).standard_normal
    matrices = {"first": draw((4, 5)), "last": draw((5, 3))}
    assert list(symmetry(onnx_network("bi,i->bi", **matrices, w=draw(5))).sizes.values()) == [5]
    assert not symmetry(onnx_network("bi,i->bi", **matrices, w=draw(1))).sizes
    assert not symmetry(onnx_network("bi,i,bi->bi", **matrices, w=draw(1), v=draw((2, 5)))).sizes
