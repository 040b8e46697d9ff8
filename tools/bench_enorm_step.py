"""What an ENorm step costs, against what surrounds it in a training loop.

    python -m tools.bench_enorm_step [--network fc15 cifar_nv resnet18] [--repeat 20] [--json PATH]

Measured in one run, each figure the median over repetitions that take turns:

bare          read, scale and write of the weights and momenta that ENorm moves (``torch._foreach_mul_``)
enorm         `ENorm.step`
compiled      the same with ``compile=True``: one pass by Numba where it is installed
layered       the step written layer by layer as in algorithm 1 of the paper (plain chains only)
sgd           the optimizer's step, with momentum and weight decay
train         forward and backward
train BN, GN  the same with BatchNorm or GroupNorm layers

``cold``: before each timing a buffer larger than the caches is written, as a forward and backward pass would
do; ``warm``: the tensors may still lie in the cache.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

import graphnorm
from graphnorm.util.atomic import replacing
from tools.experiments.networks import CifarNV, ResNet, fully_connected

Make = Callable[[str], nn.Module]
NETWORKS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "fc15": (lambda norm: fully_connected(15, norm=norm), (3, 32, 32)),
    "cifar_nv": (lambda norm: CifarNV(norm=norm), (3, 32, 32)),
    "resnet18": (lambda norm: ResNet(norm=norm, stem=False, classes=10), (3, 32, 32)),
}
CHAINS = ("fc15", "cifar_nv")
FLUSH = 1 << 26  # bytes
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def layered(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Algorithm 1 of the paper on a chain, with its update of momenta, one operation after the other."""
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]

    @torch.no_grad()
    def step() -> None:
        for one, two in itertools.pairwise(layers):
            left = one.weight.flatten(1).norm(dim=1)
            right = two.weight.transpose(0, 1).flatten(1).norm(dim=1)
            d = torch.sqrt(right / left)
            for tensor, power in _with_momentum(optimizer, one.weight, 1):
                tensor.mul_((d**power).view(-1, *(1,) * (tensor.dim() - 1)))
            for tensor, power in _with_momentum(optimizer, one.bias, 1) if one.bias is not None else ():
                tensor.mul_(d**power)
            for tensor, power in _with_momentum(optimizer, two.weight, -1):
                tensor.mul_((d**power).view(1, -1, *(1,) * (tensor.dim() - 2)))

    return step


def _with_momentum(optimizer: torch.optim.Optimizer, weight: Tensor, power: int) -> list[tuple[Tensor, int]]:
    return [(weight, power), (optimizer.state[weight]["momentum_buffer"], -power)]


def training(model: nn.Module, x: Tensor) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad()
        model(x).log_softmax(1)[:, 0].mean().backward()

    return step


def measure(
    name: str, repeat: int, batch: int, every: int, order: str, clock: Callable[[], float], progress: Progress
) -> dict[str, float]:
    torch.manual_seed(0)
    make, size = NETWORKS[name]
    x = torch.randn(batch, *size)
    models = {norm: make(norm).train() for norm in ("none", "batch", "group")}
    model = models["batch" if name == "resnet18" else "none"]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    training(model, x)()
    optimizer.step()
    gradients = {p: p.grad for p in model.parameters()}
    enorm = graphnorm.ENorm(model, optimizer, x[:2], order=order)
    fused = graphnorm.ENorm(model, optimizer, x[:2], order=order, compile=True)
    moved = [
        tensor for name_, tensor, _ in enorm._moving() for _ in [name_] if tensor.dtype.is_floating_point
    ]
    moved = [tensor.detach() for tensor in moved if not any(tensor is g for g in gradients.values())]

    def sgd() -> None:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        optimizer.step()

    actions: dict[str, Callable[[], None]] = {
        "bare": lambda: torch._foreach_mul_(moved, 1.0),
        "enorm": enorm.step,
        "compiled": fused.step,
        "sgd": sgd,
    }
    if name in CHAINS:
        actions["layered"] = layered(model, optimizer)
    fast = {
        f"{key} {kind}": (action, kind == "cold")
        for kind in ("cold", "warm")
        for key, action in actions.items()
    }
    slow = {f"train {norm}": (training(models[norm], x), False) for norm in models}
    flush = torch.zeros(FLUSH // 4)
    found: dict[str, list[float]] = {}
    task = progress.add_task(name, total=repeat + every)
    for turn in range(repeat + every):
        for key, (action, cold) in (fast if turn < repeat else slow).items():
            optimizer.zero_grad()  # a pending gradient would be multiplied, too
            if cold:
                flush.add_(1.0)
            start = clock()
            action()
            found.setdefault(key, []).append(1e3 * (clock() - start))
        progress.advance(task)
    return {key: statistics.median(times[1:] or times) for key, times in found.items()} | {
        "parameters": float(sum(p.numel() for p in model.parameters()))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--repeat", type=int, default=20, help="turns of the fast measurements")
    parser.add_argument("--every", type=int, default=3, help="turns of forward and backward")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--order", default="layers", choices=("layers", "colours"))
    parser.add_argument(
        "--clock", default="wall", choices=list(CLOCKS), help="cpu: on a machine that others use"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    with Progress() as progress:
        for name in options.network:
            results[name] = measure(
                name,
                options.repeat,
                options.batch,
                options.every,
                options.order,
                CLOCKS[options.clock],
                progress,
            )
    show(results)
    if options.json:
        machine = {
            "machine": platform.processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        with replacing(options.json) as temporary:
            temporary.write_text(
                json.dumps({**machine, **vars(options), "json": "", "ms": results}, indent=1)
            )


def show(results: dict[str, dict[str, float]]) -> None:
    table = Table("milliseconds", *results)
    keys = list(dict.fromkeys(key for found in results.values() for key in found))
    for key in keys:
        table.add_row(key, *(f"{found[key]:.2f}" if key in found else "-" for found in results.values()))
    for kind, own, other in itertools.product(
        ("cold", "warm"), ("enorm", "compiled"), ("bare", "layered", "sgd")
    ):
        ratios = [
            f"{found[f'{own} {kind}'] / found[f'{other} {kind}']:.2f}" if f"{other} {kind}" in found else "-"
            for found in results.values()
        ]
        table.add_row(f"{own} / {other}, {kind}", *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
