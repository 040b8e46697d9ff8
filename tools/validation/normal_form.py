"""The judge of normal forms: the rewritten network computes what the network computes.

``python -m tools.validation.normal_form --all``, or ``--op NAME ...``.  Around each case of
`tools/validation/families` a network is built (`surroundings`), brought to its normal form, and both are run
in float64 on random inputs.  They must agree (else: claimed but false).  Spellings of one network that are
known to be equal must have matching normal forms (else: true but missing); what no lowering covers is listed.
Exit code 1 if there are findings.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphnorm.alignment.lowering import LOWERINGS
from graphnorm.alignment.matching import match
from graphnorm.alignment.normal import normalise
from graphnorm.ir import Array, Graph
from tools.validation.case import Case
from tools.validation.families import GENERATORS
from tools.validation.interpret import run
from tools.validation.judge import _CRASHES as CRASHES
from tools.validation.judge import Verdict, make_case, stream
from tools.validation.judging import command_line
from tools.validation.spellings import spellings
from tools.validation.surroundings import surround
from tools.validation.variations import varied

DRAWS = 3
TOLERANCE = 1e-9  # of the largest entry: sums in another order, in float64


def validate(op: str, seed: int, index: int) -> Verdict:
    """Draw a case and judge the normal forms of networks around it."""
    case, rng = make_case(op, seed, index), stream(op, seed, index, 2)
    case = as_stored(varied(case, rng) if index % 2 else case)
    try:
        return judge(case, seed, index)
    except CRASHES as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{case}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        return Verdict(op, seed, index, "crash", text)


def judge(case: Case, seed: int = 0, index: int = 0) -> Verdict:
    """Compare the network around a case with its normal form, and with its other spellings."""
    rng = stream(case.op, seed, index, 3)
    around = surround(case, [operand.draw(rng) for operand in case.operands], rng, index == 0)
    graph = around.graph()
    normal = normalise(graph)

    def verdict(kind: str, text: str = "") -> Verdict:
        return Verdict(case.op, seed, index, kind, f"{case}: {text}" if text else "")

    if normal.defects:
        return verdict("crash", "; ".join(normal.defects))
    for _ in range(DRAWS):
        inputs = around.given([operand.draw(rng) for operand in case.operands])
        difference = differs(run(graph, inputs), run(normal.graph, inputs))
        if difference:
            return verdict("unsound", f"{chain(graph)} has another function in normal form: {difference}")
    for name, other in spellings(graph):
        found = match(normal.graph, normalise(other).graph, double=True)
        if found.failure:
            return verdict(
                "missing", f"{chain(graph)} and {name} have different normal forms: {found.failure}"
            )
    return verdict("ok")


def as_stored(case: Case) -> Case:
    """The case with the numbers among its attributes as an ONNX file holds them, in float32."""
    rounded = {
        name: float(np.float32(value)) if isinstance(value, float) else value
        for name, value in case.attributes.items()
    }
    return replace(case, attributes=rounded)


def differs(first: Sequence[Array], second: Sequence[Array]) -> str:
    """Where two lists of arrays differ beyond rounding, or ""."""
    for place, (one, two) in enumerate(zip(first, second, strict=True)):
        if one.shape != two.shape or one.dtype != two.dtype:
            return f"result {place} is {two.dtype}{two.shape}, not {one.dtype}{one.shape}"
        if one.dtype.kind != "f":
            same = one == two
        else:
            size = float(np.abs(one[np.isfinite(one)]).max(initial=0.0))
            same = np.isclose(one, two, rtol=TOLERANCE, atol=TOLERANCE * size, equal_nan=True)
        if not np.all(same):
            at = tuple(int(i) for i in np.argwhere(~same)[0])
            return f"result {place} is {two[at]} at {list(at)}, not {one[at]}"
    return ""


def chain(graph: Graph) -> str:
    """The operators of a network."""
    return " ".join(node.op for node in graph.nodes)


def opaque() -> list[str]:
    """Operators with cases and without a lowering: they stay as they are."""
    return sorted(op for op in GENERATORS if op not in LOWERINGS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    status = command_line(__doc__ or "", validate, sorted(GENERATORS), arguments)
    print(f"{len(opaque())} operators stay as they are: {', '.join(opaque())}")
    return status


if __name__ == "__main__":
    sys.exit(main())
