"""Tiny networks by family of rules, each with the inputs that it takes."""

from __future__ import annotations

from tests.support.networks import (
    arithmetic,
    attention,
    convolution,
    gating,
    normalisation,
    parametrised,
    recurrent,
    sampling,
    selection,
)
from tests.support.networks.common import Inputs, Network

__all__ = ["FAMILIES", "MISSING", "NETWORKS", "Inputs", "Network"]

FAMILIES = (
    arithmetic, convolution, attention, gating, normalisation, parametrised, selection, sampling, recurrent
)  # fmt: skip
NETWORKS: dict[str, Network] = {
    name: network for family in FAMILIES for name, network in family.NETWORKS.items()
}

# True but missing, with the reason.
MISSING: dict[str, str] = {
    "weight_standardised_no_epsilon": "rows of a weight that is divided by their own norm move together",
}
