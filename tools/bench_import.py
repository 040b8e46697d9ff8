"""What ``import graphnorm`` costs: the best of several fresh interpreters, measured with -X importtime.

    python tools/bench_import.py [--runs 20] [--limit 0.1]

Exits with 1 if the best time is above the limit (seconds).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys

_LINE = re.compile(r"import time:\s+(\d+)\s+\|\s+(\d+)\s+\|( *)(\S+)")


def import_seconds(module: str) -> float:
    """Cumulative import time of a module in a fresh interpreter, without Python's own start-up."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = [match for match in map(_LINE.match, log.splitlines()) if match and match[4] == module]
    return int(found[-1][2]) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--limit", type=float, default=0.1)
    options = parser.parse_args()
    times = sorted(import_seconds("graphnorm") for _ in range(options.runs))
    print(f"import graphnorm: best {times[0] * 1e3:.1f} ms, median {times[len(times) // 2] * 1e3:.1f} ms")
    return int(times[0] > options.limit)


if __name__ == "__main__":
    sys.exit(main())
