"""Run every lowering and rule on degenerate tensors: `python -m tools.sweep [torch] [onnx] [--part I/N]`.

Anything but a `GraphNormError` that surfaces, and every remark that says "a defect in graphnorm", is a
finding; exit code 1 then.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence

from tools.sweep import operators_onnx, operators_torch

SIDES = ("torch", "onnx")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse arguments, run, print findings; 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m tools.sweep", description=__doc__)
    parser.add_argument("sides", nargs="*", metavar="SIDE", help="torch or onnx (default: both)")
    parser.add_argument("--part", default="0/1", help="I/N: every N-th case, from number I on")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    options = parser.parse_args(arguments)
    if strange := set(options.sides) - set(SIDES):
        parser.error(f"{', '.join(sorted(strange))}: neither torch nor onnx")
    part, parts = map(int, options.part.split("/"))
    warnings.simplefilter("ignore")
    kinds: Counter[str] = Counter()
    end = time.monotonic() + options.seconds
    for side in options.sides or SIDES:
        found = operators_torch if side == "torch" else operators_onnx
        for outcome in found.outcomes(part=part, parts=parts):
            kinds[outcome.kind] += 1
            if outcome.is_finding:
                print(f"{outcome.kind}: {outcome.case}: {outcome.text}", flush=True)
            if time.monotonic() > end:
                break
    print(f"{sum(kinds.values())} models: {dict(sorted(kinds.items()))}")
    return int(kinds["raised"] + kinds["reported"] > 0)


if __name__ == "__main__":
    sys.exit(main())
