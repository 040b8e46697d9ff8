"""Running torch models, with a float64 copy as reference."""

from __future__ import annotations

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
from graphnorm.errors import RunError
from graphnorm.frontends.torch.tensors import to_numpy, to_tensor
from graphnorm.verification.run_errors import reason
from graphnorm.verification.runner import OWN_RUN, Reference
from graphnorm.verification.torch.double_kernels import DoubleKernels
from graphnorm.verification.torch.errors import running
from graphnorm.verification.torch.places import PLACEMENT_ERRORS, placed, places
from graphnorm.verification.torch.precision import SAID, measuring
from graphnorm.verification.torch.shaking import Shaking
from graphnorm.verification.torch.sharing import WriteGuard, is_large


class TorchRunner:
    """Runs a copy of a module on a device; inputs and outputs are NumPy arrays.

    Args:
        model: module or exported program; it is copied, so running statistics of the caller's stay.
        example: ``(args, kwargs)`` whose tensor leaves the arrays replace, in order.
        device: ``auto`` (where the model lies), ``cpu``, ``cuda:1``, a `torch.device`...
        double: run in float64.
        own: copy the parameters, however large.
        order: places of the results among the tensors that the model returns; None: all, as they are.
    """

    tiny = 2.0  # the result itself is rounded, and so is the sum before it

    def __init__(
        self,
        model: Any,
        example: tuple[Any, Any],
        device: Any = "auto",
        double: bool = False,
        own: bool = False,
        order: Sequence[int] | None = None,
    ) -> None:
        self._model, self._example, self._double, self._order = model, example, double, order
        self._stand_ins, self._own = False, own
        self._moved_remarks: list[str] = []
        found = places(model, str(device))
        self._left = found[:1] if double else found  # `reference` decides where else to run in float64
        self._module: nn.Module = self._settled(None)

    def _settled(self, cause: Exception | None) -> nn.Module:
        """The module on the next device that accepts it; `cause` is why the last one did not."""
        while True:
            self._place = self._left.pop(0)
            self.device = self._place.device
            precision = "float64" if self._double else SAID
            self.runtime = f"torch {torch.__version__} on {self.device} ({precision})"
            try:
                found = self._copied()
            except PLACEMENT_ERRORS as error:
                if not self._left:
                    raise
                cause = error
                continue
            if self._place.remark:
                why = "" if cause is None else f" ({reason(cause)})"
                self._moved_remarks.append(self._place.remark + why)
            return found

    def _copied(self) -> nn.Module:
        here = not self._place.moves and isinstance(self._model, nn.Module)
        self._shares = here and not self._own and is_large(self._model)
        return placed(self._model, self._place, self._double, self._shares)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What differs from the request."""
        gpu = torch.device(self.device).type == "cuda" and not self._double
        told = [f"measured on {self.device} with {SAID}"] if gpu else []
        return (*self._moved_remarks, *told)

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
        with running(self._module, {f"input {i}": array for i, array in enumerate(inputs)}):
            try:
                return self._outputs(inputs, mode)
            except RuntimeError as error:
                if not self._left:
                    raise
                before = self._module, self._place, self._left, self.device, self._moved_remarks
                self._moved_remarks = [*self._moved_remarks]
                self._left = [*self._left]
                self._module = self._settled(error)
                try:
                    return self._outputs(inputs, mode)
                except RuntimeError:  # the device is not the cause
                    self._module, self._place, self._left, self.device, self._moved_remarks = before
                    raise error from None

    def _outputs(self, inputs: Sequence[ir.Array], mode: AbstractContextManager[Any]) -> list[ir.Array]:
        if self._shares and not self._own:
            try:
                with WriteGuard(self._module):
                    return self._converted(inputs, mode)
            except (RuntimeError, RunError):  # it writes to parameters, or reads those of other parts
                self._own = True
                self._module = self._copied()
        return self._converted(inputs, mode)

    def _converted(self, inputs: Sequence[ir.Array], mode: AbstractContextManager[Any]) -> list[ir.Array]:
        leaves, structure = tree_flatten(self._example)
        fill = iter(inputs)
        filled = [self._tensor(next(fill)) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(filled, structure)
        try:
            outputs = self._called(args, kwargs, mode)
        except RuntimeError:
            if not self._double or self._stand_ins:
                raise
            self._stand_ins = True  # not from the start: loops refuse to run in a dispatch mode
            outputs = self._called(args, kwargs, mode)
        return [to_numpy(leaf) for leaf in self._tensors(outputs)]

    def _tensors(self, outputs: Any) -> list[torch.Tensor]:
        found = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
        return found if self._order is None else [found[place] for place in self._order]

    def _called(self, args: Any, kwargs: Any, mode: AbstractContextManager[Any]) -> Any:
        kernels = DoubleKernels() if self._stand_ins else nullcontext()  # type: ignore[no-untyped-call]
        with measuring(self.device), torch.no_grad(), kernels, mode:  # dropout is the same in both models
            return self._module(*args, **kwargs)

    def reference(self) -> Reference:
        """The same model in float64; on the CPU where its device has no float64, or not the memory for it."""
        try:
            return Reference(self._again(self._asked(), double=True), "float64")
        except PLACEMENT_ERRORS as error:
            said = f"no float64 run of the model on {self.device} ({reason(error)})"
        if self._place.moves or self.device != "cpu":
            try:
                anchor = self._again("cpu", double=True)
                return Reference(anchor, "float64 on the CPU", remark=f"{said}: it is on the CPU")
            except PLACEMENT_ERRORS as error:
                said = f"{said}, nor on the CPU ({reason(error)})"
        return Reference(None, OWN_RUN, remark=said)

    def _again(self, device: str, double: bool, own: bool = False) -> TorchRunner:
        return TorchRunner(self._model, self._example, device, double, own, self._order)

    def _asked(self) -> str:
        return self.device if self._place.moves else "auto"

    def nearby(self, seed: int, size: float | None) -> TorchRunner:
        """The same module with matrices and kernels moved at random; vectors are only rounded at random."""
        runner = self._again(self._asked(), self._double, own=True)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensor in runner._module.parameters():
                if (tensor.ndim > 1 or size is None) and tensor.is_floating_point():
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
        with measuring(self.device), torch.enable_grad():
            found = self._tensors(self._module(*args, **kwargs))
        return [leaf for leaf in found if leaf.is_floating_point()]

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
        others = [tensor.to(self._second.device) for tensor in tensors]
        pairs = zip(self._first.outputs(tensors), self._second.outputs(others), strict=True)
        terms = [
            (a - b.to(a.device)).double().norm() / a.detach().double().norm().clamp_min(1e-30)
            for a, b in pairs
        ]
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
    with running(program.graph_module, named), measuring("cpu"), torch.no_grad():
        Recorder(program.graph_module).run(*arguments)
    return found
