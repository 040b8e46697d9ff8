"""Table 1 of Stock et al. 2019: elements that a normalisation accesses in one training iteration.

    python -m tools.experiments.enorm_elements [--json PATH]

Read off the traced graph: ENorm accesses each weight that it balances once; BatchNorm and GroupNorm access
each entry of each normalised activation of the batch.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from graphnorm.api.sources import open_model
from graphnorm.training.symmetry import find_symmetries
from tools.experiments.networks import ResNet

NORMS = ("BatchNormalization", "GroupNormalization")
BLOCKS = {"ResNet-18": ((2, 2, 2, 2), False), "ResNet-50": ((3, 4, 6, 3), True)}
PAPER = {"ResNet-18": (12, 636, 40), "ResNet-50": (30, 2845, 178)}


def normalised_entries(model: nn.Module, x: torch.Tensor) -> int:
    """Entries of all normalised activations, for one image."""
    network = open_model(model, x).network
    found = 0
    for node in network.nodes:
        shape = network.values[node.inputs[0]].shape if node.op in NORMS else None
        if shape is not None:
            found += math.prod(shape[1:])
    return found


def balanced_weights(model: nn.Module, x: torch.Tensor) -> int:
    """Entries of the weights that ENorm's objective counts and that some rescaling moves."""
    symmetries = find_symmetries(model, x)
    names = {item.weight for item in symmetries.demands if item.role == "weight"}
    return sum(math.prod(symmetries.shapes[name]) for name in names)


def count(name: str) -> tuple[float, float, float]:
    """Millions of elements: ENorm, BatchNorm at batch 256, GroupNorm at batch 16."""
    blocks, bottleneck = BLOCKS[name]
    x = torch.zeros(2, 3, 224, 224)
    with torch.device("cpu"):
        entries = {
            norm: normalised_entries(ResNet(blocks, bottleneck, norm).train(), x)
            for norm in ("batch", "group")
        }
        own = balanced_weights(ResNet(blocks, bottleneck, "none"), x)
    return own / 1e6, 256 * entries["batch"] / 1e6, 16 * entries["group"] / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {name: count(name) for name in BLOCKS}
    table = Table("millions of elements", "ENorm", "BN, B = 256", "GN, B = 16", "the paper's")
    for name, numbers in found.items():
        table.add_row(name, *(f"{n:.1f}" for n in numbers), " / ".join(map(str, PAPER[name])))
    Console().print(table)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"millions": found, "paper": PAPER}, indent=1))


if __name__ == "__main__":
    main()
