"""transformers' architectures, each in a small configuration: depth and width change no operator."""

from __future__ import annotations

from typing import Any

from torch import nn

from tools.coverage.transformers_signal import SIGNAL_MODELS
from tools.coverage.transformers_text import TEXT_MODELS
from tools.coverage.transformers_vision import VISION_MODELS

ARCHITECTURES = {**TEXT_MODELS, **VISION_MODELS, **SIGNAL_MODELS}
NAMES = tuple(ARCHITECTURES)


def build(name: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """A model with random weights and its inputs."""
    return ARCHITECTURES[name].build()
