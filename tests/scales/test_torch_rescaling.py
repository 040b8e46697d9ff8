"""What the analysis leaves free keeps every function that has a lowering: random rescalings around each."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves

import graphnorm
from graphnorm.rescaling.graph import RescalingGraph
from graphnorm.weights.coefficients import rescale
from tests.support.torch_functions import Functions, image, x234
from tests.support.torch_tables import elementwise, images, movement, reductions

TABLES = {
    name: (table, image if subject is images else x234)
    for subject in (elementwise, movement, reductions, images)
    for name, table in vars(subject).items()
    if name.isupper() and isinstance(table, dict)
}
FLOAT32 = {"cast", "casts", "bits", "quantile", "index_put_mask_add"}  # leave float64, or refuse it
SIZED_BY_DATA = {"index_mask", "masked_select", "nonzero", "unique", "unique_rows"}
ONE_SIZE = {  # index tensors that fit the example's batch only
    "diagonal_scatter", "index_put_add", "index_put_apart", "index_put_data", "index_put_known_masks",
    "index_put_mask", "filled",
}  # fmt: skip


class Around(nn.Module):
    """Every function between a gain and a bias per entry before it, and a gain after it."""

    def __init__(self, functions: Functions, x: Tensor, fixed_axes: int) -> None:
        super().__init__()
        self.functions = {name: function for name, function in functions.items() if name not in FLOAT32}
        shape = [1 if axis < fixed_axes else size for axis, size in enumerate(x.shape)]
        self.gains = nn.ParameterDict({f"_{name}": torch.randn(shape) for name in self.functions})
        self.biases = nn.ParameterDict({f"_{name}": torch.randn(shape) for name in self.functions})
        self.scales = nn.ParameterDict()
        for name, function in self.functions.items():
            for place, leaf in enumerate(tree_leaves(function(x))):
                small = leaf.numel() < 500 and not fixed_axes and name not in SIZED_BY_DATA
                if not leaf.is_floating_point():
                    continue
                self.scales[f"{name}_{place}"] = torch.randn(leaf.shape if small else ())

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        return {name: self.around(name, x) for name in self.functions}

    def around(self, name: str, x: Tensor) -> list[Tensor]:
        leaves = tree_leaves(self.functions[name](x * self.gains[f"_{name}"] + self.biases[f"_{name}"]))
        return [
            leaf * self.scales[f"{name}_{place}"] if leaf.is_floating_point() else leaf
            for place, leaf in enumerate(leaves)
        ]


def _rescaled(model: nn.Module, graph: RescalingGraph) -> nn.Module:
    z = 0.3 * np.random.default_rng(0).normal(size=graph.solution.count)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, array in rescale(graph, z).weights.items():
            other.get_parameter(name).copy_(torch.from_numpy(np.array(array)))
    return other


def _compare(model: nn.Module, other: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        before, after = model(x), other(x)
    for name, leaves in before.items():
        for one, two in zip(leaves, after[name], strict=True):
            np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", TABLES)
def test_functions_between_free_gains(name: str) -> None:
    functions, x = TABLES[name]
    torch.manual_seed(0)
    model = Around(functions, x.double(), 0).double()
    graph = graphnorm.trace(model, x.double())
    assert graph.dimension or name in ("IN_PLACE",)
    _compare(model, _rescaled(model, graph), x.double())


@pytest.mark.parametrize("name", ["SCATTER", "REDUCE"])
def test_batches_of_other_sizes(name: str) -> None:
    table, x = TABLES[name]
    functions = {name: function for name, function in table.items() if name not in ONE_SIZE}
    torch.manual_seed(0)
    model = Around(functions, x.double(), 1).double()
    sizes: Any = ({0: Dim("batch", min=2, max=9)},)
    program: ExportedProgram = torch.export.export(model, (x.double(),), dynamic_shapes=sizes, strict=False)
    graph = graphnorm.trace(program)
    assert graph.dimension
    other = _rescaled(model, graph)
    for batch in (2, 5):
        _compare(model, other, torch.randn(batch, *x.shape[1:]).double())


def test_a_rescaling_that_is_not_free_is_seen() -> None:
    model = Around({"relu": torch.relu}, x234.double(), 0).double()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.gains["_relu"].mul_(1.001)
    with pytest.raises(AssertionError, match="relu"):
        _compare(model, other, x234.double())
