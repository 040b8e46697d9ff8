"""Tiny networks, one or more for each family of rules, with the inputs that they take."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Inputs = Callable[[torch.Generator], tuple[Tensor, ...]]
Network = tuple[Callable[[], nn.Module], Inputs]


def normal(*shape: int, size: float = 1.0) -> Inputs:
    return lambda generator: (size * torch.randn(*shape, generator=generator, dtype=torch.float64),)


class Residual(nn.Module):
    def __init__(self, project: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 1)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 3, 3, padding=1)
        self.skip = nn.Conv2d(3, 3, 1) if project else nn.Identity()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.second(F.relu(self.first(x))) + self.skip(x))
        return self.head(x.mean((2, 3)))


class ZeroPadShortcut(nn.Module):
    """ResNet type A: subsample and pad the channels with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        return self.head(F.relu(self.conv(x) + short).mean((2, 3)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.norm = nn.BatchNorm2d(4, eps=0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = torch.cat([x, F.relu(self.b(x))], 1)
        return self.c(F.relu(self.norm(x)))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 1)
        self.down, self.up = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.b(x * gate)


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2)
        self.depth, self.c = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.relu(self.a(x))))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        left, right = self.depth(x).chunk(2, 1)
        return self.c(torch.maximum(left, right))


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


class Gated(nn.Module):
    """SwiGLU (pinned gate) or ReGLU (both branches free)."""

    def __init__(self, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.gate, self.up, self.down = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.relu(self.gate(x)) if self.relu else F.silu(self.gate(x))
        return self.down(gate * self.up(x))


class Tied(nn.Module):
    """One matrix used twice: both of its uses must agree."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.shared, self.b = nn.Linear(3, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.shared(F.relu(self.shared(F.relu(self.a(x)))))))


class Embedding(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.hidden = nn.Linear(3, 3)
        self.head = nn.Linear(3, 5, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(F.relu(self.embed(x)))))


class LowRank(nn.Module):
    """W + B A."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)
        self.left, self.right = nn.Parameter(torch.randn(2, 2)), nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(self.a(x)), self.b.weight + self.left @ self.right, self.b.bias)


class Scalar(nn.Module):
    """ReZero: one learned number on a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.c(x + self.alpha * F.relu(self.b(x)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.mid = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        x = F.relu(self.up(F.relu(self.mid(F.max_pool2d(skip, 2)))))
        return self.out(torch.cat([x, skip], 1))


class SquaredRelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)).square())


class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.gamma = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.c(F.relu(x + self.gamma * self.b(F.gelu(x))))


def _batch_norm(affine: bool = True) -> nn.Module:
    norm = nn.BatchNorm2d(3, eps=0.5, affine=affine)
    return nn.Sequential(nn.Conv2d(2, 3, 1), norm, nn.ReLU(), nn.Conv2d(3, 2, 1)).eval()


def _train_batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(3, eps=0.5)
    norm.num_batches_tracked = None  # a counter that functional transforms refuse to update
    return nn.Sequential(nn.Conv2d(2, 3, 1), norm, nn.ReLU(), nn.Conv2d(3, 2, 1)).train()


def _upsampler() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.LeakyReLU(), nn.PixelShuffle(2), nn.Conv2d(1, 2, 1), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(2, 1, 1),
    )  # fmt: skip


_IMAGE = normal(2, 2, 4, 4)

NETWORKS: dict[str, Network] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
        normal(3, 3),
    ),
    "mlp_flatten": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 2, 3), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(2, 3)
        ),
        normal(3, 2, 4, 4),
    ),
    "residual_identity": (lambda: Residual(False), _IMAGE),
    "residual_projection": (lambda: Residual(True), _IMAGE),
    "zero_pad_shortcut": (ZeroPadShortcut, _IMAGE),
    "densenet": (lambda: Dense().eval(), _IMAGE),
    "squeeze_excite": (SqueezeExcite, _IMAGE),
    "shuffle": (Shuffle, _IMAGE),
    "grouped": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 1)
        ),
        _IMAGE,
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 1), nn.ReLU(), nn.ConvTranspose2d(3, 2, 2), nn.ReLU(), nn.Conv2d(2, 1, 1)
        ),
        _IMAGE,
    ),
    "transposed_grouped": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 6, 2, groups=2),
            nn.ReLU(),
            nn.Conv2d(6, 1, 1),
        ),
        _IMAGE,
    ),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(3, 1, 1)),
        normal(2, 2, 6),
    ),
    "attention_sdpa": (lambda: Attention(fused=False, kernel=True), normal(2, 3, 4)),
    "attention_matmul": (lambda: Attention(fused=False, kernel=False), normal(2, 3, 4)),
    "attention_fused": (lambda: Attention(fused=True, kernel=False), normal(2, 3, 4)),
    "transformer": (Transformer, normal(2, 1, 4, 4)),
    "batch_norm_eval": (_batch_norm, _IMAGE),
    "batch_norm_plain": (lambda: _batch_norm(False), _IMAGE),
    "batch_norm_train": (_train_batch_norm, _IMAGE),
    "group_norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.GroupNorm(2, 4, eps=0.5), nn.ReLU(), nn.Conv2d(4, 2, 1)),
        _IMAGE,
    ),
    "swiglu": (lambda: Gated(relu=False), normal(4, 3)),
    "reglu": (lambda: Gated(relu=True), normal(4, 3)),
    "shared_matrix": (Tied, normal(4, 3)),
    "embedding": (lambda: Embedding(tied=False), lambda g: (torch.randint(0, 5, (2, 4), generator=g),)),
    "embedding_tied": (lambda: Embedding(tied=True), lambda g: (torch.randint(0, 5, (2, 4), generator=g),)),
    "low_rank": (LowRank, normal(4, 3)),
    "rezero": (Scalar, normal(4, 3)),
    "unet": (UNet, normal(2, 1, 4, 4)),
    "squared_relu": (SquaredRelu, normal(4, 3)),
    "layer_scale": (LayerScale, normal(4, 3)),
    "prelu": (lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.PReLU(3), nn.Conv2d(3, 1, 1)), _IMAGE),
    "relu6": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 1), nn.ReLU6(), nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1)
        ),
        normal(2, 2, 4, 4, size=6.0),
    ),
    "upsampler": (_upsampler, normal(2, 1, 3, 3)),
}
