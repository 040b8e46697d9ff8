"""The flat graph: bodies of control flow connected to the main graph by operators of graphnorm's own.

    If     Choice(condition, then, else) -> result
    Loop,  Control(trip count, condition) -> iteration number, condition
    Scan   State(initial value) -> value at the start of an iteration
           Iterate(sequence) -> its element
           Carried(value at the start, value at the end) -> final value
           Stack(element) -> result along a new axis

Nodes on sequences are replaced by nodes on their elements where those are the same at all sizes. A branch
that the condition is known to exclude is omitted, and its weights are not changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from graphnorm.frontends.onnx.bodies import Body, Branches, Repetition
from graphnorm.frontends.onnx.evaluate import evaluate
from graphnorm.frontends.onnx.evaluation import Rewriting
from graphnorm.frontends.onnx.regions import enter
from graphnorm.frontends.onnx.rewriting import numbers
from graphnorm.frontends.onnx.sizes import Sized
from graphnorm.frontends.onnx.steps import Step
from graphnorm.frontends.onnx.tensors import Tensors
from graphnorm.frontends.onnx.variation import Variation


@dataclass(frozen=True)
class Glue:
    """An operator between a body and the graph around it; `origin` is the node that the body is in."""

    op: str
    operands: tuple[str, ...]
    results: tuple[str, ...]
    origin: Step
    attributes: Mapping[str, int] = field(default_factory=dict)
    captured: tuple[str, ...] = ()
    may_fold: bool = False


class FlatGraph:
    """Steps in topological order, without control flow, and the tensors that they read.

    Attributes:
        spare: results that are dropped unless something reads them: sequences and their elements.
    """

    def __init__(self, steps: Iterable[Step], tensors: Tensors, sized: Sized) -> None:
        self.steps: list[Step | Glue] = []
        self.tensors = Tensors()
        self.spare: set[str] = set()
        self.tensors.include(tensors)
        self._sized = sized
        self._variation = Variation(sized)
        self._add(steps)

    def is_constant(self, name: str) -> bool:
        """Whether a known array is known at all sizes, or known to change with them.

        One that was the same at the sizes tried may still change at another (``length > 1000``).
        """
        return self._sized.changes(name) or self._variation.is_fixed(name)

    def is_fixed(self, name: str) -> bool:
        """Whether a value is one known array at all sizes."""
        return self._variation.is_fixed(name)

    def _add(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, Branches):
                self._add_branches(step)
            elif isinstance(step, Repetition):
                self._add_repetition(step)
            else:
                self._add_step(step)

    def _add_step(self, step: Step) -> None:
        rewriting = self._settled_rewriting(step)
        if rewriting is None:
            self._append(step)
            return
        if rewriting.elements is not None:  # other nodes may need the sequence itself
            self._append(step)
            self.spare.update(step.results, *(made.results for made in rewriting.steps))
        elif not rewriting.steps:  # a number, the same at all sizes
            self.steps.append(step)
        for made in rewriting.steps:
            self._append(made)

    def _append(self, step: Step) -> None:
        self.steps.append(step)
        self._variation.add(step)

    def _settled_rewriting(self, step: Step) -> Rewriting | None:
        """The rewriting of a node on sequences, if it holds at all sizes."""
        first = self._sized.first
        found = first.rewritings.get("".join(step.results[:1]))
        if found is None or not all(self._variation.is_fixed(name) for name in numbers(step)):
            return None
        read = [name for name in step.operands if name in first.rewritings]
        if any(first.rewritings[name].elements is not None and name not in self.spare for name in read):
            return None  # made from a sequence that isn't the same at all sizes
        if not all(map(self._variation.has_fixed_rank, step.operands)):
            return None
        others = [other.rewritings.get(step.results[0]) for other in self._sized.others]
        return found if all(map(found.is_like, others)) else None

    def _add_body(self, body: Body) -> None:
        self.tensors.include(body.tensors)
        self._add(body.steps)

    def _add_branches(self, step: Branches) -> None:
        condition = "".join(step.operands[:1])
        if self._variation.is_settled(condition):
            taken = step.branches[0 if self._sized.first.known[condition].item() else 1]
            self._add_body(taken)
            for inside, result in zip(taken.outputs, step.results, strict=True):
                if result:
                    self._glue(step, "Identity", [inside], [result])
            return
        for branch in step.branches:
            self._evaluate(branch)
            self._add_body(branch)
        for index, result in enumerate(step.results):
            chosen = [branch.outputs[index] for branch in step.branches]
            if result:
                self._glue(step, "graphnorm::Choice", [condition, *chosen], [result])

    def _evaluate(self, branch: Body) -> None:
        """Types of a branch that the example sizes leave out, and others may take."""
        for state in self._sized.all:
            if any(name and name not in state.types for step in branch.steps for name in step.results):
                enter(branch, state, evaluate)

    def _add_repetition(self, step: Repetition) -> None:
        wiring = step.wiring
        if wiring.counters:
            self._glue(step, "graphnorm::Control", wiring.control, wiring.counters)
        for initial, inside, _, _ in wiring.states:
            self._glue(step, "graphnorm::State", [initial], [inside])
        for sequence, inside, axis in wiring.sequences:
            self._glue(step, "graphnorm::Iterate", [sequence], [inside], axis=axis)
        self._add_body(step.repeated)
        if wiring.proceed:
            self._glue(step, "graphnorm::Control", [wiring.proceed], [])
        for _, inside, following, result in wiring.states:
            self._glue(step, "graphnorm::Carried", [inside, following], [result])
        for element, result, axis in wiring.stacks:
            if result:
                self._glue(step, "graphnorm::Stack", [element], [result], axis=axis)

    def _glue(
        self, origin: Step, op: str, operands: Iterable[str], results: Iterable[str], **attributes: int
    ) -> None:
        glue = Glue(op, tuple(operands), tuple(results), origin, attributes)
        self.steps.append(glue)
        if op == "graphnorm::Choice":
            self._variation.follow(glue.operands[1:], glue.results, choice=True)
        else:
            self._variation.follow(glue.operands, glue.results)
