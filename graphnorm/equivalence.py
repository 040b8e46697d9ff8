"""The equivalence checker: are two models the same function?

1. structure: both graphs have the same operators, attributes, constants and wiring;
2. proof: some rescaling turns A's weights into B's: recover its coefficients from the ratios of the
   weights, then check the certificate on all of them;
3. measurement: run both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from graphnorm import ir
from graphnorm.errors import InputError
from graphnorm.graph import Floats, RescalingGraph, build
from graphnorm.report import CheckReport, Verification
from graphnorm.scales.labels import align, varying_axes
from graphnorm.sources import Source, open_model
from graphnorm.verification.certificate import Certificate, check_certificate
from graphnorm.verification.measure import battery, measure

# Without a proof, look for an input on which the models part.
_SUSPECT_DRAWS = (8, 64)  # of each kind of input: at least, at most
_SUSPECT_ENTRIES = 5_000_000  # of all inputs together, beyond the least
_SUSPECT_SECONDS = 20.0
_SLACK = 8.0  # half ulps: B was rounded once, and the coefficients are recovered from rounded weights


def check(
    a: Any,
    b: Any,
    example_inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    device: str = "auto",
) -> CheckReport:
    """Compare two models (torch modules, exported programs, ONNX models or files, also mixed).

    Args:
        a: the reference.
        b: the model to judge.
        example_inputs: inputs to trace and run torch modules with; used for both models.
        kwargs: keyword inputs of torch modules.
        input_shapes: sizes of ONNX symbolic dimensions, by input name.
        device: where to run.

    Raises:
        InputError: a model cannot be taken, or the two take different inputs.
    """
    start = time.perf_counter()
    first = open_model(a, example_inputs, kwargs, input_shapes)
    second = open_model(b, example_inputs, kwargs, input_shapes)
    _check_signatures(first.network, second.network)
    traced = time.perf_counter()
    certificate, note, identical = _prove(first.network, second.network)
    proved = time.perf_counter()
    measurement = measure(
        first.runner(first.model, device),
        second.runner(second.model, device),
        _inputs(first, second, thorough=not (identical or (certificate is not None and certificate.valid))),
        seconds=_SUSPECT_SECONDS,
    )
    seconds = {
        "trace": traced - start,
        "prove": proved - traced,
        "verify": time.perf_counter() - proved,
    }
    if not measurement.agrees:
        verdict = "differs"
    elif identical:
        verdict = "identical"
    else:
        verdict = "proved" if certificate is not None and certificate.valid else "agrees"
    kept = certificate if certificate is not None and certificate.valid else None
    return CheckReport(Verification(verdict, kept, measurement), note, seconds)


def _inputs(first: Source, second: Source, thorough: bool) -> list[tuple[str, list[ir.Array]]]:
    example = first.example if first.example is not None else second.example
    once = battery(first.network, example)
    if not thorough:
        return once
    least, most = _SUSPECT_DRAWS
    entries = max(1, sum(array.size for _, arrays in once for array in arrays))
    return battery(first.network, example, draws=min(most, max(least, _SUSPECT_ENTRIES // entries)))


def _check_signatures(a: ir.Graph, b: ir.Graph) -> None:
    shapes = [[(g.values[n].shape, g.values[n].dtype) for n in g.inputs] for g in (a, b)]
    if len(shapes[0]) != len(shapes[1]):
        raise InputError(f"{a.name} takes {len(shapes[0])} inputs, {b.name} takes {len(shapes[1])}")
    for name, one, two in zip(a.inputs, *shapes, strict=True):
        if one != two:
            raise InputError(
                f"input {name!r}: {a.name} takes {one[1]}{one[0]}, {b.name} takes {two[1]}{two[0]}"
            )


def _prove(a: ir.Graph, b: ir.Graph) -> tuple[Certificate | None, str, bool]:
    """(certificate, why there is none, whether all bits are the same)."""
    pairing, note = pair_weights(a, b)
    if pairing is None:
        return None, note, False
    weights = {name: b.weights[other] for name, other in pairing.items()}
    if all(_same_bits(a.weights[name], weights[name]) for name in a.weights):
        return None, "", True
    a.check_finite()
    b.check_finite()
    graph = build(a)
    try:
        x = recover(graph, weights)
    except ValueError as error:
        return None, str(error), False
    certificate = check_certificate(graph, weights, x, slack=_SLACK)
    return certificate, "" if certificate.valid else certificate.failure, False


def _same_bits(first: ir.Array, second: ir.Array) -> bool:
    return first.shape == second.shape and first.dtype == second.dtype and first.tobytes() == second.tobytes()


@dataclass
class _Renaming:
    """Value names of A -> value names of B, one to one."""

    forward: dict[str, str]
    backward: dict[str, str]

    def agree(self, one: str, two: str) -> bool:
        return self.forward.setdefault(one, two) == two and self.backward.setdefault(two, one) == one


def pair_weights(a: ir.Graph, b: ir.Graph) -> tuple[dict[str, str] | None, str]:
    """Match the graphs node by node; returns A's weight names -> B's, or None and where they part."""
    if len(a.nodes) != len(b.nodes):
        return None, f"the graphs have {len(a.nodes)} and {len(b.nodes)} operators"
    names = _Renaming({"": ""}, {"": ""})
    for one, two in zip(a.inputs, b.inputs, strict=True):
        names.agree(one, two)
    for node, other in zip(a.nodes, b.nodes, strict=True):
        where = f"{node.op} {node.label}"
        if node.op != other.op or not _same_attributes(node.attributes, other.attributes):
            return None, f"{where} stands against {other.op} {other.label}, or their attributes differ"
        if len(node.inputs) != len(other.inputs) or len(node.outputs) != len(other.outputs):
            return None, f"{where} and its counterpart have different operands"
        pairs = zip((*node.inputs, *node.outputs), (*other.inputs, *other.outputs), strict=True)
        if not all(names.agree(one, two) for one, two in pairs):
            return None, f"{where} is wired differently"
    if not all(names.agree(one, two) for one, two in zip(a.outputs, b.outputs, strict=True)):
        return None, "the outputs are wired differently"
    for one, two in names.forward.items():
        if (one in a.constants) != (two in b.constants) or (one in a.weights) != (two in b.weights):
            return None, f"{one!r} is a weight in one model and a constant in the other"
        if one in a.constants and not _same_bits(a.constants[one], b.constants[two]):
            return None, f"constant {one!r} differs"
    # A weight that no node reads cannot matter: pair it with itself.
    unread = {name: name for name in a.weights if name not in names.forward and name in b.weights}
    pairing = {name: names.forward[name] for name in a.weights if name in names.forward} | unread
    missing = [name for name in a.weights if name not in pairing]
    return (None, f"weight {missing[0]!r} has no counterpart") if missing else (pairing, "")


def _same_attributes(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    if one.keys() != two.keys():
        return False
    return all(np.array_equal(np.asarray(one[key]), np.asarray(two[key])) for key in one)


def recover(graph: RescalingGraph, other: Mapping[str, ir.Array]) -> Floats:
    """Least-squares label log-scales that turn the graph's weights into `other`.

    One equation log(b / a) = scale for each row and column (or expert) of a weight, at its largest entry.

    Raises:
        ValueError: a pair of weights has different shapes, signs or zeros.
    """
    forms: list[sp.csr_array] = []
    targets: list[Floats] = []
    read = {demand.weight for demand in graph.demands if demand.terms}
    finest = min((_rounding(graph.network.weights[name]) for name in read), default=1.0)
    for demand in graph.demands:
        if not demand.terms:
            continue
        old = demand.region(graph.network.weights[demand.weight]).astype(np.float64)
        given = other[demand.weight]
        if given.shape != graph.network.weights[demand.weight].shape:
            raise ValueError(f"weight {demand.weight!r} has another shape")
        new = demand.region(given).astype(np.float64)
        smallest = ir.float_format(given.dtype).smallest_normal
        precision = np.minimum(np.abs(old), np.abs(new)) / smallest  # below 1: digits lost to underflow
        same_sign = np.sign(old) == np.sign(new)
        if (~same_sign & (precision >= 1)).any():
            raise ValueError(f"weight {demand.weight!r} has entries of another sign")
        sides = [varying_axes(align(labels, old.ndim)) for _, labels in demand.terms]
        chosen = _largest_entries(np.where(same_sign, old, 0.0), sides)
        if len(chosen):
            trust = np.minimum(precision.ravel()[chosen], 1.0) * _confidence(given, finest)
            row = sp.csr_array((len(chosen), graph.solution.basis.shape[1]))
            for c, labels in demand.terms:
                spread = np.broadcast_to(align(labels, old.ndim), old.shape).ravel()
                row = row + c * graph.solution.basis[spread[chosen]]
            forms.append(sp.csr_array(row.multiply(trust[:, None])))
            targets.append(trust * np.log(new.ravel()[chosen] / old.ravel()[chosen]))
    z = np.zeros(graph.solution.count)
    if forms:
        matrix = sp.csr_array(sp.vstack(forms))
        wanted = np.concatenate(targets)
        for _ in range(2):  # the second time on the residual, for the last digits of float64 weights
            z = (
                z
                + scipy.sparse.linalg.lsmr(matrix, wanted - matrix @ z, atol=1e-14, btol=1e-14, maxiter=5000)[
                    0
                ]
            )
    return graph.log_scales(z)


def _rounding(weight: ir.Array) -> float:
    return float(ir.float_format(weight.dtype).eps)


def _confidence(weight: ir.Array, finest: float) -> float:
    """Weight in the least squares: a coarse format's rounding e must not reach weights that round by f.

    The power 1/2 of f / e would let an error of f through; the power 1 is hard on the solver.
    """
    return float((finest / _rounding(weight)) ** 0.75)


def _largest_entries(values: Floats, sides: Iterable[frozenset[int]]) -> np.ndarray:
    """Flat indices of the largest |entry| at each index of each set of axes."""
    magnitude = np.abs(values)
    index = np.arange(values.size).reshape(values.shape)
    found = [np.empty(0, dtype=np.int64)]
    for side in set(sides):
        front = sorted(side)
        order = [*front, *(axis for axis in range(values.ndim) if axis not in side)]
        rows = math.prod(values.shape[axis] for axis in front)
        flat, positions = (array.transpose(order).reshape(rows, -1) for array in (magnitude, index))
        if flat.shape[1]:
            best = flat.argmax(axis=1)
            each = np.arange(rows)
            found.append(positions[each, best][flat[each, best] > 0])
    return np.unique(np.concatenate(found))
