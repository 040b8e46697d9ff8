"""What a small transformers model is made of: classes by name, configuration values, inputs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY = 99
Make = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration class of transformers and its arguments, which may be configurations too."""

    name: str
    values: Mapping[str, Any]

    def build(self) -> Any:
        import transformers

        values = {key: v.build() if isinstance(v, Config) else v for key, v in self.values.items()}
        return getattr(transformers, self.name)(**values)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model class (``NAME`` of transformers, or ``module:NAME``), its configuration and its inputs."""

    model: str
    config: Config
    inputs: Mapping[str, Make]
    attention: str = ""  # the default implementation, or ``eager``

    def build(self) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        """A model with random weights and its inputs."""
        module, _, name = self.model.rpartition(":")
        config = self.config.build()
        if self.attention:
            config._attn_implementation = self.attention
        model = getattr(importlib.import_module(module or "transformers"), name)(config)
        return model, (), {key: make() for key, make in self.inputs.items()}


def tokens(vocabulary: int = VOCABULARY) -> Make:
    """Token ids (2, 16) above the special ones."""
    return lambda: torch.randint(3, vocabulary, (2, 16))


def ones() -> Make:
    """An attention mask (2, 16) that hides nothing."""
    return lambda: torch.ones(2, 16, dtype=torch.long)


def image(side: int) -> Make:
    return noise(2, 3, side, side)


def noise(*shape: int) -> Make:
    return lambda: torch.randn(*shape)


SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENCODER = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64,
}  # fmt: skip
VISION = {
    "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64,
}  # fmt: skip
