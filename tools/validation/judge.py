"""Rules against truth, one case at a time: claimed but false, true but missing."""

from __future__ import annotations

import traceback
import zlib
from dataclasses import dataclass

import numpy as np

from graphnorm.errors import GraphNormError
from graphnorm.scales.registry import Registry
from graphnorm.util.typing import Floats
from tools.validation.case import Case, Rng
from tools.validation.exceptions import allowance, exemption
from tools.validation.families import GENERATORS
from tools.validation.maker import Maker, compress, settle
from tools.validation.network import claim
from tools.validation.truth import Operator, group, passes, rank

FINDINGS = {
    "unsound": "claimed but false: a rescaling that the rules allow changes the result",
    "missing": "true but missing: a rescaling that keeps the result isn't allowed",
    "no rule": "true but missing, of an operator without a rule",
    "not validated": "an operator with a rule, without a generator of cases",
    "crash": "the rule or the operator failed",
}
_CRASHES = (
    ArithmeticError, AssertionError, AttributeError, GraphNormError, LookupError, NotImplementedError,
    RuntimeError, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What one case showed.

    Attributes:
        kind: ``ok``, ``allowed`` (missing, but documented), ``exempt``, or one of `FINDINGS`.
        text: the finding, or the reason why there is none.
        claimed: number of independent rescalings of the operands that the rules allow.
        true: the number that pass; -1 where only what is claimed was tried.
    """

    op: str
    seed: int
    index: int
    kind: str
    text: str = ""
    claimed: int = 0
    true: int = -1

    @property
    def is_finding(self) -> bool:
        return self.kind in FINDINGS

    @property
    def command(self) -> str:
        """The command line that shows this verdict again."""
        return f"python tools/validate_rules.py --op {self.op} --seed {self.seed} --case {self.index}"


def operators(registry: Registry) -> list[str]:
    """All that can be validated: operators with a rule or with a generator of cases."""
    return sorted({*registry, *GENERATORS})


def stream(op: str, seed: int, index: int, part: int = 0) -> Rng:
    """Random numbers of one case, the same wherever it runs."""
    return np.random.default_rng([seed, zlib.crc32(op.encode()), index, part])


def make_case(op: str, seed: int, index: int) -> Case:
    """Case number `index` of an operator; even numbers are plain."""
    rng, plain = stream(op, seed, index), index % 2 == 0
    case = settle(GENERATORS[op](Maker(op, rng, plain)), rng, plain)
    return compress(case, stream(op, seed, index, 2))


def validate(op: str, seed: int, index: int, registry: Registry) -> Verdict:
    """Draw a case and judge the operator's rule by it."""
    rule = registry.get(op)
    if op not in GENERATORS:
        reason = exemption(op, rule) if rule else ""
        return Verdict(op, seed, index, "exempt" if reason else "not validated", reason)
    case = make_case(op, seed, index)
    try:
        return judge(case, registry, seed, index)
    except _CRASHES as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{case}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        return Verdict(op, seed, index, "crash", text)


def judge(case: Case, registry: Registry, seed: int = 0, index: int = 0) -> Verdict:
    """Compare what the rules allow around one operator with what the operator allows."""
    rng = stream(case.op, seed, index, 1)
    operator = Operator(case)
    operands = operator.draw(rng)
    found = claim(case, operands, operator.run(operands), registry)
    if found.graph.remarks:
        return Verdict(case.op, seed, index, "crash", f"{case}: {'; '.join(found.graph.remarks)}")
    s, t = found.operands, found.results
    for _ in range(3):
        z = rng.normal(size=s.shape[1])
        if not passes(operator, s @ z, t @ z, rng, 8, 1e-8):
            text = f"{case}: operands times exp {_short(s @ z)} don't give results times exp {_short(t @ z)}"
            return Verdict(case.op, seed, index, "unsound", text, rank(s))
    if case.fine:
        return Verdict(case.op, seed, index, "ok", "", rank(s))
    truth = group(operator, rng)
    claimed, true = rank(s), rank(np.column_stack([truth, s]))
    if true == claimed:
        return Verdict(case.op, seed, index, "ok", "", claimed, true)
    reason = allowance(case)
    if reason:
        return Verdict(case.op, seed, index, "allowed", reason, claimed, true)
    text = (
        f"{case}: {true} independent rescalings pass, the rules allow {claimed}; missing {_missing(truth, s)}"
    )
    return Verdict(case.op, seed, index, "missing" if case.op in registry else "no rule", text, claimed, true)


def _short(values: Floats) -> str:
    return str(np.round(values, 2).tolist())


def _missing(truth: Floats, claimed: Floats) -> str:
    """The simplest direction that passes and isn't claimed."""
    basis = (
        np.linalg.svd(claimed, full_matrices=False)[0][:, : rank(claimed)] if claimed.size else claimed[:, :0]
    )
    outside = [
        column for column in _echelon(truth).T if np.linalg.norm(column - basis @ (basis.T @ column)) > 1e-4
    ]
    return (
        _short(min(outside, key=lambda column: int((np.abs(column) > 1e-6).sum())) + 0.0) if outside else "?"
    )


def _echelon(basis: Floats) -> Floats:
    """A basis of the same space with many zeros (reduced column echelon form)."""
    rows = basis.T.copy()
    lead = 0
    for column in range(rows.shape[1]):
        if lead == len(rows):
            break
        pivot = lead + int(np.abs(rows[lead:, column]).argmax())
        if abs(rows[pivot, column]) < 1e-5:
            continue
        rows[[lead, pivot]] = rows[[pivot, lead]]
        rows[lead] /= rows[lead, column]
        others = np.arange(len(rows)) != lead
        rows[others] -= np.outer(rows[others, column], rows[lead])
        lead += 1
    return np.asarray(np.where(np.abs(rows[:lead]) < 1e-6, 0.0, rows[:lead]).T)
