"""float64 stand-ins for kernels without it, against the kernels themselves in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import graphnorm
from graphnorm.verification.torch.double_kernels import DoubleKernels, grouped_mm

ENDS = torch.tensor([8, 8, 24, 32], dtype=torch.int32)
SHAPES = {
    "rows": ((32, 16), (4, 16, 8), ENDS),
    "columns": ((4, 8, 16), (16, 32), ENDS),
    "inner": ((8, 32), (32, 16), ENDS),
    "batched": ((4, 8, 16), (4, 16, 8), None),
}


@pytest.mark.parametrize("name", SHAPES)
def test_grouped_mm_is_the_kernel(name: str) -> None:
    left, right, ends = SHAPES[name]
    torch.manual_seed(0)
    a, b = torch.randn(left), torch.randn(right)
    kernel = torch.ops.aten._grouped_mm(a, b, ends)
    with pytest.raises(RuntimeError):
        torch.ops.aten._grouped_mm(a.double(), b.double(), ends)  # else this module has had its day
    with DoubleKernels():  # type: ignore[no-untyped-call]
        ours = torch.ops.aten._grouped_mm(a.double(), b.double(), ends)
    assert ours.dtype == torch.float64
    assert torch.allclose(ours.float(), kernel, rtol=1e-5, atol=1e-5)
    assert torch.equal(ours, grouped_mm(a.double(), b.double(), ends))


class Experts(nn.Module):
    """Two products with the experts' kernels, tokens sorted by expert."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(16, 4, bias=False)
        self.up = nn.Parameter(torch.randn(4, 16, 8))
        self.down = nn.Parameter(torch.randn(4, 8, 16))

    def forward(self, x: Tensor) -> Tensor:
        expert = self.router(x).argmax(-1)
        order = expert.argsort(stable=True)
        ends = F.one_hot(expert, 4).sum(0).cumsum(0).to(torch.int32)
        h = torch.relu(F.grouped_mm(x[order], self.up, offs=ends))
        y = F.grouped_mm(h, self.down, offs=ends)
        return torch.zeros_like(y).index_copy(0, order, y)


def test_canonicalize_measures_experts_against_float64() -> None:
    torch.manual_seed(0)
    model = Experts().eval().bfloat16()  # the only type that torch exports this product in
    result = graphnorm.canonicalize(model, (torch.randn(32, 16).bfloat16(),))
    assert result.report.dimension > 0
    measured = result.report.verification.measurement
    assert measured is not None
    assert result.report.verification.verdict == "proved"
    assert 0 < measured.rmse_ratio < 3
