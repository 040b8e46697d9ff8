"""RNN, GRU and LSTM of ONNX, and LSTM with projections, in both directions, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphnorm.ir import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"Tanh": np.tanh, "Relu": lambda x: np.maximum(x, 0.0)}


def _sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _rnn(w: Array, r: Array, b: Array, f: Callable[[Array], Array]) -> Callable[..., tuple[Array, ...]]:
    wb, rb = np.split(b, 2)

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        return (f(x @ w.T + wb + h @ r.T + rb),)

    return step


def _gru(w: Array, r: Array, b: Array, reset_after: bool) -> Callable[..., tuple[Array, ...]]:
    wz, wr, wh = np.split(w, 3)
    rz, rr, rh = np.split(r, 3)
    wbz, wbr, wbh, rbz, rbr, rbh = np.split(b, 6)

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        update = _sigmoid(x @ wz.T + wbz + h @ rz.T + rbz)
        reset = _sigmoid(x @ wr.T + wbr + h @ rr.T + rbr)
        hidden = reset * (h @ rh.T + rbh) if reset_after else (reset * h) @ rh.T + rbh
        return ((1.0 - update) * np.tanh(x @ wh.T + wbh + hidden) + update * h,)

    return step


def _lstm(w: Array, r: Array, b: Array, projection: Array | None) -> Callable[..., tuple[Array, ...]]:
    wb, rb = np.split(b, 2)

    def step(x: Array, h: Array, c: Array) -> tuple[Array, ...]:
        i, o, f, g = np.split(x @ w.T + wb + h @ r.T + rb, 4, axis=-1)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
        return h if projection is None else h @ projection.T, c

    return step


def run(
    op: str, attributes: Any, x: Array, w: Array, r: Array, b: Array | None, h: Array | None = None,
    c: Array | None = None, projection: Array | None = None,
) -> list[Array]:  # fmt: skip
    """Results Y (time, ways, rows, hidden), Y_h and, of an LSTM, Y_c (ways, rows, hidden)."""
    time, rows, _ = x.shape
    sizes = (r.shape[-1], w.shape[1] // 4) if "LSTM" in op.upper() else (r.shape[-1],)
    sequences, finals = [], []
    for way in range(w.shape[0]):
        bias = np.zeros(2 * w.shape[1]) if b is None else b[way]
        if op == "RNN":
            step = _rnn(w[way], r[way], bias, ACTIVATIONS[attributes["activations"][way]])
        elif op == "GRU":
            step = _gru(w[way], r[way], bias, bool(attributes["linear_before_reset"]))
        else:
            step = _lstm(w[way], r[way], bias, None if projection is None else projection[way])
        states = [
            np.zeros((rows, size)) if given is None else given[way]
            for given, size in zip((h, c), sizes, strict=False)
        ]
        order = range(time - 1, -1, -1) if way or attributes["direction"] == "reverse" else range(time)
        seen = {}
        for moment in order:
            states = list(step(x[moment], *states))
            seen[moment] = states[0]
        sequences.append(np.stack([seen[moment] for moment in range(time)]))
        finals.append(states)
    return [np.stack(sequences, axis=1), *(np.stack(final) for final in zip(*finals, strict=True))]
