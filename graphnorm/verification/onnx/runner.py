"""Running ONNX models through onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime

from graphnorm import ir
from graphnorm.emission.onnx_file import rescale_onnx
from graphnorm.errors import InputError, RunError
from graphnorm.frontends.onnx.load import to_proto
from graphnorm.verification.onnx.errors import ONNXRUNTIME_ERRORS, diagnosis, running
from graphnorm.verification.onnx.float64 import Float64Runner
from graphnorm.verification.onnx.providers import (
    device_name,
    full_precision,
    pick_provider,
    provider_options,
    remarks_of,
)
from graphnorm.verification.onnx.slim import with_weights_as_inputs
from graphnorm.verification.runner import Reference

_PROTOBUF_LIMIT = 1_900_000_000
_COPIED = 64_000_000  # bytes of weights of which a session may hold copies
_CPU = "CPUExecutionProvider"


class OnnxRunner:
    """Runs an ONNX model with arrays in the order of the graph's inputs."""

    tiny = 16.0  # on and off may agree to the bit, and still a rescaled model rounds differently

    def __init__(
        self, model: onnx_ir.Model, network: ir.Graph, device: Any = "auto", optimise: bool = True
    ) -> None:
        self._model, self._network = model, network
        provider = pick_provider(str(device))
        self.device = device_name(provider, str(device))
        self.remarks = remarks_of(provider, self.device)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # a refusal is reported once, by the error
        options.use_deterministic_compute = True
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
        settings = (provider, provider_options(provider, str(device)))
        self._held: Mapping[str, onnx_ir.TensorProtocol] = {}
        with full_precision(provider):
            if provider == _CPU and _size(model) > _COPIED:
                self._session, self._held = _feeding_session(model, options, settings)
            else:
                self._session = _session(model, options, settings)
        used = self._session.get_providers()[0]
        if used != provider:
            raise InputError(f"onnxruntime offers {provider} and does not start it; use --device cpu")
        self.runtime = f"onnxruntime {onnxruntime.__version__} {used}"

    def run(self, inputs: Sequence[ir.Array]) -> list[ir.Array]:
        """All outputs; sequence and map outputs are flattened to their arrays."""
        feed = _feed(self._session, self._network, inputs)
        with running(feed), full_precision(self._session.get_providers()[0]):
            weights = {name: tensor.numpy() for name, tensor in self._held.items()}
            results = self._session.run(list(self._network.outputs), feed | weights)
            return [array for result in results for array in _arrays(result)]

    def reference(self) -> Reference:
        """The model in float64 where ONNX's reference implementation covers it, else unoptimised."""
        plain = OnnxRunner(self._model, self._network, self.device, optimise=False)
        try:
            return Reference(Float64Runner(self._model, self._network), "float64", (plain,), _UNOPTIMISED)
        except RunError:
            return Reference(None, _UNOPTIMISED, (plain,), _UNOPTIMISED)

    def nearby(self, seed: int, size: float | None) -> OnnxRunner:
        """The same graph with matrices and kernels moved at random; vectors are only rounded at random."""
        generator = np.random.default_rng(seed)
        moved: dict[str, ir.Array] = {}
        sizes = {name for node in self._network.nodes for name in _sizes_of(node, self._network)}
        for name, array in self._network.weights.items():
            if name not in sizes and (array.ndim > 1 or size is None):
                reach = ir.float_format(array.dtype).eps / 2 if size is None else size
                factor = 1 + reach * generator.uniform(-1, 1, array.shape)
                moved[name] = np.asarray(array.astype(np.float64) * factor).astype(array.dtype)
        return OnnxRunner(rescale_onnx(self._model, moved), self._network, self.device)


def _sizes_of(node: ir.Node, network: ir.Graph) -> tuple[str, ...]:
    """Operands that a node makes sizes or whole numbers of: rounding would change them."""
    if node.op in {"Resize", "Upsample"}:
        return node.inputs[1:]
    whole = node.op == "Cast" and not network.values[node.outputs[0]].is_float
    return node.inputs if whole or node.op == "Range" else ()


_UNOPTIMISED = "onnxruntime without graph optimisations"


def _feed(
    session: onnxruntime.InferenceSession, network: ir.Graph, inputs: Sequence[ir.Array]
) -> dict[str, ir.Array]:
    """Arrays by name, without those that only the other model takes."""
    taken = {value.name for value in session.get_inputs()}
    found = zip(network.inputs, inputs, strict=True)
    return {name: array for name, array in found if name in taken}


def _arrays(result: Any) -> list[ir.Array]:
    if isinstance(result, np.ndarray):
        return [result]
    if isinstance(result, dict):
        return [np.asarray(list(result.values()))]
    return (
        [array for item in result for array in _arrays(item)]
        if isinstance(result, list)
        else [np.asarray(result)]
    )


def _session(
    model: onnx_ir.Model, options: onnxruntime.SessionOptions, provider: tuple[str, dict[str, str]]
) -> onnxruntime.InferenceSession:
    try:
        if _size(model) < _PROTOBUF_LIMIT:
            return onnxruntime.InferenceSession(_inline(model), options, providers=[provider])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx_ir.save(model, path, external_data="model.onnx.data")
            return onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except ONNXRUNTIME_ERRORS as error:
        _, why = diagnosis(error)
        raise InputError(f"onnxruntime cannot load the model, so it cannot be measured: {why}") from error


def _size(model: onnx_ir.Model) -> int:
    """Bytes of the main graph's initializers."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)


def _feeding_session(
    model: onnx_ir.Model, options: onnxruntime.SessionOptions, provider: tuple[str, dict[str, str]]
) -> tuple[onnxruntime.InferenceSession, Mapping[str, onnx_ir.TensorProtocol]]:
    """A session to which large weights are fed, and these; one that holds them where kernels demand it."""
    proto, held = with_weights_as_inputs(model)
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=[provider])
    except ONNXRUNTIME_ERRORS:
        return _session(model, options, provider), {}
    return session, held


def _inline(model: onnx_ir.Model) -> bytes:
    """Serialised; models that are read hold all their tensors."""
    return bytes(to_proto(model).SerializeToString())


def hidden_values(model: onnx_ir.Model, network: ir.Graph, inputs: Sequence[ir.Array]) -> dict[str, ir.Array]:
    """Every float tensor that the model's main graph computes, by name."""
    proto = to_proto(model)
    present = {value.name for value in proto.graph.output}
    missing = {name for node in proto.graph.node for name in node.output} - present
    for node in network.nodes:
        for name in node.outputs:
            if name in missing and network.values[name].is_float:
                proto.graph.output.add().name = name
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with running(dict(zip(network.inputs, inputs, strict=True))):
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feed = _feed(session, network, inputs)
        names = [value.name for value in session.get_outputs()]
        results = session.run(names, feed)
    return {name: array for name, array in zip(names, results, strict=True) if isinstance(array, np.ndarray)}
