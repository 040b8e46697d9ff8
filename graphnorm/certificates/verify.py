"""Making and checking certificates.

The check reads both models and derives everything else again: hashes, the equations between scales and the
permutations that A's graph allows, coefficients, both objectives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphnorm.api.sources import Source, open_model
from graphnorm.certificates.file import CertificateFile, Claims, pack, read, write
from graphnorm.certificates.hashing import graph_hash, weights_hash
from graphnorm.errors import InputError
from graphnorm.permutation.symmetry import inverse, symmetry
from graphnorm.proof.pairing import pair_weights
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.rescaling.objective import build_problem
from graphnorm.solver.problem import objective
from graphnorm.solver.solve import certified_gap
from graphnorm.util.callers_state import kept_filters
from graphnorm.verification.certificate import Certificate, check_certificate, violated_equation

if TYPE_CHECKING:
    from graphnorm.api.canonicalize import Result

_SAME = 1e-9  # relative; objectives are sums in float64
_CONFIRMS = 10.0  # times a claimed gap: the bound depends on how far its solve went


def save_certificate(result: Result, path: Path, written: Path | None = None) -> None:
    """Write what `canonicalize` proved.

    Args:
        result: of `canonicalize`.
        path: a ``.json`` file; the vectors go beside it.
        written: the file that the model was written to; weights alone are read into the model.

    Raises:
        InputError: clips were rewritten, so that A is not the graph that the certificate is about.

    >>> import tempfile, torch, graphnorm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> result = graphnorm.canonicalize(model, torch.randn(3, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_certificate(result, Path(folder, "cert.json"))
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['cert.json', 'cert.safetensors']
    """
    source = result.source
    if result.report.clips is not None and result.report.clips.rewritten:
        raise InputError(
            "a certificate is about one graph, and rewritten clips are another: write the model with "
            "rewritten clips first, then canonicalise that"
        )
    alone = written is None or written.suffix == ".safetensors"
    other = reopened(source, result.model if alone else written)
    vectors = pack(result.log_scales, result.permutation)
    options, solver = result.report.options, result.report.solver
    exact = options.exact
    norm = options.p, options.c, options.biases
    before, after = _objectives(result.graph, result.log_scales, *norm)
    claims = Claims(
        a_graph=graph_hash(source.network),
        a_weights=weights_hash(source.network),
        b_graph=graph_hash(other.network),
        b_weights=weights_hash(other.network),
        exact=exact,
        p=norm[0],
        c=norm[1],
        biases=norm[2],
        before=before,
        after=after,
        gap=solver.gap,
        vectors=hashlib.sha256(vectors).hexdigest(),
    )
    write(path, claims, vectors)


def reopened(source: Source, model: Any) -> Source:
    """An emitted model through the front end of the original."""
    call = getattr(source, "call", None)
    if call is not None:
        return open_model(model, call[0], call[1])
    shapes = {name: source.network.values[name].shape or () for name in source.network.inputs}
    return open_model(model, source.example, None, shapes if source.example is None else None)


@kept_filters()
def verify_certificate(
    a: Any,
    b: Any,
    path: Path,
    example_inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    inputs_as_weights: bool = False,
) -> Certificate:
    """Check a certificate file against two models, without trusting the program that wrote it.

    Args:
        a: the original: see `graphnorm.trace`.
        b: the re-parameterised model.
        path: the certificate's ``.json`` file.
        example_inputs: inputs to trace torch modules with.
        kwargs: keyword inputs of torch modules.
        input_shapes: sizes of ONNX symbolic dimensions, by input name.
        inputs_as_weights: as `graphnorm.canonicalize` had it.

    Returns:
        The outcome; ``failure`` names the first claim that does not hold.

    Raises:
        InputError: a model or the certificate cannot be read.

    >>> import tempfile, torch, graphnorm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> result = graphnorm.canonicalize(model, torch.randn(3, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_certificate(result, Path(folder, "cert.json"))
    ...     verify_certificate(model, result.model, Path(folder, "cert.json"), torch.randn(3, 4)).valid
    True
    """
    certificate = read(path)
    first = open_model(a, example_inputs, kwargs, input_shapes, inputs_as_weights)
    second = open_model(b, example_inputs, kwargs, input_shapes, inputs_as_weights)
    failure = _wrong_hash(certificate.claims, first, second)
    if failure:
        return Certificate(False, False, np.inf, failure)
    return judge(certificate, first, second)


def _wrong_hash(claims: Claims, first: Source, second: Source) -> str:
    for name, source in (("a", first), ("b", second)):
        for what, found in (("graph", graph_hash), ("weights", weights_hash)):
            if found(source.network) != getattr(claims, f"{name}_{what}"):
                return f"{name.upper()}'s {what}: not the one that the certificate is about (hash)"
    return ""


def judge(certificate: CertificateFile, first: Source, second: Source) -> Certificate:
    """Check the claims about two networks."""
    broken = Certificate(False, False, np.inf)
    pairing, departure = pair_weights(first.network, second.network)
    if pairing is None:
        return _failed(broken, departure)
    weights = {name: second.network.weights[other] for name, other in pairing.items()}
    first.network.check_finite()
    second.network.check_finite()
    graph = build(first.network)
    given, claims = certificate.log_scales, certificate.claims
    if len(given) != graph.scales.constraints.count:
        return _failed(broken, f"{len(given)} log-scales for {graph.scales.constraints.count} labels")
    if not np.isfinite(given).all():
        return _failed(
            broken, f"log-scale of label {int(np.flatnonzero(~np.isfinite(given))[0])} is not finite"
        )
    wrong = violated_equation(graph, given)
    if wrong:
        return _failed(broken, wrong)
    x = graph.log_scales(given[graph.solution.variables])  # satisfies the equations to the last digits
    off = np.abs(given - x) > _SAME * (1 + np.abs(x))
    if off.any():
        return _failed(
            broken, f"log-scale of label {int(np.flatnonzero(off)[0])} does not follow from others"
        )
    allowed = symmetry(first.network)
    for factor, order in certificate.permutation.items():
        if allowed.sizes.get(factor) != len(order):
            return _failed(broken, f"factor {factor} may not be permuted")
    back = allowed.apply(inverse(dict(certificate.permutation)), weights)
    found = check_certificate(graph, back, x, claims.exact)
    if not found.valid:
        return found
    wrong = _wrong_objective(claims, graph, x)
    return _failed(found, wrong) if wrong else replace(found, remark=_about_gap(claims, graph, x))


def _failed(certificate: Certificate, failure: str) -> Certificate:
    return Certificate(False, certificate.exact, certificate.worst_ulp, failure)


def _wrong_objective(claims: Claims, graph: RescalingGraph, x: Any) -> str:
    """Objectives of both, recomputed: of A at log-scales 0, of B at those of the certificate."""
    both = _objectives(graph, x, claims.p, claims.c, claims.biases)
    for name, claimed, found in zip(("before", "after"), (claims.before, claims.after), both, strict=True):
        if not abs(found - claimed) <= _SAME * max(abs(found), abs(claimed)):
            return f"objective {name}: {claimed:.12g} is claimed, it is {found:.12g}"
    return ""


def _about_gap(claims: Claims, graph: RescalingGraph, x: Any) -> str:
    """How far B is above the minimum: the recomputed bound, and the claim."""
    if claims.gap is None:
        return ""
    found = certified_gap(
        build_problem(graph, claims.p, claims.c, claims.biases), x[graph.solution.variables]
    )
    if found <= max(_CONFIRMS * claims.gap, _SAME):
        return f"the objective is at most {found:.2g} of itself above its minimum (recomputed)"
    return (
        f"the gap is not verified: {claims.gap:.2g} is claimed, and recomputed with no channel held, "
        f"the bound is {found:.2g}"
    )


def _objectives(graph: RescalingGraph, x: Any, p: float, c: float, biases: bool) -> tuple[float, float]:
    """At no rescaling, and at log-scales `x`, in float64."""
    problem = build_problem(graph, p, c, biases)
    z = x[graph.solution.variables]
    return float(objective(problem, 0 * z)), float(objective(problem, z))
