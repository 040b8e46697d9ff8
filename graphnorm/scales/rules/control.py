"""Operators that are known to fix what they touch, with the reason why."""

from __future__ import annotations

from graphnorm.scales.registry import Rule
from graphnorm.scales.rules.elementwise import fixed

RULES = (
    Rule(("If", "Loop", "Scan", "SequenceMap"), "0 -> 0", fixed, "fixed", "body of a control-flow operator"),
)
