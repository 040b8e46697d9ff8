"""Recurrent layers: hidden states that saturate are pinned, what feeds them may be rescaled."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.networks.common import Function, Network, linear, normal


def recurrent(layer: nn.Module, width: int = 3) -> nn.Module:
    """(batch, length, 2) -> ReLU features -> recurrent layer -> linear."""
    return Function(
        lambda s, x: s.c(s.rnn(F.relu(s.a(x)))[0]), a=linear(2, 3), rnn=layer, c=linear(width, 1)
    ).eval()


def cell_loop(s: Any, x: Tensor) -> Tensor:
    """A ReLU recurrence written out over three steps."""
    state = torch.zeros(x.shape[0], 3, dtype=x.dtype)
    for step in range(3):
        state = F.relu(s.w(x[:, step]) + s.u(state))
    return s.c(state)


def gru_cell_loop(s: Any, x: Tensor) -> Tensor:
    state = torch.zeros(x.shape[0], 2, dtype=x.dtype)
    for step in range(2):
        state = s.cell(F.relu(s.a(x[:, step])), state)
    return s.c(state)


SERIES = normal(2, 3, 2)

NETWORKS: dict[str, Network] = {
    "rnn_tanh": (lambda: recurrent(nn.RNN(3, 3, batch_first=True)), SERIES),
    "rnn_relu": (lambda: recurrent(nn.RNN(3, 3, nonlinearity="relu", batch_first=True)), SERIES),
    "rnn_relu_deep": (
        lambda: recurrent(nn.RNN(3, 2, 2, nonlinearity="relu", batch_first=True), 2),
        SERIES,
    ),
    "lstm": (lambda: recurrent(nn.LSTM(3, 2, batch_first=True), 2), SERIES),
    "lstm_last_state": (
        lambda: Function(
            lambda s, x: s.c(s.rnn(F.relu(s.a(x)))[1][0][0]),
            a=linear(2, 3), rnn=nn.LSTM(3, 2, batch_first=True), c=linear(2, 1),
        ).eval(),
        SERIES,
    ),
    "lstm_cell_state": (  # the cell isn't bounded, but tanh sees it
        lambda: Function(
            lambda s, x: s.c(s.rnn(F.relu(s.a(x)))[1][1][0]),
            a=linear(2, 3), rnn=nn.LSTM(3, 2, batch_first=True), c=linear(2, 1),
        ).eval(),
        SERIES,
    ),
    "lstm_deep": (lambda: recurrent(nn.LSTM(3, 2, 2, batch_first=True), 2), SERIES),
    "lstm_bidirectional": (
        lambda: recurrent(nn.LSTM(3, 1, batch_first=True, bidirectional=True), 2),
        SERIES,
    ),
    "lstm_projected": (lambda: recurrent(nn.LSTM(3, 3, proj_size=2, batch_first=True), 2), SERIES),
    "gru": (lambda: recurrent(nn.GRU(3, 2, batch_first=True), 2), SERIES),
    "gru_bidirectional": (
        lambda: recurrent(nn.GRU(3, 1, batch_first=True, bidirectional=True), 2),
        SERIES,
    ),
    "relu_recurrence": (
        lambda: Function(cell_loop, w=linear(2, 3), u=linear(3, 3), c=linear(3, 1)),
        SERIES,
    ),
    "gru_cell": (
        lambda: Function(gru_cell_loop, a=linear(2, 2), cell=nn.GRUCell(2, 2), c=linear(2, 1)),
        SERIES,
    ),
}  # fmt: skip
