"""Modules, with the inputs to run them on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.torch_functions import Fn, image, rand, seq, x23, x234


def _used(norm: nn.BatchNorm2d) -> nn.Module:
    """A layer whose statistics are no longer those of its start."""
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2)
    return norm.eval()


LSTM_CELL = nn.LSTMCell(3, 4)
SELF_ATTENTION = nn.MultiheadAttention(8, 2, batch_first=True)

MODULES: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "linear": (nn.Linear(3, 5), (x23,)),
    "linear_no_bias": (nn.Linear(4, 5, bias=False), (x234,)),
    "conv1d": (nn.Conv1d(3, 4, 3, padding=1), (x234,)),
    "conv2d": (nn.Conv2d(4, 6, 3, 2, 1, 1, 2), (image,)),
    "conv_same": (nn.Conv2d(4, 4, (2, 4), padding="same", dilation=(1, 2)), (image,)),
    "conv_valid": (nn.Conv2d(4, 4, 3, padding="valid", bias=False), (image,)),
    "conv_unbatched": (nn.Conv2d(4, 4, 3), (image[0],)),
    "conv3d": (nn.Conv3d(4, 2, 2), (rand(1, 4, 3, 3, 3),)),
    "conv_transpose": (nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, groups=2), (image,)),
    "prelu": (nn.PReLU(4, 0.1), (image,)),
    "prelu_one": (nn.PReLU(), (image,)),
    "prelu_flat": (nn.PReLU(3), (x23,)),
    "bn": (_used(nn.BatchNorm2d(4)), (image,)),
    "bn_train": (nn.BatchNorm1d(3), (x23,)),
    "gn": (nn.GroupNorm(2, 4), (image,)),
    "in": (nn.InstanceNorm2d(4, affine=True), (image,)),
    "ln": (nn.LayerNorm(5), (seq,)),
    "rms": (nn.RMSNorm(5, eps=1e-3), (seq,)),
    "in_eval": (nn.InstanceNorm2d(4, affine=True, track_running_stats=True).eval(), (image,)),
    "embedding": (nn.Embedding(7, 3), (torch.tensor([[1, 2], [6, 0]]),)),
    "weight_norm": (nn.utils.parametrizations.weight_norm(nn.Linear(3, 5)), (x23,)),
    "spectral_norm": (nn.utils.parametrizations.spectral_norm(nn.Linear(3, 5)).eval(), (x23,)),
    "bag_sum": (nn.EmbeddingBag(7, 3, mode="sum"), (torch.tensor([[1, 2], [6, 0]]),)),
    "bag_mean": (
        nn.EmbeddingBag(7, 3, padding_idx=2),
        (torch.tensor([1, 2, 2, 6, 0]), torch.tensor([0, 1, 1, 3])),
    ),
    "bag_max": (
        nn.EmbeddingBag(7, 3, mode="max"),
        (torch.tensor([1, 2, 2, 6, 0]), torch.tensor([0, 1, 1, 3])),
    ),
    "bag_last": (
        nn.EmbeddingBag(7, 3, mode="mean", include_last_offset=True),
        (torch.tensor([1, 2, 6, 0]), torch.tensor([0, 1, 4])),
    ),
    "bag_weighted": (
        Fn(lambda table, i, w: F.embedding_bag(i, table, mode="sum", per_sample_weights=w)),
        (rand(7, 3), torch.tensor([[1, 2], [6, 0]]), rand(2, 2)),
    ),
    "bilinear": (nn.Bilinear(3, 4, 5), (x23, rand(2, 4))),
    "lstm_cell": (Fn(lambda x, h, c: LSTM_CELL(x, (h, c))), (x23, rand(2, 4), rand(2, 4))),
    "gru_cell": (nn.GRUCell(3, 4), (x23, rand(2, 4))),
    "rnn_cell": (nn.RNNCell(3, 4, nonlinearity="relu"), (x23, rand(2, 4))),
    "mha": (nn.MultiheadAttention(8, 2), (rand(5, 2, 8), rand(4, 2, 8), rand(4, 2, 8))),
    "mha_masked": (
        Fn(lambda x, mask: SELF_ATTENTION(x, x, x, key_padding_mask=mask, average_attn_weights=False)),
        (rand(2, 5, 8), torch.tensor([[False] * 5, [False, True] + [False] * 3])),
    ),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), (rand(2, 5, 8),)),
    "sequential": (
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).eval(),
        (image,),
    ),
}
