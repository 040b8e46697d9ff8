"""Functions that move, join and select entries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.torch_functions import Functions

ORDER = torch.tensor([2, 0])
COUNTS = torch.tensor([1, 0, 2])
PLACES = torch.tensor([[[0, 2, 1, 0]], [[1, 1, 2, 0]]])
MASK = torch.tensor([[True, False, True], [False, False, True]])


def _overwritten(x: Tensor) -> Tensor:
    y = x.clone()
    y[0, 1:] = 2 * y[1, 1:]
    y[:, 0, ::2] = 1.5
    return y


def _filled(x: Tensor) -> Tensor:
    y = x.clone()
    y[x > 0.5] = -1.0
    y[MASK] = 3.0
    return y


def _put_in_the_middle(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, ORDER, ORDER] = x[:, 0, :2]
    return y


def _put_apart(x: Tensor) -> Tensor:
    y = x.clone()
    y[ORDER % 2, :, ORDER] = x[:, :, 1] * 2
    return y


SHAPE: Functions = {
    "view": lambda x: x.reshape(2, -1),
    "flatten": lambda x: (
        x.flatten(1),
        x.ravel(),
        x.unflatten(2, (2, 2)),  # type: ignore[no-untyped-call]
        x.view_as(x),
        torch.atleast_3d(x[0]),  # type: ignore[no-untyped-call]
    ),
    "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: (
        x.transpose(1, -1),
        x.swapaxes(0, 1),
        x.movedim(0, -1),
        torch.moveaxis(x, (0, 1), (1, 0)),
    ),
    "t": lambda x: (x[0].t(), x[0].T, x.mT, torch.adjoint(x)),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "squeeze_all": lambda x: x[:, :1].squeeze(),
    "expand": lambda x: x.unsqueeze(1).expand(-1, 5, -1, -1),
    "expand_as": lambda x: x[:, :1].expand_as(x) + x,
    "broadcast": lambda x: (torch.broadcast_to(x[0], (3, 3, 4)), torch.broadcast_tensors(x, x[0])),  # type: ignore[no-untyped-call]
    "sum_to_size": lambda x: x.sum_to_size(1, 3, 4),
    "repeat": lambda x: x.repeat(2, 1, 1, 3),
    "tile": lambda x: x.tile(2),
    "cat": lambda x: (torch.cat([x, x], -1), torch.cat([x, x.new_zeros(0)], 0)),
    "stack": lambda x: torch.stack([x, -x], 1),
    "stacks": lambda x: (
        torch.hstack([x, x]),
        torch.vstack([x, x]),
        torch.dstack([x, x]),
        torch.column_stack([x, x]),
    ),
    "stack_types": lambda x: torch.stack([x, x.long()], -1),
    "block_diag": lambda x: torch.block_diag(x[0], x[1]),  # type: ignore[no-untyped-call]
    "cartesian": lambda x: torch.cartesian_prod(x[0, 0], x[0, 1]),
    "split": lambda x: torch.split_with_sizes(x, [1, 2], 1)[1],
    "chunk": lambda x: (
        x.chunk(2, -1),
        x.tensor_split(2, 2),
        torch.hsplit(x, 3)[1],
        torch.hsplit(x[0, 0], 2),
        torch.dsplit(x, 2),
    ),
    "unbind": lambda x: x.unbind(1)[2] - x.unbind(1)[0],
    "flip": lambda x: (x.flip(1, 2), x.fliplr(), x.flipud(), x.rot90()),
    "roll": lambda x: (x.roll((1, -2), (1, 2)), x.roll(3)),
    "tril": lambda x: (x.tril(), x.triu(1)),
    "unfold": lambda x: x.unfold(2, 2, 1),
    "meshgrid": lambda x: torch.meshgrid(x[0, 0], x[1, 0, :2], indexing="ij"),
    "meshgrid_xy": lambda x: torch.meshgrid(x[0, 0], x[1, 0, :2], indexing="xy"),
    "repeat_interleave": lambda x: (x.repeat_interleave(2, 1), x.repeat_interleave(2)),
    "repeat_counts": lambda x: x.repeat_interleave(COUNTS, 1, output_size=3),
    "type_as": lambda x: x.type_as(x),
    "diagonal": lambda x: (
        x.diagonal(0, 1, 2),
        x.diagonal(1, 2, 0),
        x.diagonal(-1, 1, 2),
        x[0].diag(),
        x[0].trace(),
    ),
    "diag_embed": lambda x: (x.diag_embed(), x.diag_embed(1, 0, 2), x.diag_embed(-2), x[0, 0].diag(1)),
    "as_strided": lambda x: x.as_strided((2, 5, 2), (12, 1, 3), 1),
    "pad": lambda x: (
        F.pad(x, (1, 2), value=0.5),
        F.pad(x, (1, 2), "reflect"),
        F.pad(x, (2, 1), "replicate"),
    ),
    "pixels": lambda x: F.pixel_unshuffle(x[:, None, :2], 2),
}

INDEX: Functions = {
    "select": lambda x: x[:, -1],
    "slice": lambda x: (x[..., 1:-1], x[..., ::2], x[1:1], x[:, 5:]),
    "narrow": lambda x: (x.narrow(1, 1, 2), x.narrow(1, -1, 1)),
    "index_select": lambda x: x.index_select(1, ORDER),
    "index_select_scalar": lambda x: x.index_select(1, torch.tensor(2)),
    "gather_one": lambda x: x[:, torch.tensor([[0, 2]])],
    "index_two": lambda x: x[torch.tensor([1]), torch.tensor([2])],
    "index_adjacent": lambda x: x[:, torch.tensor([[0], [2]]), torch.tensor([1, -1, 0])],
    "index_apart": lambda x: x[torch.tensor([1, 0]), :, torch.tensor([2, -1])],
    "index_data": lambda x: x[torch.arange(2), x.argmax(1)[:, 0]],
    "index_data_apart": lambda x: x[x[:, 0, 0].argsort(), :, x[0, 0].argsort()[:2]],
    "index_mask": lambda x: (x[MASK], x[x > 0], x[:, torch.tensor([True, False, True])]),
    "masked_select": lambda x: x.masked_select(x[0] > 0),
    "take": lambda x: (x.take(torch.tensor([[3, 7]])), torch.take_along_dim(x, x.argsort(1), 1)),
    "gather": lambda x: x.gather(1, torch.zeros(2, 1, 4, dtype=torch.long)),
    "gather_data": lambda x: x.gather(1, x.argsort(1)),
    "gather_scalar": lambda x: (x[0, 0, 0].gather(0, torch.tensor(0)), x[0, 0].gather(0, torch.tensor(2))),
    "nonzero": lambda x: x.relu().nonzero(),
    "one_hot": lambda x: F.one_hot(x.argmax(1), 4),
    "diff": lambda x: (x.diff(), x.diff(dim=1, n=2), (x > 0).diff(), x.diff(prepend=x, append=x[..., :1])),
    "trapezoid": lambda x: torch.trapezoid(x, dx=0.5),
    "searchsorted": lambda x: torch.searchsorted(x[0].sort(-1).values, x[1], right=True),
    "bucketize": lambda x: (
        torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])),
        torch.bucketize(x, x[0, 0].sort()[0]),
    ),
}

SCATTER: Functions = {
    "scatter": lambda x: x.scatter(1, PLACES, 5.0),
    "scatter_source": lambda x: x.scatter(1, PLACES, x * 2),
    "scatter_add": lambda x: (x.scatter_add(1, PLACES, x), x.scatter_add(1, x.argsort(1), x)),
    "scatter_reduce": lambda x: tuple(
        x.scatter_reduce(1, PLACES.expand(2, 3, 4), x * 2, how, include_self=self)
        for how in ("sum", "prod", "mean", "amax", "amin")
        for self in (True, False)
    ),
    "scatter_with": lambda x: (
        x.scatter(1, PLACES, x, reduce="multiply"),
        x.scatter(1, PLACES, 2.0, reduce="add"),
    ),
    "index_add": lambda x: (
        x.index_add(1, ORDER, x[:, :2], alpha=3),
        x[0, 0, 0].index_add(0, ORDER[1:], x[1, 0, 0]),
    ),
    "index_copy": lambda x: (x.index_copy(1, ORDER, x[:, 1:] * 3), x.index_fill(2, ORDER, 4.0)),
    "index_fill": lambda x: x.index_fill(1, ORDER, x.amax()),
    "index_reduce": lambda x: x.index_reduce(1, ORDER, x[:, :2], "amax", include_self=False),
    "put": lambda x: (x.put(ORDER, x[0, 0, :2]), x.put(ORDER, x[0, 0, :2], accumulate=True)),
    "slice_scatter": lambda x: (
        torch.slice_scatter(x, x[:, :1] * 2, 1, 1, 2),
        torch.slice_scatter(x, x * 2, 1),
    ),
    "slice_scatter_step": lambda x: torch.slice_scatter(x, x[:, :2] * 2, 1, 0, 3, 2),
    "slice_scatter_none": lambda x: torch.slice_scatter(x, x[:, :0], 1, 2, 2),
    "select_scatter": lambda x: torch.select_scatter(x, x[:, 0] * 2, 1, 2),
    "diagonal_scatter": lambda x: x.diagonal_scatter(torch.ones(2, 3), 1, 1, 2) + x,
    "fill_diagonal": lambda x: x[0].clone().fill_diagonal_(7.0),
    "index_put": lambda x: x.index_put((ORDER % 2, ORDER), x[0, :2]),
    "index_put_add": lambda x: x.index_put((ORDER % 2,), x * 2, accumulate=True),
    "index_put_middle": _put_in_the_middle,
    "index_put_apart": _put_apart,
    "index_put_data": lambda x: x.index_put((x[:, 0, 0].argsort(), x[:, 0, 0].argsort()), x[0, :2]),
    "index_put_mask": lambda x: x.index_put((MASK,), x[0]),
    "index_put_known_masks": lambda x: (
        x.index_put((MASK, torch.tensor(1)), x[0, 0, :1]),
        torch.ops.aten.index_put(x[:, :, 0], [None, torch.tensor([True, False, True])], x[0, :2, :2]),
        x.index_put((torch.zeros(2, 3, dtype=torch.bool),), x[0, 0], accumulate=True),
        x.index_put((MASK,), torch.ones(3, 4) * x[0, 0], accumulate=True),
    ),
    "index_put_mask_add": lambda x: x.index_put((x > 0,), torch.tensor(2.0), accumulate=True),
    "masked_scatter": lambda x: x.masked_scatter(x > 0, x.flip(0)),
    "masked_scatter_rows": lambda x: x.masked_scatter(
        (x.sum(-1, keepdim=True) > 0).expand_as(x), x.flip(0) * 2
    ),
    "overwritten": _overwritten,
    "filled": _filled,
}

PRODUCTS: Functions = {
    "einsum": lambda x: torch.einsum("b i j, k i j -> bk", x, x),
    "einsum_dots": lambda x: (torch.einsum("...ij,...kj->...ik", x, x), torch.einsum("bij,bkj", x, x)),
    "einsum_broadcast": lambda x: torch.einsum("...ij,...kj->...ik", x, x[:1]),
    "einsum_one": lambda x: (torch.einsum("bij->ji", x), torch.einsum("ii->i", x[0, :, :3])),
    "einsum_three": lambda x: torch.einsum("bij,bkj,bkl->bil", x, x, x),
    "einsum_lists": lambda x: torch.einsum(x, [0, 1, 2], x, [0, 3, 2], [0, 1, 3]),
    "matmul": lambda x: (x @ x.mT, x[0] @ x[0, 0], x[0, 0] @ x[0].T, x[0, 0] @ x[1, 0], torch.bmm(x, x.mT)),
    "linear_vector": lambda x: F.linear(x[0, 0], x[0], x[0, :, 0]),
    "inner": lambda x: (torch.inner(x, x), torch.inner(x[0, 0], x[0, 0]), torch.inner(x[0, 0], x)),
    "tensordot": lambda x: torch.tensordot(x, x, ([0, 2], [0, 2])),
    "kron": lambda x: torch.kron(x[0], x[1]),
    "vdot": lambda x: (
        torch.vdot(x[0, 0], x[1, 0]),
        torch.linalg.vecdot(x, x),
        torch.linalg.multi_dot([x[0], x[1].T, x[0]]),
    ),
    "cross": lambda x: torch.linalg.cross(x[..., :3], x[..., 1:]),
    "baddbmm": lambda x: torch.baddbmm(x @ x.mT, x, x.mT, beta=0.5, alpha=2),
    "addbmm": lambda x: torch.addbmm(x[0, :, :3], x, x.mT, beta=0.5, alpha=2),
    "addmm": lambda x: torch.addmm(x[0, 0], x[0], x[0].T @ x[1]),
    "addmv": lambda x: torch.addmv(x[0, :, 0], x[0], x[0, 0]),
    "bilinear": lambda x: F.bilinear(x, x.flip(0), x.new_ones(2, 4, 4) * x[0, 0], x.new_ones(2)),
    "matrix_power": lambda x: torch.linalg.matrix_power(x[0, :, :3], 3),
    "cdist": lambda x: (torch.cdist(x, x + 1), torch.cdist(x, x + 1, p=1), torch.cdist(x, x + 1, p=3)),
    "pdist": lambda x: F.pdist(x[0]),
    "distances": lambda x: (
        F.pairwise_distance(x, x * 2),
        F.cosine_similarity(x, x * x),
        torch.dist(x, x * 2),
    ),
}
