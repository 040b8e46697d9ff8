"""The certified gap, integer descent, streamed masses and torch against NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import graphnorm
from graphnorm.rescaling.objective import build_problem
from graphnorm.solver.arrays import NumpyArrays
from graphnorm.solver.descent import Descent
from graphnorm.solver.gap import _kappa, relative_gap
from graphnorm.solver.problem import Problem, objective
from graphnorm.solver.rounding import best_moves, integer_descent
from graphnorm.solver.solve import hold, solve, touched
from graphnorm.solver.streamed import Streamed
from graphnorm.util.typing import Floats
from tests.support.solver_problems import chain, mixed, reference, residual

PROBLEMS = {"chain": chain([3, 4, 5, 2]), "mixed": mixed(0), "residual": residual(0), "p1": mixed(3, p=1.0)}


def at_point(found: Problem, z: Floats) -> Descent:
    at = Descent(found, touched(found), NumpyArrays(), np.zeros(found.count))
    at.move_to(z)
    return at


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("distance", [1e-2, 1e-3, 1e-5])
def test_gap_bounds_the_true_gap_and_is_tight(name: str, distance: float) -> None:
    found = PROBLEMS[name]
    best, least = reference(found)
    for seed in range(5):
        z = best + distance * np.random.default_rng(seed).normal(size=found.count)
        true = objective(found, z) / least - 1
        certified = relative_gap(at_point(found, z))
        assert certified >= true * (1 - 1e-6) - 1e-14
        assert certified <= 1.2 * true + 1e-14


def test_gap_is_infinite_far_away() -> None:
    found = PROBLEMS["chain"]
    assert relative_gap(at_point(found, np.full(found.count, 5.0))) == np.inf


def test_kappa_is_the_ratio_it_says() -> None:
    for largest in (1e-2, 0.3, 0.9):
        t = np.linspace(-largest, largest, 1001)
        t = t[t != 0]
        ratio = ((1 + t) * np.log1p(t) - t) / t**2
        assert _kappa(largest) >= ratio.max() * (1 - 1e-12)
        assert _kappa(largest) <= ratio.max() * (1 + 1e-3)
    assert _kappa(1e-4) == pytest.approx(0.5, abs=1e-4)


def test_stops_at_a_wanted_gap() -> None:
    found = chain([8] * 12)
    loose = solve(found, tol=1.0, gap=1e-3)
    tight = solve(found, tol=1.0, gap=1e-12)
    assert loose.gap is not None
    assert tight.gap is not None
    assert loose.gap <= 1e-3
    assert tight.gap <= 1e-12
    assert loose.cycles < tight.cycles
    assert loose.after >= tight.after


@pytest.mark.parametrize("name", ["chain", "mixed", "residual"])
def test_integer_descent_reaches_a_coordinate_minimum(name: str) -> None:
    found = PROBLEMS[name]
    unit = np.full(found.count, np.log(2.0))
    optimum = solve(found)
    start = np.rint(optimum.z / unit) * unit
    z, value = integer_descent(found, start, unit, touched(found))
    assert np.abs(z / unit - np.rint(z / unit)).max() < 1e-12
    assert value == pytest.approx(objective(found, z))
    assert optimum.after <= value <= objective(found, start) * (1 + 1e-12)
    for variable, move in itertools.product(range(found.count), (-1, 1)):
        other = z.copy()
        other[variable] += move * unit[variable]
        assert objective(found, other) >= value * (1 - 1e-9)


def test_best_moves_are_the_best_of_all_integers() -> None:
    rng = np.random.default_rng(0)
    rising, falling = np.exp(rng.normal(size=(2, 200)) * 4)
    spacing = rng.uniform(0.5, 3.0, size=200)
    found = best_moves(rising, falling, spacing)
    k = np.arange(-40, 41)[:, None]
    cost = rising * np.exp(k * spacing) + falling * np.exp(-k * spacing)
    assert (found == k[cost.argmin(axis=0), 0]).all()
    assert best_moves(np.zeros(1), np.ones(1), np.ones(1)) == 0  # nothing comes in: left alone


class Mixer(nn.Module):
    """Kernels, a depthwise kernel, gains, a flattened map and a projection read in parts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 16, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose2d(16, 6, 2, stride=2)
        self.head = nn.Linear(6 * 16 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.depthwise(torch.relu(self.stem(x))))
        h = torch.relu(self.norm(self.grouped(h)))
        return self.head(torch.relu(self.up(h)).flatten(1))


