"""The judge of execution: what graphnorm computes itself, against the framework.

``python -m tools.validation.execution --all``, or ``--op NAME ...``.  For each case of
`tools/validation/families`: the float64 anchor and the constants that reading an ONNX model computes against
onnxruntime and our own functions; path-norms against derivatives; readings of input entries against what the
operator does to integers.  X  Exit code 1 if there are findings.
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence

from graphnorm.ir import Array
from tools.validation.case import Case, Rng
from tools.validation.execution_entries import entered
from tools.validation.execution_onnx import anchored, folded
from tools.validation.execution_paths import pathed
from tools.validation.families import GENERATORS
from tools.validation.judge import _CRASHES as CRASHES
from tools.validation.judge import Verdict, make_case, stream
from tools.validation.judging import command_line
from tools.validation.normal_form import as_stored
from tools.validation.one_node import narrow
from tools.validation.variations import varied

Part = Callable[[Case, Sequence[Array | None], Rng], "str | None"]


def _anchor(case: Case, operands: Sequence[Array | None], rng: Rng) -> str | None:
    del rng
    return None if case.op.startswith(("aten::", "graphnorm::")) else anchored(case, narrow(operands))


def _constants(case: Case, operands: Sequence[Array | None], rng: Rng) -> str | None:
    del rng
    return None if "::" in case.op else folded(case, narrow(operands))


def _paths(case: Case, operands: Sequence[Array | None], rng: Rng) -> str | None:
    del rng
    return pathed(case, operands)


PARTS: dict[str, Part] = {"anchor": _anchor, "constants": _constants, "paths": _paths, "entries": entered}
COVERED: dict[str, Counter[str]] = {}  # operator -> which parts had an answer


def validate(op: str, seed: int, index: int) -> Verdict:
    """Draw a case and judge what is computed of it."""
    case, rng = make_case(op, seed, index), stream(op, seed, index, 2)
    case = as_stored(varied(case, rng) if index % 2 else case)
    operands = [operand.draw(rng) for operand in case.operands]
    covered = COVERED.setdefault(op, Counter())
    for name, part in PARTS.items():
        try:
            said = part(case, operands, rng)
        except CRASHES as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{case}: {name}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
            return Verdict(op, seed, index, "crash", text)
        if said:
            return Verdict(op, seed, index, "unsound", f"{case}: {name}: {said}")
        covered[name] += said is not None
    return Verdict(op, seed, index, "ok")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    COVERED.clear()
    status = command_line(__doc__ or "", validate, sorted(GENERATORS), arguments)
    for name in PARTS:
        print(f"{name}: {sum(bool(covered[name]) for covered in COVERED.values())} operators")
    nothing = [op for op, covered in COVERED.items() if not covered.total()]
    print(f"{len(nothing)} operators are computed by none: {', '.join(nothing)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
