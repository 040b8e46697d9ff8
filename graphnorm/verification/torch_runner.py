"""Running torch models, with a float64 copy as anchor."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from graphnorm import ir
from graphnorm.emission.torch_module import named_tensors
from graphnorm.errors import InputError
from graphnorm.frontends.torch_caches import caching_configs
from graphnorm.frontends.torch_state import LOCK, alone
from graphnorm.frontends.torch_tensors import to_numpy, to_tensor
from graphnorm.verification.double_kernels import DoubleKernels
from graphnorm.verification.runner import Reference
from graphnorm.verification.shaking import Shaking
from graphnorm.verification.torch_errors import running


class TorchRunner:
    """Runs a copy of a module on a device; inputs and outputs are NumPy arrays.

    Args:
        model: module or exported program; it is copied, so running statistics of the caller's stay.
        example: ``(args, kwargs)`` whose tensor leaves the arrays replace, in order.
        device: ``auto``, ``cpu``, ``cuda``...
        double: run in float64.
    """

    tiny = 2.0

    def __init__(
        self, model: Any, example: tuple[Any, Any], device: str = "auto", double: bool = False
    ) -> None:
        self._model, self._example, self._double = model, example, double
        self._stand_ins = False
        self.device = pick_device(device)
        self.runtime = f"torch {torch.__version__} on {self.device}"
        module = model.module() if isinstance(model, ExportedProgram) else model
        with LOCK:  # no other thread is exporting the same module
            self._module: nn.Module = copy.deepcopy(module).to(self.device)
        for config in caching_configs(self._module):
            config.use_cache = False
        if double:
            self._module = self._module.double()

    def run(self, inputs: Sequence[ir.Array]) -> list[ir.Array]:
        """Tensor leaves of the model's output."""
        return self._run(inputs, nullcontext())

    def shaken(self, inputs: Sequence[ir.Array], unit: float, seed: int) -> list[ir.Array]:
        """Outputs where every float64 operand is moved at random by up to `unit`, relative.

        Raises:
            RunError: torch refuses to run the model in this way.
        """
        return self._run(inputs, Shaking(unit, seed))

    def _run(self, inputs: Sequence[ir.Array], mode: AbstractContextManager[Any]) -> list[ir.Array]:
        leaves, structure = tree_flatten(self._example)
        fill = iter(inputs)
        filled = [self._tensor(next(fill)) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(filled, structure)
        with running(self._module, {f"input {i}": array for i, array in enumerate(inputs)}):
            try:
                outputs = self._outputs(args, kwargs, mode)
            except RuntimeError:
                if not self._double or self._stand_ins:
                    raise
                self._stand_ins = True  # not from the start: loops refuse to run in a dispatch mode
                outputs = self._outputs(args, kwargs, mode)
        return [to_numpy(leaf) for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]

    def _outputs(self, args: Any, kwargs: Any, mode: AbstractContextManager[Any]) -> Any:
        kernels = DoubleKernels() if self._stand_ins else nullcontext()  # type: ignore[no-untyped-call]
        with alone(self.device), torch.no_grad(), kernels, mode:  # dropout in training falls alike in both
            return self._module(*args, **kwargs)

    def reference(self) -> Reference:
        """The same model in float64."""
        return Reference(TorchRunner(self._model, self._example, self.device, double=True), "float64")

    def nearby(self, seed: int, size: float | None) -> TorchRunner:
        """The same module with matrices and kernels moved at random."""
        runner = TorchRunner(self._model, self._example, self.device, self._double)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensor in runner._module.parameters():
                if tensor.ndim > 1 and tensor.is_floating_point():
                    reach = torch.finfo(tensor.dtype).eps / 2 if size is None else size
                    move = 2 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 1
                    tensor.copy_(tensor.double().cpu() * (1 + reach * move))
        runner._model = runner._module
        return runner

    def outputs(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Float tensor leaves of the output, with gradients."""
        leaves, structure = tree_flatten(self._example)
        fill = iter(tensors)
        filled = [next(fill) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(filled, structure)
        with alone(self.device), torch.enable_grad():
            found = tree_leaves(self._module(*args, **kwargs))
        return [leaf for leaf in found if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]

    def _tensor(self, array: ir.Array) -> torch.Tensor:
        tensor = to_tensor(array).to(self.device)
        return tensor.double() if self._double and tensor.is_floating_point() else tensor


class TorchClimb:
    """The gradient of two torch models' distance by their inputs, and a step of normalised ascent."""

    def __init__(self, first: TorchRunner, second: TorchRunner) -> None:
        self._first, self._second = first, second

    def ascend(self, arrays: Sequence[ir.Array], step: float) -> tuple[float, list[ir.Array]]:
        """|A(x) - B(x)| / |A(x)| and x moved uphill by `step` times its root mean square."""
        tensors = [to_tensor(array).to(self._first.device) for array in arrays]
        for tensor in tensors:
            tensor.requires_grad_(tensor.is_floating_point())
        pairs = zip(self._first.outputs(tensors), self._second.outputs(tensors), strict=True)
        terms = [(a - b).double().norm() / a.detach().double().norm().clamp_min(1e-30) for a, b in pairs]
        if not terms or not terms[0].requires_grad:
            return 0.0, list(arrays)
        total = torch.stack(terms).sum()
        floats = [tensor for tensor in tensors if tensor.requires_grad]
        slopes = iter(torch.autograd.grad(total, floats, allow_unused=True))
        moved: list[ir.Array] = []
        for tensor, array in zip(tensors, arrays, strict=True):
            slope = next(slopes) if tensor.requires_grad else None
            if slope is None or not torch.isfinite(slope).all() or not slope.any():
                moved.append(array)
                continue
            size = tensor.detach().square().mean().sqrt().clamp_min(1e-3)
            direction = slope / slope.square().mean().sqrt()
            moved.append(to_numpy((tensor + step * size * direction).detach()))
        return float(total.detach()), moved


def pick_device(device: str) -> str:
    """``auto`` is CUDA where torch offers it.

    Raises:
        InputError: the device doesn't exist.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {device!r}: this torch has no CUDA device; use --device cpu or auto")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"device {device!r}: torch cannot use it ({first}); use --device auto") from error
    return device


def hidden_values(program: ExportedProgram, model: Any, inputs: Sequence[ir.Array]) -> dict[str, ir.Array]:
    """Every float tensor that `program` computes with the weights of `model`, by node name."""
    found: dict[str, ir.Array] = {}
    tensors = named_tensors(model)
    fill = iter(inputs)
    arguments: list[Any] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            arguments.append(to_tensor(next(fill)) if isinstance(spec.arg, TensorArgument) else None)
        elif spec.target in tensors:
            arguments.append(tensors[spec.target].detach().cpu())
        else:
            arguments.append(program.constants[str(spec.target)])

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, torch.Tensor) and result.is_floating_point():
                found[n.name] = to_numpy(result).copy()
            return result

    named = {f"input {i}": array for i, array in enumerate(inputs)}
    with running(program.graph_module, named), alone(), torch.no_grad():
        Recorder(program.graph_module).run(*arguments)
    return found
