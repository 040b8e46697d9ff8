"""ENorm: after an optimizer step, one cycle towards the rescaling-equivalent weights of least norm.

    z <- cycle(|w|^p),    w <- d w,    state <- d ** exponent * state,    d = exp(forms of z)

The function does not change, in training mode or in evaluation mode (Stock et al. 2019, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from graphnorm.errors import InputError
from graphnorm.training.checks import Mark, check_moving, mark_of
from graphnorm.training.compiled import CompiledStep, Moving
from graphnorm.training.forms import Forms
from graphnorm.training.options import Options
from graphnorm.training.parts import cut_into_parts
from graphnorm.training.state import StateTable, parameters_of
from graphnorm.training.symmetry import Symmetries, find_symmetries
from graphnorm.training.weights import Weights, plain_module, ties
from graphnorm.util.callers_state import kept_filters

"""Where a tensor's entries are in memory."""


class ENorm:
    """Equi-normalization during training.

    >>> import torch, graphnorm
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> enorm = graphnorm.ENorm(model, optimizer, torch.randn(3, 4))
    >>> for _ in range(3):
    ...     model(torch.randn(5, 4)).square().mean().backward()
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    ...     enorm.step()

    Call ``step()`` after the optimizer's, best after ``zero_grad()``: gradients that are still there are
    moved along, which costs time.  Parameters that have ``requires_grad=False``, or are in no given
    optimizer, are never touched.

    Args:
        model: the network; DDP, FSDP2 and ``torch.compile`` wrappers are looked through.
        optimizer: the optimizer, or several.
        example_inputs: positional inputs to trace with, or `Symmetries` that were found before (needed for
            sharded models, whose parameters cannot be traced).
        p: see `Options`, as the following ones.
        c: asymmetry.
        cycles: sweeps per step.
        every: calls of ``step()`` per rescaling.
        order: ``layers`` or ``colours``.
        max_coefficient: bound per step.
        compile: fuse by ``torch.compile``.
        exact: coefficients are powers of two.
        kwargs: keyword inputs to trace with.
        state: state key -> exponent, for optimizers that graphnorm does not know (`training.state`).

    Raises:
        InputError: options, model or optimizer cannot be taken.
    """

    @kept_filters()
    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        example_inputs: Any,
        p: float = 2.0,
        c: float = 1.0,
        cycles: int = 1,
        every: int = 1,
        *,
        order: str = "layers",
        max_coefficient: float | None = None,
        compile: bool = False,
        exact: bool = False,
        kwargs: Mapping[str, Any] | None = None,
        state: Mapping[str, float] | None = None,
    ) -> None:
        self.options = Options(p, c, cycles, every, order, max_coefficient, compile, exact)
        self.options.check()
        self.model = plain_module(model)
        self._optimizers = [StateTable(one, state) for one in _optimizers(optimizer)]
        self._tables = _tables(self._optimizers)
        if not any(id(parameter) in self._tables for parameter in self.model.parameters()):
            raise InputError(
                f"no optimizer holds a parameter of {type(self.model).__name__}: give the one that trains "
                "it, made after the model was moved or wrapped"
            )
        self._flags = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        self._modules = list(self.model.modules())
        self._children = [(m, list(m._modules.values())) for m in self._modules]
        self._parameters = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        if isinstance(example_inputs, Symmetries):
            self.symmetries = example_inputs
        elif any(hasattr(parameter, "placements") for parameter in self.model.parameters()):
            raise InputError(
                "sharded parameters cannot be traced: call find_symmetries (of graphnorm.training.symmetry) "
                "before fully_shard(), and give the result in place of example_inputs"
            )
        else:
            self.symmetries = find_symmetries(self.model, example_inputs, kwargs, self._trained())
        if left := sorted((self._parameters & self.symmetries.shapes.keys()) - self._trained()):
            raise InputError(
                f"{left[0]!r} is in no optimizer or does not require gradients, but the given symmetries "
                "move it: find them with movable=..."
            )
        self._weights = Weights(self.model, self.symmetries.shapes)
        self._copies: list[Weights] = []
        self._calls = 0
        self._forms = Forms(self.symmetries.count)
        self._parts = cut_into_parts(self.symmetries, self._forms)
        self._compiled: tuple[list[tuple[Tensor, Mark]], CompiledStep] | None = None

    def register_copy(self, model: nn.Module) -> None:
        """Rescale another model of the same structure (an average of the weights) with the same coefficients.

        Raises:
            InputError: a weight is missing or has another shape, shares memory with one that is rescaled
                already, or is not tied as in the model.
        """
        plain = plain_module(model)
        copied = Weights(plain, self.symmetries.shapes)
        known = {_storage(tensor) for one in (self._weights, *self._copies) for _, tensor in one} - {0}
        for name, tensor in copied:
            if _storage(tensor) in known:
                raise InputError(f"{name!r} of the copy shares its memory with a weight that moves already")
        if ties(plain) != ties(self.model):
            raise InputError("the copy does not tie the same weights as the model")
        self._copies.append(copied)
        self._compiled = None

    @torch.no_grad()
    def step(self) -> None:
        """Rescale weights, optimizer state, pending gradients and registered copies; keep the function.

        All is checked before the first multiplication: a step that raises has changed nothing.

        Raises:
            InputError: modules changed their mode or ``requires_grad`` since the network was traced, the
                optimizer has a state tensor that is not known, or a tensor's shape, device or memory does not
                fit.
        """
        if (self._calls + 1) % self.options.every == 0:
            self._check_unchanged()
            compiled = self._compile()
            limit = self.options.max_coefficient
            compiled.run(None if limit is None else math.log(limit))
        self._calls += 1

    @torch.no_grad()
    def energy(self) -> float:
        """Phi: the sum of lambda |w|^p over the weights that the objective counts and that may move."""
        return self._compile().energy()

    def state_dict(self) -> dict[str, Any]:
        """What is needed to resume exactly: the number of calls, and the options."""
        return {"calls": self._calls, "options": vars(self.options).copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume.

        Raises:
            InputError: the state is of an ENorm with other options.
        """
        given = dict(state["options"])
        if given != vars(self.options):
            raise InputError(f"this state is of ENorm with {given}, not {vars(self.options)}")
        self._calls = int(state["calls"])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_tables": None, "_compiled": None}  # of this model's own tensors

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._tables = _tables(self._optimizers)

    def _check_unchanged(self) -> None:
        if any(list(module._modules.values()) != children for module, children in self._children):
            raise InputError("modules were added, removed or replaced since ENorm was made; make a new ENorm")
        mode = tuple([module.training for module in self._modules])
        if mode not in self.symmetries.modes:
            known = self.symmetries.modes[0]
            names = {id(module): name for name, module in self.model.named_modules()}
            other = next(m for m, a, b in zip(self._modules, mode, known, strict=True) if a != b)
            raise InputError(
                f"module {names[id(other)]!r} is in another mode than when the network was traced; set all "
                "modes, then make a new ENorm"
            )
        for parameter, before in self._flags:
            if parameter.requires_grad != before:
                name = next(n for n, p in self.model.named_parameters() if p is parameter)
                raise InputError(f"{name!r}: requires_grad changed since ENorm was made; make a new ENorm")

    def _trained(self) -> set[str]:
        """Names of the parameters that an optimizer changes."""
        named = self.model.named_parameters(remove_duplicate=False)
        return {name for name, tensor in named if tensor.requires_grad and id(tensor) in self._tables}

    def _moving(self) -> Iterator[Moving]:
        for name, tensor in self._weights:
            yield name, tensor, 1.0
            tables = self._tables.get(id(tensor), [])
            for table in tables:
                for moving, exponent in table.tensors(tensor, name):
                    yield name, moving, exponent
            if not tables and name in self._parameters:
                raise InputError(
                    f"parameter {name!r} is not the one that was given to the optimizer; if the model is "
                    "sharded, reshard it first (model.reshard())"
                )
            if tensor.grad is not None:
                yield name, tensor.grad, -1.0
        for copied in self._copies:
            for name, tensor in copied:
                yield name, tensor, 1.0

    def _compile(self) -> CompiledStep:
        """The compiled step; rebuilt if any tensor was replaced."""
        for table in self._optimizers:
            table.check_keys()
        now = list(self._moving())
        marks = [(tensor, mark_of(tensor)) for _, tensor, _ in now]
        if self._compiled is not None:
            old = self._compiled[0]
            if len(old) == len(marks) and all(
                a is b and x == y for (a, x), (b, y) in zip(old, marks, strict=True)
            ):
                return self._compiled[1]
        check_moving(now, self.symmetries.shapes)
        options = self.options
        made = CompiledStep(
            self._forms,
            self._parts,
            self.symmetries.groups,
            dict(self._weights),
            now,
            options.p,
            options.c,
            options.order,
            options.cycles,
            options.compile,
            options.exact,
        )
        self._compiled = (marks, made)
        return made


def _optimizers(given: object) -> list[Optimizer]:
    """The optimizers of an argument: one, or several."""
    several = [given] if isinstance(given, Optimizer) else given
    found: list[Optimizer] = []
    for one in several if isinstance(several, Iterable) else [several]:
        if not isinstance(one, Optimizer):
            raise InputError(
                f"expected a torch.optim.Optimizer or several of them, got {type(one).__name__}; of a "
                "scheduler, give its optimizer"
            )
        found.append(one)
    return found


def _tables(optimizers: Sequence[StateTable]) -> dict[int, list[StateTable]]:
    """Parameter's id -> its optimizers."""
    found: dict[int, list[StateTable]] = {}
    for table in optimizers:
        for parameter in parameters_of(table.optimizer):
            found.setdefault(id(parameter), []).append(table)
    return found


def _storage(tensor: Tensor) -> int:
    """The address of a tensor's memory; 0 of an empty shard."""
    return int(getattr(tensor, "_local_tensor", tensor).untyped_storage().data_ptr())
