"""Language models of transformers that return a cache of keys and values (``config.use_cache``).

A cache as a result would pin the channels of keys and values, and ``torch.export`` cannot hold its class.
The logits are the same without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

REMARK = (
    "traced and run with config.use_cache = False (the model's own setting is kept): a cache of keys and "
    "values as a result would pin their channels"
)


def caching_configs(model: Any) -> list[Any]:
    """Configurations of a module's parts that ask for a cache, those inside others too."""
    if not isinstance(model, nn.Module):
        return []
    pending = [part.config for part in model.modules() if hasattr(part, "config")]
    found: dict[int, Any] = {}
    while pending:
        config = pending.pop()
        held = getattr(config, "__dict__", {})
        if id(config) not in found and "use_cache" in held:
            found[id(config)] = config
            pending += [item for item in held.values() if hasattr(item, "use_cache")]
    return [config for config in found.values() if config.use_cache is True]


@contextmanager
def without_cache(model: Any) -> Iterator[None]:
    """Switch caches off, and on again afterwards."""
    configs = caching_configs(model)
    for config in configs:
        config.use_cache = False
    try:
        yield
    finally:
        for config in configs:
            config.use_cache = True
