"""Images of Fashion-MNIST (IDX files) and CIFAR-10 (its binary files), read from a folder."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor

from graphnorm.errors import InputError

CLASSES = 10


class Images(NamedTuple):
    """Standardised images ``(count, channels, height, width)`` in float32, and their classes."""

    images: Tensor
    labels: Tensor


def read(folder: Path) -> tuple[Images, Images]:
    """Training and test images.

    Raises:
        InputError: the folder holds neither data set.
    """
    if (folder / "train-images-idx3-ubyte.gz").exists():
        parts = [_fashion(folder, part) for part in ("train", "t10k")]
    elif (folder / "data_batch_1.bin").exists():
        parts = [_cifar(folder, names) for names in (TRAIN_FILES, ["test_batch.bin"])]
    else:
        raise InputError(
            f"{folder}: expected train-images-idx3-ubyte.gz and its three companions (Fashion-MNIST; "
            "Debian's dataset-fashion-mnist puts them in /usr/share/datasets/fashion-mnist), or "
            "data_batch_1.bin and its companions (CIFAR-10, binary version)"
        )
    mean = parts[0].images.mean((0, 2, 3), keepdim=True)
    std = parts[0].images.std((0, 2, 3), keepdim=True)
    train, test = (Images((part.images - mean) / std, part.labels) for part in parts)
    return train, test


TRAIN_FILES = [f"data_batch_{k}.bin" for k in range(1, 6)]


def _idx(path: Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = tuple(np.frombuffer(data, ">i4", rank, 4).tolist())
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if values.size != int(np.prod(shape)):
        raise InputError(f"{path}: holds {values.size} bytes, its header says {shape}")
    return values.reshape(shape)


def _fashion(folder: Path, part: str) -> Images:
    images, labels = (_idx(folder / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    return _tensors(images[:, None], labels)


def _cifar(folder: Path, names: list[str]) -> Images:
    rows = np.concatenate(
        [np.frombuffer((folder / n).read_bytes(), np.uint8).reshape(-1, 3073) for n in names]
    )
    return _tensors(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0])


def _tensors(images: np.ndarray, labels: np.ndarray) -> Images:
    return Images(
        torch.from_numpy(images.astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64))
    )


def augmented(images: Tensor, generator: torch.Generator, border: int = 4) -> Tensor:
    """Random crops out of a zero border and random mirror images, per image."""
    count, _, height, width = images.shape
    flip = torch.rand(count, generator=generator) < 0.5
    images = torch.where(flip.to(images.device)[:, None, None, None], images.flip(3), images)
    windows = F.pad(images, [border] * 4).unfold(2, height, 1).unfold(3, width, 1)
    rows, columns = (torch.randint(2 * border + 1, (count,), generator=generator) for _ in range(2))
    return windows[torch.arange(count), :, rows, columns]
