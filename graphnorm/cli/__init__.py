"""The command line: ``graphnorm canonicalize | inspect | draw | check | rules | demo``.

Exit codes: 0 done or equivalent, 1 not equivalent, 2 bad usage or input, 3 a defect of graphnorm; as in
shells 128 + n after signal n, and 141 if the output pipe is closed. torch, onnx, matplotlib and rich are
imported when a command needs them.
"""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from types import FrameType

from graphnorm.cli import checking, draw, rules
from graphnorm.cli.commands import app
from graphnorm.cli.group import CLOSED_PIPE, KILLED

_COMMANDS = (checking, draw, rules)  # modules that register a command of their own


def main() -> None:
    """Run the command line (console script ``graphnorm``)."""
    warnings.simplefilter("ignore", FutureWarning)  # torch's, about torch
    logging.disable(logging.WARNING)  # of torch.export about code that it cannot find
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # not everywhere
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _end)
    try:
        app()
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # for which 1 would say "not equivalent"
            sys.exit(CLOSED_PIPE)
        raise


def _end(number: int, frame: FrameType | None) -> None:
    """As for the interrupt key: unfinished files are removed on exit."""
    sys.exit(KILLED + number)
