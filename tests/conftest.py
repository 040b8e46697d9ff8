"""Random numbers are the same in each run, whichever tests are chosen."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  libraries that are tested draw from it
    torch.manual_seed(0)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Tables of inputs are drawn when their modules are imported."""
    if isinstance(collector, pytest.Module):
        _seed()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Weights and inputs are drawn in tests, from generators of their modules, too."""
    _seed()
    for drawn in vars(getattr(item, "module", None) or object).values():
        if isinstance(drawn, np.random.Generator):
            drawn.bit_generator.state = np.random.default_rng(0).bit_generator.state
