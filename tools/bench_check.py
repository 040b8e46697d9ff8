"""Time of a proof against the time of copying the weights and tracing the network.

    python -m tools.bench_check [MODEL] [--repeats N]

B is A with random coefficients from 1/1000 to 1000 and all free hidden channels permuted at random.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import numpy as np
from rich import print as show

from graphnorm.api.sources import open_model
from graphnorm.cli.models.zoo import build_module
from graphnorm.emission.torch_module import rescale_torch
from graphnorm.proof.prove import attempt
from tests.support.equivalents import equivalent_weights


def main() -> None:
    """Print one line of figures, medians over the repetitions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="torchvision:resnet50")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    home, _, name = options.model.partition(":")
    built = build_module(home, name, seed=0)
    model = built.module.eval()
    import torch

    example = torch.randn(1, 3, 224, 224)
    weights = equivalent_weights(open_model(model, example).network, 1, math.log(1e3))
    other = rescale_torch(model, weights)
    times: dict[str, list[float]] = {"copy": [], "trace": [], "proof": []}
    for _ in range(options.repeats):
        start = time.perf_counter()
        first = open_model(model, example).network
        times["trace"].append(time.perf_counter() - start)
        second = open_model(other, example).network
        start = time.perf_counter()
        copied = {name: np.array(array) for name, array in first.weights.items()}
        times["copy"].append(time.perf_counter() - start)
        start = time.perf_counter()
        found = attempt(first, second)
        times["proof"].append(time.perf_counter() - start)
        assert found.proof is not None, found.note
        assert copied
    copy, trace, proof = (statistics.median(values) for values in times.values())
    permuted = len(found.proof.permutation) if found.proof is not None else 0
    show(
        f"{options.model}: copy {copy:.3f} s, trace {trace:.2f} s, proof {proof:.2f} s, "
        f"ratio {proof / (copy + trace):.2f}; {permuted} groups permuted"
    )


if __name__ == "__main__":
    main()
