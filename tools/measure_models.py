"""Canonicalise real models and print a Markdown table.

`python tools/measure_models.py [MODEL ...] [--mode exact]`, MODEL as on the command line (`graphnorm
canonicalize --help`): files, timm:NAME, torchvision:NAME.  Torch models get random weights (seed 0) and
perturbed running statistics.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import graphnorm
from graphnorm.cli.models.zoo import build_module

DEFAULT = (
    "torchvision:resnet50", "torchvision:mobilenet_v2", "torchvision:densenet121", "torchvision:vgg16_bn",
    "torchvision:efficientnet_b0", "torchvision:shufflenet_v2_x0_5", "timm:vit_tiny_patch16_224",
)  # fmt: skip
HEADER = (
    "| model | dimension | sum of squares before | after | cycles | imbalance | verdict | bits | "
    "RMSE ratio | trace s | solve s |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def load(spec: str) -> tuple[Any, Any]:
    """The model and example inputs (None: chosen by the front end)."""
    import torch

    home, colon, name = spec.partition(":")
    if not colon:
        return spec, None
    built = build_module(home, name, seed=0)
    for key, buffer in built.module.named_buffers():
        if "running_mean" in key:
            buffer.normal_(0, 0.1)
        if "running_var" in key:
            buffer.uniform_(0.5, 1.5)
    return built.module.eval(), tuple(torch.randn(*shape.sizes) for shape in built.example.shapes)


def row(spec: str, mode: str) -> str:
    """One line of the table."""
    model, example = load(spec)
    report = graphnorm.canonicalize(model, example, mode=mode).report.to_dict()
    measured = report["verification"]["measurement"]
    before, after = report["objective"]["before"], report["objective"]["after"]
    return (
        f"| {Path(spec).name} | {report['dimension']} | {before:.5g} | "
        f"{after:.5g} ({after / before - 1:+.1%}) | {report['solver']['cycles']} | "
        f"{report['solver']['imbalance']:.0e} | {report['verification']['verdict']} | "
        f"{'same' if measured['bit_identical'] else 'rounded'} | {measured['rmse_ratio']:.2f} | "
        f"{report['seconds']['trace']:.1f} | {report['seconds']['solve']:.1f} |"
    )


def main() -> None:
    """Parse arguments, print the table line by line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=DEFAULT)
    parser.add_argument("--mode", choices=("optimal", "exact"), default="optimal")
    options = parser.parse_args()
    start = time.perf_counter()
    print(HEADER, flush=True)
    for spec in options.models:
        print(row(spec, options.mode), flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
