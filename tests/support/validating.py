"""What tests of the validating tool share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from graphnorm.ir import Node
from graphnorm.scales.context import Context
from graphnorm.scales.registry import Apply, Registry, Rule
from graphnorm.scales.rules.table import default_registry
from tools.validation.families import GENERATORS
from tools.validation.judge import Verdict, operators, validate

REGISTRY = default_registry()
WITH_CASES = [op for op in operators(REGISTRY) if op in GENERATORS]


@contextmanager
def quiet() -> Iterator[None]:
    """Divisions by 0 are part of the game, and threads cost more than they give on tensors this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with np.errstate(all="ignore"):
        yield
    torch.set_num_threads(threads)


def findings(op: str, count: int, seed: int = 0, registry: Registry = REGISTRY) -> list[Verdict]:
    verdicts = [validate(op, seed, index, registry) for index in range(count)]
    return [verdict for verdict in verdicts if verdict.is_finding]


def texts(found: list[Verdict]) -> str:
    return "\n".join(f"{verdict.kind}: {verdict.text}\n  {verdict.command}" for verdict in found)


def homogeneous(ctx: Context, node: Node) -> None:
    """A wrong rule for most operators: the scale passes."""
    ctx.set(node.outputs[0], ctx.labels(node.inputs[0]))


def planted(op: str, apply: Apply) -> Registry:
    """All rules, with another one for `op`."""
    return REGISTRY.replaced(Rule("planted", apply, "planted"), op)
