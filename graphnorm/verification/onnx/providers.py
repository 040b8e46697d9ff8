"""onnxruntime's execution providers: by device, and in the precision that a model's types promise.

On NVIDIA GPUs the operands of convolutions and products are rounded to 10 bits (TF32) unless that is turned
off, which would count as the original's own noise.  CUDA has an option for it; TensorRT reads an environment
variable, as do CUDA's libraries.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import onnxruntime

from graphnorm.errors import InputError

_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_NVIDIA = (_CUDA, _TENSORRT, "NvTensorRTRTXExecutionProvider")
_INDEXED = (*_NVIDIA, "ROCMExecutionProvider", "MIGraphXExecutionProvider", "DmlExecutionProvider",
            "CANNExecutionProvider")  # fmt: skip
_VARIABLE = "NVIDIA_TF32_OVERRIDE"


def pick_provider(device: str) -> str:
    """``auto`` is CUDA where onnxruntime offers it; else a provider's name, such as ``cpu`` or ``openvino``.

    Raises:
        InputError: the device isn't offered.
    """
    offered: list[str] = onnxruntime.get_available_providers()
    if device == "auto":
        device = "cuda" if _CUDA in offered else "cpu"
    wanted = next((name for name in offered if _short(name) == device.partition(":")[0].lower()), None)
    if wanted is None:
        raise InputError(f"device {device!r}: onnxruntime offers {', '.join(offered)}; use --device auto")
    _index(wanted, device)
    return wanted


def device_name(provider: str, device: str) -> str:
    """The device as reports name it: ``cpu``, ``cuda:1``."""
    index = _index(provider, device)
    return f"{_short(provider)}:{index}" if index else _short(provider)


def provider_options(provider: str, device: str) -> dict[str, str]:
    """Options of a provider: which device it is, and no TF32 or narrower types."""
    found: dict[str, str] = {}
    index = _index(provider, device)
    if index:
        found["device_id"] = index
    if provider == _CUDA:
        # The default search tries kernels and picks the fastest, which differs from run to run.
        found |= {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"}
    if provider == _TENSORRT:
        found |= {"trt_fp16_enable": "0", "trt_int8_enable": "0"}
    return found


@contextmanager
def full_precision(provider: str) -> Iterator[None]:
    """While a session is made or run: TF32 off for libraries that read the environment."""
    if provider not in _NVIDIA:
        yield
        return
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "0"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


def remarks_of(provider: str, device: str) -> tuple[str, ...]:
    """What a report says of a provider."""
    return (f"measured on {device} with TF32 off, deterministic",) if provider in _NVIDIA else ()


def _index(provider: str, device: str) -> str:
    """The number in ``cuda:1``.

    Raises:
        InputError: it is none, or the provider has one device only.
    """
    number = device.partition(":")[2]
    if number and (not number.isdecimal() or (provider not in _INDEXED and int(number))):
        raise InputError(f"device {device!r}: {_short(provider)} has no device {number!r}; "
                         f"use --device {_short(provider)}")  # fmt: skip
    return number


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider").lower()
