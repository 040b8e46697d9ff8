"""ATen -> ONNX: recurrent layers.

torch stacks the gates of an LSTM as (i, f, g, o), ONNX as (i, o, f, g); of a GRU as (r, z, n) and (z, r, n).
Weights are reordered by nodes, so that demands can be carried back to the parameters.
An LSTM whose hidden state is projected has no ONNX operator: ``aten::lstm_projected`` is ONNX's LSTM with one
more operand, the projections ``[directions, projected, hidden]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphnorm.frontends.torch.call import Call, Unlowerable, known_shape, rank
from graphnorm.frontends.torch.registry import Lowering, Lowerings
from graphnorm.frontends.torch.steps import joined, reshaped, turned, unsqueezed
from graphnorm.ir import Value

TABLE = Lowerings()
# ATen name: (ONNX operator, torch's gate at each of ONNX's positions, extra attributes)
CELLS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "lstm": ("LSTM", (0, 3, 1, 2), {}),
    "gru": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    "rnn_tanh": ("RNN", (0,), {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", (0,), {"activations": ["Relu"]}),
}


def _gates(call: Call, weight: Value, order: Sequence[int]) -> Value:
    """The gates in ONNX's order, with a leading axis for the direction."""
    if len(order) > 1:
        size = known_shape(weight)[0] // len(order)
        blocks = call.split(weight, [size] * len(order), 0, frozenset())
        weight = call.step("Concat", *(blocks[i] for i in order), like=weight, axis=0)
    return unsqueezed(call, weight, [0])


def _recurrent(aten: str) -> Lowering:
    op, order, extra = CELLS[aten]

    def lower(
        call: Call,
        x: Value,
        initial: Sequence[Value] | Value,
        parameters: Sequence[Value],
        has_biases: bool,
        layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> None:
        directions = 2 if bidirectional else 1
        states = [initial] if isinstance(initial, Value) else list(initial)
        each = len(parameters) // (layers * directions)
        projected = each - (4 if has_biases else 2) == 1
        if rank(x) != 3:
            raise Unlowerable
        if batch_first:
            x = turned(call, x, [1, 0, 2])
        time, batch, _ = known_shape(x)
        hidden, size = known_shape(states[-1])[2], known_shape(states[0])[2]  # of the cell, of its output
        attributes = dict(extra) | {
            "direction": "bidirectional" if bidirectional else "forward",
            "hidden_size": hidden,
        }
        if "activations" in extra:
            attributes["activations"] = extra["activations"] * directions
        starts = [[s] if layers == 1 else call.split(s, [directions] * layers, 0, s.dynamic) for s in states]
        finals: list[list[Value]] = [[] for _ in states]
        for layer in range(layers):
            mine = parameters[layer * each * directions : (layer + 1) * each * directions]
            stacked = [
                [_gates(call, weight, order) for weight in mine[i::each]] for i in range(each - projected)
            ]
            bias = None
            if has_biases:
                pairs = zip(stacked[2], stacked[3], strict=True)
                bias = joined(call, [joined(call, pair, 1) for pair in pairs], 0)
            operands = [x, joined(call, stacked[0], 0), joined(call, stacked[1], 0), bias, None,
                        *(start[layer] for start in starts)]  # fmt: skip
            if projected:
                operands.append(joined(call, [unsqueezed(call, p, [0]) for p in mine[each - 1 :: each]], 0))
            finals_of = [(directions, batch, known_shape(state)[2]) for state in states]
            results = call.steps(
                "aten::lstm_projected" if projected else op, *operands,
                shapes=[(time, directions, batch, size), *finals_of], **attributes,
            )  # fmt: skip
            for final, state in zip(finals, results[1:], strict=True):
                final.append(state)
            x = reshaped(call, turned(call, results[0], [0, 2, 1, 3]), [time, batch, directions * size])
            if dropout and train and layer < layers - 1:
                x = call.step(
                    "Dropout", x, call.number(dropout, "float32"), call.number(True, "bool"), like=x
                )
        call.out_at(0, "Transpose" if batch_first else "Identity", x,
                    **({"perm": [1, 0, 2]} if batch_first else {}))  # fmt: skip
        for index, final in enumerate(finals, start=1):
            call.out_at(index, "Concat", *final, axis=0)

    return lower


for _name in CELLS:
    TABLE.add(f"{_name}.input", _recurrent(_name))
