"""The command line: ``graphnorm canonicalize | inspect | draw | check | rules | demo``.

Exit codes: 0 done or equivalent, 1 not equivalent, 2 bad usage or input, 3 a defect of graphnorm.
torch, onnx, matplotlib and rich are imported when a command needs them.
"""

from __future__ import annotations

import logging
import warnings

from graphnorm.cli import checking, draw, rules
from graphnorm.cli.commands import app

_COMMANDS = (checking, draw, rules)  # modules that register a command of their own


def main() -> None:
    """Run the command line (console script ``graphnorm``)."""
    warnings.simplefilter("ignore", FutureWarning)  # torch's, about torch
    logging.disable(logging.WARNING)  # of torch.export about code that it cannot find
    app()
