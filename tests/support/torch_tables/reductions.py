"""Functions that reduce and order entries along axes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.support.torch_functions import Functions

REDUCE: Functions = {
    "mean": lambda x: x.mean((1, 2)),
    "mean_all": lambda x: (x.mean(), x.sum(), x.max(), x.min(), x.prod()),
    "sum": lambda x: (
        x.sum(1, keepdim=True),
        (x > 0).sum(1),
        x.nansum(1),
        x.sqrt().nansum(),
        x.sqrt().nanmean(),
    ),
    "amax": lambda x: (x.amax(-1), x.amin((0, 1)), x.aminmax(), x.aminmax(dim=1, keepdim=True)),
    "prod": lambda x: x.prod(1),
    "norm": lambda x: (x.norm(dim=1), x.norm(1, dim=(1, 2)), x.norm(), x.norm(3), x[0, 0, 0].norm()),
    "vector_norm": lambda x: tuple(
        torch.linalg.vector_norm(x, order, 1, True)
        for order in (float("inf"), -float("inf"), 0, 1, 2, 3, 0.5)
    ),
    "matrix_norm": lambda x: (torch.linalg.matrix_norm(x), torch.linalg.norm(x[0], 1), torch.linalg.norm(x)),
    "normalize": lambda x: (F.normalize(x), F.normalize(x, p=1, dim=2)),
    "renorm": lambda x: x.renorm(2, 0, 1.5),
    "logsumexp": lambda x: (x.logsumexp(1), x.logsumexp((0, 2), True)),
    "var": lambda x: (x.var(), x.var(1), x.var(unbiased=False), x.var((0, 2), correction=2, keepdim=True)),
    "std": lambda x: (x.std((1, 2), correction=0, keepdim=True), x.std()),
    "var_mean": lambda x: (
        torch.var_mean(x, 1),
        torch.std_mean(x, (0, 2), keepdim=True),
        torch.var_mean(x)[1],
    ),
}

ORDER: Functions = {
    "argmax": lambda x: (x.argmax(1), x.argmax(), x.argmin(2, True), x[0, 0, 0].argmax()),
    "max_dim": lambda x: (x.max(1), x.min(2, True), x.max(0).values, x.min(0).indices),
    "median": lambda x: (x.median(), x.median(1), x.median(2, True), x.median(0).values),
    "nanmedian": lambda x: (
        x.sqrt().nanmedian(),
        x.sqrt().nanmedian(2).values,
        x.nanmedian(1, True),
        (x / x[0] * 0 / 0).nanmedian(),
    ),
    "kthvalue": lambda x: (x.kthvalue(2, 1), x.kthvalue(3, 2, True)),
    "mode": lambda x: (x.round().mode(1), x.round().mode(2, True), x.round().mode(0).values),
    "topk": lambda x: (x.topk(2, 1), x.topk(2, largest=False), x.topk(1)[1]),
    "sort": lambda x: (x.sort(), x.sort(1, True), x.msort(), x.sort(stable=True, dim=0)),
    "without_axes": lambda x: (
        *x.sum().max(0),
        *x.sum().sort(),
        *x.sum().topk(1),
        *x.sum().kthvalue(1),
        *x.sum().mode(),
        *x.sum().median(0),
        *torch.aminmax(x.sum(), dim=0),
        x.sum().sum(0),
        x.sum().mean(-1),
    ),
    "argsort": lambda x: (x.argsort(), torch.argsort(x, dim=1, descending=True, stable=True)),
    "quantile": lambda x: (
        x.quantile(0.3, 1),
        x.quantile(torch.tensor([0.1, 0.5]), 2),
        x.nanquantile(0.5, 2),
    ),
    "cumsum": lambda x: (x.cumsum(1), x.cumprod(2), (x > 0).cumsum(1)),
    "cummax": lambda x: (x.cummax(1), x.cummin(2)),
    "running_scalars": lambda x: (x.sum().cummax(0), x.sum().cumsum(0)),
    "logcumsumexp": lambda x: x.logcumsumexp(1),
    "unique": lambda x: torch.unique(x.round(), return_inverse=True, return_counts=True),
    "unique_rows": lambda x: torch.unique(x.sign(), dim=2, return_inverse=True),
    "cumulative_trapezoid": lambda x: torch.cumulative_trapezoid(x, dim=1),
}
