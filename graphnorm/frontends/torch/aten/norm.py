"""ATen -> ONNX: normalisations.  An absent gain or bias is an absent operand."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from graphnorm.frontends.torch.call import Call, Unlowerable
from graphnorm.frontends.torch.registry import Lowerings
from graphnorm.ir import Value

TABLE = Lowerings()


@TABLE.lowers(
    "batch_norm", "_native_batch_norm_legit_functional", "_native_batch_norm_legit", "native_batch_norm",
    "cudnn_batch_norm", "miopen_batch_norm",
)  # fmt: skip
def batch_norm(
    call: Call,
    x: Value,
    gain: Value | None,
    bias: Value | None,
    mean: Value | None,
    var: Value | None,
    training: bool,
    momentum: float,
    epsilon: float,
    *_: object,
) -> None:
    call.out(
        "BatchNormalization", x, gain, bias, mean, var, epsilon=float(epsilon), training_mode=int(training)
    )


@TABLE.lowers("_native_batch_norm_legit_no_training", "_batch_norm_no_update")
def batch_norm_eval(
    call: Call,
    x: Value,
    gain: Value | None,
    bias: Value | None,
    mean: Value,
    var: Value,
    momentum: float,
    epsilon: float,
) -> None:
    batch_norm(call, x, gain, bias, mean, var, False, momentum, epsilon)


@TABLE.lowers("_batch_norm_with_update_functional")
def batch_norm_train(
    call: Call,
    x: Value,
    gain: Value | None,
    bias: Value | None,
    mean: Value,
    var: Value,
    momentum: float,
    epsilon: float,
) -> None:
    batch_norm(call, x, gain, bias, mean, var, True, momentum, epsilon)


@TABLE.lowers("_native_batch_norm_legit.no_stats")
def batch_norm_without_stats(
    call: Call,
    x: Value,
    gain: Value | None,
    bias: Value | None,
    training: bool,
    momentum: float,
    epsilon: float,
) -> None:
    batch_norm(call, x, gain, bias, None, None, training, momentum, epsilon)


@TABLE.lowers("instance_norm")
def instance_norm(
    call: Call,
    x: Value,
    gain: Value | None,
    bias: Value | None,
    mean: Value | None,
    var: Value | None,
    use_input_stats: bool,
    momentum: float,
    epsilon: float,
    *_: object,
) -> None:
    if not use_input_stats:
        batch_norm(call, x, gain, bias, mean, var, False, momentum, epsilon)
    elif mean is not None:
        raise Unlowerable  # updates its running statistics
    else:
        call.out("InstanceNormalization", x, gain, bias, epsilon=float(epsilon))


@TABLE.lowers("layer_norm", "native_layer_norm")
def layer_norm(
    call: Call,
    x: Value,
    shape: Sequence[int],
    gain: Value | None = None,
    bias: Value | None = None,
    epsilon: float = 1e-5,
    *_: object,
) -> None:
    call.out("LayerNormalization", x, gain, bias, axis=-len(shape), epsilon=float(epsilon))


@TABLE.lowers("rms_norm", "_fused_rms_norm")
def rms_norm(
    call: Call, x: Value, shape: Sequence[int], gain: Value | None = None, epsilon: float | None = None
) -> None:
    if epsilon is None:
        epsilon = torch.finfo(getattr(torch, x.dtype)).eps
    call.out("RMSNormalization", x, gain, axis=-len(shape), epsilon=float(epsilon))


@TABLE.lowers("group_norm")
def group_norm(
    call: Call,
    x: Value,
    groups: int,
    gain: Value | None = None,
    bias: Value | None = None,
    epsilon: float = 1e-5,
    *_: object,
) -> None:
    call.out("GroupNormalization", x, gain, bias, num_groups=groups, epsilon=float(epsilon))


@TABLE.lowers("native_group_norm")
def native_group_norm(
    call: Call,
    x: Value,
    gain: Value | None,
    bias: Value | None,
    batch: int,
    channels: int,
    size: int,
    groups: int,
    epsilon: float,
) -> None:
    group_norm(call, x, groups, gain, bias, epsilon)
