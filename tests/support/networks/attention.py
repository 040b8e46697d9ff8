"""Attention: fused and separate projections, grouped queries, rotary embedding, masks, positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.networks.common import SEQUENCE, Function, Network, linear, normal, parameter


class Attention(nn.Module):
    def __init__(self, fused: bool, kernel: bool, residual: bool = False) -> None:
        super().__init__()
        self.kernel, self.residual = kernel, residual
        self.norm = nn.LayerNorm(4, eps=0.5)
        self.qkv = nn.Linear(4, 12) if fused else nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.out = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        parts = self.qkv(y).chunk(3, -1) if isinstance(self.qkv, nn.Linear) else [f(y) for f in self.qkv]
        q, k, v = (p.unflatten(-1, (2, 2)).transpose(1, 2) for p in parts)
        if self.kernel:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-1, -2) * 0.7, -1) @ v
        y = self.out(y.transpose(1, 2).flatten(2))
        return x + y if self.residual else y


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 4, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.position = nn.Parameter(torch.randn(1, 5, 4))
        self.attention = Attention(fused=True, kernel=True, residual=True)
        self.norm, self.up, self.down = nn.LayerNorm(4, eps=0.5), nn.Linear(4, 3), nn.Linear(3, 4)
        self.final, self.head = nn.LayerNorm(4, eps=0.5), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        x = self.attention(x)
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.head(self.final(x)[:, 0])


Heads = tuple[Tensor, Tensor, Tensor]


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """(batch, heads, length, depth) -> (batch, length, heads * depth), written with matrix products."""
    return (torch.softmax(q @ k.transpose(-1, -2) + bias, -1) @ v).transpose(1, 2).flatten(2)


def fused(split: Callable[[Tensor], Heads]) -> nn.Module:
    """One projection for q, k and v, laid out as `split` reads it."""
    return Function(
        lambda s, x: s.out(attend(*split(s.qkv(x)))), qkv=linear(4, 12, bias=False), out=linear(4, 2)
    )


def by_view_and_unbind(y: Tensor) -> Heads:
    q, k, v = y.view(2, 3, 3, 2, 2).unbind(2)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def by_split(y: Tensor) -> Heads:
    q, k, v = (part.view(2, 3, 2, 2).transpose(1, 2) for part in torch.split(y, [4, 4, 4], -1))
    return q, k, v


def by_permute(y: Tensor) -> Heads:
    q, k, v = y.view(2, 3, 3, 2, 2).permute(2, 0, 3, 1, 4)
    return q, k, v


def by_head(y: Tensor) -> Heads:
    """q, k and v lie next to each other within each head."""
    q, k, v = y.view(2, 3, 2, 6).transpose(1, 2).chunk(3, -1)
    return q, k, v


def heads(y: Tensor, count: int = 2) -> Tensor:
    return torch.unflatten(y, -1, (count, 2)).transpose(1, 2)


def separate(attend_: Callable[..., Tensor], key_heads: int = 2, **parts: object) -> nn.Module:
    """Projections of their own for q, k and v; `attend_` also sees the module."""
    return Function(
        lambda s, x: s.out(attend_(s, heads(s.q(x)), heads(s.k(x), key_heads), heads(s.v(x), key_heads))),
        q=linear(4, 4), k=linear(4, 2 * key_heads), v=linear(4, 2 * key_heads), out=linear(4, 2), **parts,
    )  # fmt: skip


def grouped_by_expand(_: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q, k.expand(-1, 2, -1, -1), v.expand(-1, 2, -1, -1))


def grouped_by_repeat(_: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))


def rotate(y: Tensor) -> Tensor:
    """Rotary embedding: halves turned by an angle per position."""
    angle = torch.arange(y.shape[-2], dtype=y.dtype).unsqueeze(-1) * 0.7
    turned = torch.cat([-y[..., 1:], y[..., :1]], -1)
    return y * angle.cos() + turned * angle.sin()


def rotary(_: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(rotate(q), rotate(k), v)


def causal(_: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


def masked_fill(_: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    hidden = torch.ones(3, 3, dtype=torch.bool).triu(1)
    scores = (q @ k.transpose(-1, -2)).masked_fill(hidden, float("-inf"))
    return (torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(2)


NETWORKS: dict[str, Network] = {
    "attention_sdpa": (lambda: Attention(fused=False, kernel=True), SEQUENCE),
    "attention_matmul": (lambda: Attention(fused=False, kernel=False), SEQUENCE),
    "attention_fused": (lambda: Attention(fused=True, kernel=False), SEQUENCE),
    "transformer": (Transformer, normal(2, 1, 4, 4)),
    "qkv_view_unbind": (lambda: fused(by_view_and_unbind), SEQUENCE),
    "qkv_split": (lambda: fused(by_split), SEQUENCE),
    "qkv_permute": (lambda: fused(by_permute), SEQUENCE),
    "qkv_by_head": (lambda: fused(by_head), SEQUENCE),
    "grouped_query_expand": (lambda: separate(grouped_by_expand, 1), SEQUENCE),
    "grouped_query_repeat": (lambda: separate(grouped_by_repeat, 1), SEQUENCE),
    "rotary": (lambda: separate(rotary), SEQUENCE),
    "qk_norm": (
        lambda: separate(
            lambda s, q, k, v: attend(s.nq(q), s.nk(k), v),
            nq=nn.RMSNorm(2, eps=0.5), nk=nn.RMSNorm(2, eps=0.5),
        ),
        SEQUENCE,
    ),
    "attention_causal": (lambda: separate(causal), SEQUENCE),
    "attention_masked_fill": (lambda: separate(masked_fill), SEQUENCE),
    "attention_position_bias": (
        lambda: separate(lambda s, q, k, v: attend(q, k, v, s.table), table=parameter(2, 3, 3)),
        SEQUENCE,
    ),
    "attention_relative_table": (
        lambda: separate(
            lambda s, q, k, v: attend(
                q, k, v, s.table[torch.arange(3)[:, None] - torch.arange(3) + 2].permute(2, 0, 1)
            ),
            table=parameter(5, 2),
        ),
        SEQUENCE,
    ),
    "attention_linear": (  # no softmax: q and k may scale by one number per head
        lambda: separate(lambda s, q, k, v: (F.relu(q) @ (F.relu(k).mT @ v)).transpose(1, 2).flatten(2)),
        SEQUENCE,
    ),
    "attention_einsum": (
        lambda: separate(
            lambda s, q, k, v: torch.einsum(
                "bhnm,bhmd->bnhd", torch.softmax(torch.einsum("bhnd,bhmd->bhnm", q, k), -1), v
            ).flatten(2)
        ),
        SEQUENCE,
    ),
    "class_token": (
        lambda: Function(
            lambda s, x: s.out(
                F.relu(torch.cat([s.token.expand(x.shape[0], -1, -1), s.embed(x)], 1)).sum(1)
            ),
            embed=linear(4, 3), token=parameter(1, 1, 3), out=linear(3, 2),
        ),
        SEQUENCE,
    ),
    "multihead_attention": (
        lambda: Function(
            lambda s, x: s.out(s.attention(s.norm(x), s.norm(x), s.norm(x), need_weights=False)[0]),
            norm=nn.LayerNorm(4, eps=0.5), attention=nn.MultiheadAttention(4, 2, batch_first=True),
            out=linear(4, 2),
        ).eval(),
        SEQUENCE,
    ),
    "multihead_attention_to_zeros": (  # a key and a value of zeros: free to take any scale
        lambda: Function(
            lambda s, x: s.out(s.attention(x, x, x, need_weights=False)[0]),
            attention=nn.MultiheadAttention(4, 2, batch_first=True, add_zero_attn=True), out=linear(4, 2),
        ),
        SEQUENCE,
    ),
    "encoder_layer_relu": (lambda: encoder_layer("relu"), SEQUENCE),
    "encoder_layer_gelu": (lambda: encoder_layer("gelu"), SEQUENCE),
}  # fmt: skip


def encoder_layer(activation: str) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        4, 2, 3, dropout=0.0, activation=activation, layer_norm_eps=0.5, batch_first=True
    )
    return nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 2)).eval()
