"""graphnorm: every positive rescaling of a network's graph, found, solved for, applied and proved.

>>> import graphnorm
>>> graphnorm.__version__
'0.1.0'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphnorm.callers_state import kept_filters
from graphnorm.errors import (
    ExportError,
    GraphNormError,
    InputError,
    ModelFileError,
    NotEquivalentError,
    RunError,
)

if TYPE_CHECKING:
    from graphnorm.canonical import Result, canonicalize
    from graphnorm.equivalence import check
    from graphnorm.graph import RescalingGraph
    from graphnorm.report import CheckReport, Report
    from graphnorm.tracing import trace
    from graphnorm.training.enorm import ENorm
    from graphnorm.training.implicit import ImplicitENorm
    from graphnorm.training.path_sgd import PathSGD

__version__ = "0.1.0"

# Public name -> module: loaded on first use, so that importing graphnorm costs next to nothing.
_HOMES = {
    "CheckReport": "graphnorm.report",
    "ENorm": "graphnorm.training.enorm",
    "ImplicitENorm": "graphnorm.training.implicit",
    "PathSGD": "graphnorm.training.path_sgd",
    "Report": "graphnorm.report",
    "RescalingGraph": "graphnorm.graph",
    "Result": "graphnorm.canonical",
    "canonicalize": "graphnorm.canonical",
    "check": "graphnorm.equivalence",
    "trace": "graphnorm.tracing",
}

__all__ = [
    "CheckReport",
    "ENorm",
    "ExportError",
    "GraphNormError",
    "ImplicitENorm",
    "InputError",
    "ModelFileError",
    "NotEquivalentError",
    "PathSGD",
    "Report",
    "RescalingGraph",
    "Result",
    "RunError",
    "canonicalize",
    "check",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'graphnorm' has no attribute {name!r}")
    with kept_filters():  # NumPy and SciPy add some when they are imported
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
