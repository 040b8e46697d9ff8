"""graphnorm: every positive rescaling of a network's graph, found, solved for, applied and proved.

>>> import graphnorm
>>> graphnorm.__version__
'0.1.0'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphnorm.errors import (
    ExportError,
    GraphNormError,
    InputError,
    ModelFileError,
    NotEquivalentError,
    RunError,
)
from graphnorm.util.callers_state import kept_filters

if TYPE_CHECKING:
    from graphnorm.api.canonicalize import Result, canonicalize
    from graphnorm.api.check import check
    from graphnorm.api.check_report import CheckReport
    from graphnorm.api.reports import Report
    from graphnorm.api.trace import trace
    from graphnorm.rescaling.graph import RescalingGraph
    from graphnorm.training.enorm import ENorm
    from graphnorm.training.implicit import ImplicitENorm
    from graphnorm.training.path_sgd import PathSGD
    from graphnorm.util.limits import limits

__version__ = "0.1.0"

# Public name -> module: loaded on first use, so that importing graphnorm costs next to nothing.
_HOMES = {
    "CheckReport": "graphnorm.api.check_report",
    "ENorm": "graphnorm.training.enorm",
    "ImplicitENorm": "graphnorm.training.implicit",
    "PathSGD": "graphnorm.training.path_sgd",
    "Report": "graphnorm.api.reports",
    "RescalingGraph": "graphnorm.rescaling.graph",
    "Result": "graphnorm.api.canonicalize",
    "canonicalize": "graphnorm.api.canonicalize",
    "check": "graphnorm.api.check",
    "limits": "graphnorm.util.limits",
    "trace": "graphnorm.api.trace",
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
    "limits",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'graphnorm' has no attribute {name!r}")
    with kept_filters():  # NumPy and SciPy add some when they are imported
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
