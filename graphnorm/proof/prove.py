"""Is B a rescaling, and a permutation of hidden channels, of A?  A certificate, or why there is none.

Forms are tried from the strictest: graphs as written, then normal forms; weights in place, then permuted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from graphnorm import ir
from graphnorm.permutation.matching import find_permutation
from graphnorm.permutation.symmetry import Permutation, inverse
from graphnorm.proof.pairing import NORMAL, Pair, pair_normal, pair_written
from graphnorm.proof.recovery import recover
from graphnorm.rescaling.graph import RescalingGraph, build
from graphnorm.util.typing import Floats
from graphnorm.verification.certificate import Certificate, Computed, check_certificate

# Half ulps.  B was rounded once: 1.  The log-scales of a row and of a column are recovered from entries that
# were rounded, too, perhaps in the binade below: up to 2 each.  The fit spreads this; on 195 random networks
# in float32, float16 and bfloat16 the largest distance was 4.0.
SLACK = 8.0
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Structure:
    """How far the two graphs agree.

    Attributes:
        aligned: whether every output's computation has a counterpart.
        form: ``as written`` or ``normal form``.
        nodes: number of operators that were matched.
        departure: the first difference of the graphs as written; empty if there is none.
        values: values of A -> their counterparts in B, as far as the walk went.
        sized: whether sizes may vary, and the graphs were found to agree at the traced ones.
    """

    aligned: bool
    form: str
    nodes: int
    departure: str = ""
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    sized: bool = False


@dataclass(frozen=True)
class Proof:
    """A certificate and what it is about.

    Attributes:
        pair: the networks.
        graph: A's rescaling graph.
        x: log-scale of each label.
        certificate: its check.
        permutation: of hidden channels, after the rescaling.
    """

    pair: Pair
    graph: RescalingGraph
    x: Floats
    certificate: Certificate
    permutation: Permutation = field(default_factory=dict)


@dataclass(frozen=True)
class Attempt:
    """The result of the first two stages.

    Attributes:
        structure: whether and how the graphs align.
        proof: a valid one, or None.
        identical: same graph, same bits.
        note: why there is no proof.
        nearest: the pair that came closest to a proof, to compare layers by.
        defects: one sentence per operator at which graphnorm itself failed.
    """

    structure: Structure
    proof: Proof | None
    identical: bool = False
    note: str = ""
    nearest: Pair | None = None
    defects: tuple[str, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether the networks are known to be the same function, at the sizes that were traced."""
        return self.identical or self.proof is not None


def attempt(a: ir.Graph, b: ir.Graph, permutations: bool = True, tell: Tell | None = None) -> Attempt:
    """Align two networks and look for a certificate."""
    defects: dict[str, None] = {}
    found = _attempt(a, b, permutations, tell or (lambda stage: None), defects)
    return replace(found, defects=tuple(defects))


def _attempt(a: ir.Graph, b: ir.Graph, permutations: bool, say: Tell, defects: dict[str, None]) -> Attempt:
    say("aligning")
    pair, note = pair_written(a, b)
    notes: list[str] = []
    if pair is not None:
        structure = Structure(True, pair.form, pair.nodes, note, sized=pair.sized)
        if pair.identical:
            return Attempt(structure, None, True, "", pair)
        say("recovering coefficients")
        proof, failure = prove(pair, permutations, defects)
        if proof is not None:
            return Attempt(structure, proof, nearest=pair)
        notes.append(failure)
    say("normal forms")
    other, found = pair_normal(a, b)
    defects.update(dict.fromkeys(found.defects))
    sized = a.is_open or b.is_open
    if other is None:
        if pair is None:
            structure = Structure(False, NORMAL, found.nodes, found.failure, found.values, sized)
            return Attempt(structure, None, note=found.failure)
        return Attempt(structure, None, note=notes[0], nearest=pair)
    proof, failure = prove(other, permutations, defects)
    if pair is None or proof is not None:
        structure = Structure(True, other.form, other.nodes, note, sized=sized)
        notes.append(failure)
    return Attempt(structure, proof, note="" if proof is not None else notes[0], nearest=pair or other)


def prove(pair: Pair, permutations: bool, defects: dict[str, None]) -> tuple[Proof | None, str]:
    """A valid certificate for a pair, or why there is none; `defects` collects internal failures."""
    pair.network.check_finite()
    replace(pair.network, weights=pair.weights).check_finite()
    graph = build(pair.network)
    defects.update(dict.fromkeys(graph.scales.constraints.defects))
    proof, failure = _certified(pair, graph, pair.weights, pair.computed)
    if proof is not None or not permutations:
        return proof, failure
    allowed, permutation = find_permutation(graph, pair.weights)
    defects.update(dict.fromkeys(allowed.defects))
    if not permutation:
        return None, failure
    back = inverse(permutation)
    weights = allowed.apply(back, pair.weights)
    sums = allowed.apply(back, {name: held.new for name, held in pair.computed.items()})
    computed = {name: replace(held, new=sums[name]) for name, held in pair.computed.items()}
    proof, other = _certified(pair, graph, weights, computed)
    if proof is not None:
        return replace(proof, permutation=permutation), ""
    return None, f"{failure}; with the nearest permutation, {other}"


def _certified(
    pair: Pair, graph: RescalingGraph, weights: Mapping[str, ir.Array], computed: Mapping[str, Computed]
) -> tuple[Proof | None, str]:
    try:
        x = recover(graph, weights)
    except ValueError as error:
        return None, str(error)
    certificate = check_certificate(graph, weights, x, slack=SLACK, computed=computed)
    if certificate.valid:
        return Proof(pair, graph, np.asarray(x), certificate), ""
    same = check_certificate(graph, weights, 0 * x, slack=SLACK, computed=computed)
    if same.valid:  # nothing is rescaled, but computed weights are rounded more than once
        return Proof(pair, graph, np.asarray(0 * x), same), ""
    return None, certificate.failure
