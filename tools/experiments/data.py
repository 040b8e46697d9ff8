"""Image sets for the experiments, read from folders; nothing is downloaded or unpickled."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist


@dataclass(frozen=True)
class Images:
    """Standardised training and test images (n, channels, height, width), float32, and their classes."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def load(name: str, folder: Path | None = None) -> Images:
    """``fashion-mnist`` (IDX files, gzipped or not) or ``cifar10`` (the binary version).

    Raises:
        FileNotFoundError: the folder lacks a file; the message names it.
    """
    if name == "fashion-mnist":
        folder = folder or FASHION_MNIST
        parts = [
            (_idx(folder, f"{part}-images-idx3-ubyte"), _idx(folder, f"{part}-labels-idx1-ubyte"))
            for part in ("train", "t10k")
        ]
        pairs = [(x[:, None], y) for x, y in parts]
    else:
        if folder is None:
            raise FileNotFoundError(
                "give --data, the folder of CIFAR-10's binary version (data_batch_1.bin, ...)"
            )
        train = np.concatenate([_cifar(folder / f"data_batch_{i}.bin") for i in range(1, 6)])
        pairs = [
            (part[:, 1:].reshape(-1, 3, 32, 32), part[:, 0])
            for part in (train, _cifar(folder / "test_batch.bin"))
        ]
    pixels = torch.from_numpy(pairs[0][0]).float()
    mean, std = pixels.mean(dim=(0, 2, 3), keepdim=True), pixels.std(dim=(0, 2, 3), keepdim=True)
    made = [
        ((torch.from_numpy(x).float() - mean) / std, torch.from_numpy(y.astype(np.int64))) for x, y in pairs
    ]
    return Images(name, made[0], made[1])


def _idx(folder: Path, name: str) -> np.ndarray:
    """An IDX array: two zero bytes, type, rank, big-endian sizes, bytes."""
    plain, packed = folder / name, folder / f"{name}.gz"
    if not plain.exists() and not packed.exists():
        raise FileNotFoundError(f"{packed}: install the Debian package dataset-fashion-mnist, or give --data")
    data = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    rank = data[3]
    sizes = np.frombuffer(data, ">u4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(sizes).copy()


def _cifar(path: Path) -> np.ndarray:
    return np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 3073).copy()
