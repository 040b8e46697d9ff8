"""Cases of recurrent layers: two steps, one or two rows and hidden channels."""

from __future__ import annotations

from tools.validation.case import ABSENT, Case
from tools.validation.maker import Maker, cases

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4, "aten::lstm_projected": 4}


@cases("aten::lstm_projected")
def projected(m: Maker) -> Case:
    hidden, ways, rows, size = 2, 1, m.integer(1, 2), m.integer(1, 2)
    return m.case(
        m.real((2, rows, 1), along=(2,)), m.parameter((ways, 4 * hidden, 1)),
        m.parameter((ways, 4 * hidden, size)), m.maybe(m.parameter((ways, 8 * hidden))), ABSENT,
        m.maybe(m.real((ways, rows, size), along=(0, 2))),
        m.maybe(m.real((ways, rows, hidden), along=(0, 2))),
        m.parameter((ways, size, hidden)), results=3, direction="forward",
    )  # fmt: skip


@cases("RNN", "GRU", "LSTM")
def recurrent(m: Maker) -> Case:
    gates, width, ways = GATES[m.op], m.integer(1, 2), m.integer(1, 2)
    hidden = m.integer(1, 2) if ways * gates < 6 else 1
    time, rows = 2, m.integer(1, 2)
    attributes: dict[str, object] = {
        "hidden_size": hidden,
        "direction": "bidirectional" if ways == 2 else m.choose(["forward", "reverse"]),
    }
    if m.op == "RNN":
        attributes["activations"] = [m.choose(["Tanh", "Relu"])] * ways
    if m.op == "GRU":
        attributes["linear_before_reset"] = m.integer(0, 1)
    operands = [
        m.real((time, rows, width), along=(2,)), m.parameter((ways, gates * hidden, width)),
        m.parameter((ways, gates * hidden, hidden)), m.maybe(m.parameter((ways, 2 * gates * hidden))), ABSENT,
        m.maybe(m.real((ways, rows, hidden), along=(0, 2))),
    ]  # fmt: skip
    if m.op == "LSTM":
        operands.append(m.maybe(m.real((ways, rows, hidden), along=(0, 2))))
    return m.case(*operands, results=3 if m.op == "LSTM" else 2, **attributes)