def traced(p: float = 2.0) -> Problem:
    torch.manual_seed(0)
    model = Mixer().eval()
    return build_problem(graphnorm.trace(model, (torch.randn(1, 3, 8, 8),)), p)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 4.0, np.inf])
def test_streamed_masses_are_the_held_ones(p: float) -> None:
    found = traced(p)
    assert sum(isinstance(block.mass, Streamed) for block in found.blocks) >= 3
    held = hold(found, np.dtype(np.float64), None)
    z = np.random.default_rng(0).normal(size=found.count) * 0.3
    assert objective(found, z) == pytest.approx(objective(held, z), rel=1e-12)
    streamed, kept = solve(found, memory=0), solve(found)
    assert streamed.converged
    assert kept.converged
    if np.isfinite(p):
        assert np.abs(streamed.z - kept.z).max() <= 1e-10


def test_memory_budget_streams_the_largest_layers() -> None:
    found = traced()
    layers = [block for block in found.blocks if isinstance(block.mass, Streamed)]
    sizes = {block.name: int(np.prod(block.mass.shape)) * 8 for block in layers}
    largest = max(sizes, key=lambda name: sizes[name])
    held = hold(found, np.dtype(np.float64), sum(sizes.values()) - sizes[largest])
    assert {block.name for block in held.blocks if isinstance(block.mass, Streamed)} == {largest}


def test_single_precision_is_enough_for_its_tolerance() -> None:
    found = traced()
    rough, fine = solve(found, tol=1e-6, certify=True), solve(found, tol=1e-12)
    assert rough.converged
    assert np.abs(rough.z - fine.z).max() <= 1e-5
    assert rough.gap is not None
    assert rough.gap <= 1e-12


def _tiny(case: str) -> tuple[nn.Sequential, float]:
    """A network whose masses are below float32, and c."""
    torch.manual_seed(0)
    if case == "deep":
        deep = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(90)]
        return nn.Sequential(*deep, nn.Linear(4, 2)), 0.5
    linear = [nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)]
    first, middle, last = (layer.weight.data for layer in linear)
    if case == "row":
        first[2] *= 1e-25
    elif case == "layers":
        first *= 1e-25
        middle *= 1e25
    else:  # an entry, though its row and its column are in range
        middle[1] *= 1e-12
        last[:, 1] *= 1e12
        middle[:, 2] *= 1e-12
        first[2] *= 1e12
    return nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2]), 1.0


@pytest.mark.parametrize("case", ["deep", "row", "layers", "entry"])
def test_masses_below_single_precision_are_seen(case: str) -> None:
    model, c = _tiny(case)
    found = build_problem(graphnorm.trace(model, torch.randn(2, 4)), c=c)
    cycles: list[int] = []  # of a try in float32, too
    rough = solve(found, tol=1e-6, watch=lambda at, cycle, seen: cycles.append(cycle))
    assert not len(rough.degenerate)
    assert len(cycles) <= 20
    assert np.abs(rough.z - solve(found, tol=1e-10).z).max() <= 1e-4


@pytest.mark.parametrize("tol", [1e-6, 1e-10])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_torch_finds_what_numpy_finds(device: str, tol: float) -> None:
    for found in (traced(), *PROBLEMS.values()):
        on_device, on_host = solve(found, tol=tol, device=device, certify=True), solve(found, tol=tol)
        assert on_device.converged
        assert np.abs(on_device.z - on_host.z).max() <= 100 * tol
        assert on_device.gap is not None
        assert on_device.gap <= 1e-10
