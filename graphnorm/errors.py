"""Errors of graphnorm: each message says what, where, what was expected, and what to do."""

from __future__ import annotations


class GraphNormError(Exception):
    """Base of every error that graphnorm raises on purpose."""


class InputError(GraphNormError):
    """A model, file, shape or option that graphnorm cannot handle (command line: exit code 2)."""


class ModelFileError(InputError):
    """A model file that is missing, damaged, unsupported or unsafe to read."""


class ExportError(InputError):
    """A torch module that ``torch.export`` cannot trace."""


class MissingPackageError(InputError, ImportError):
    """A package of another extra is needed."""


class RunError(GraphNormError):
    """onnxruntime, torch or ONNX's reference implementation failed while it ran a model (exit code 2)."""


class InvalidGraphError(GraphNormError):
    """The intermediate representation breaks one of its invariants: a defect of a front end."""


class RuleError(GraphNormError):
    """The rule registry is inconsistent, or a rule met a node it cannot describe."""


class NotEquivalentError(GraphNormError):
    """Verification failed: the emitted model is not the same function (exit code 1)."""


class NoPathNormError(GraphNormError):
    """A network has no path-norm: an operator has no paths, or the sum is not a positive float64."""
