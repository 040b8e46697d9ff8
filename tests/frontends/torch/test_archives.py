"""Model files of torch: archives are read, code in them never runs."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graphnorm.errors import ModelFileError
from graphnorm.frontends.torch.read import export_program, read_torch
from tests.support.torch_functions import x23


def test_archives_round_trip(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    torch.export.save(export_program(model, x23), tmp_path / "net.pt2")
    graph = read_torch(tmp_path / "net.pt2")
    assert graph.name == "net"
    assert np.array_equal(graph.weights["weight"], model.weight.detach().numpy())


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["model.pt", "model.pt2", "model.pkl"])
def test_pickles_are_refused_and_never_run(tmp_path: Path, name: str) -> None:
    path, trap = tmp_path / name, tmp_path / "trap"
    if name == "model.pkl":
        path.write_bytes(pickle.dumps(Payload(trap)))
    else:
        torch.save(Payload(trap), path)
    with pytest.raises(ModelFileError, match=r"never does; export the model with torch\.export\.save"):
        read_torch(path)
    assert not trap.exists()


@pytest.mark.parametrize("member", ["data/constants/opaque_obj_0", "data/aotinductor/model/a.so"])
def test_archives_with_code_are_refused(tmp_path: Path, member: str) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(export_program(nn.Linear(3, 2), x23), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"net/{member}", b"")
    with pytest.raises(ModelFileError, match="compiled code or pickled objects"):
        read_torch(path)


def test_a_pickle_inside_an_archive_is_not_run(tmp_path: Path) -> None:
    good, bad, trap = tmp_path / "good.pt2", tmp_path / "bad.pt2", tmp_path / "trap"
    torch.export.save(export_program(nn.Linear(3, 2), x23), good)
    torch.save(Payload(trap), tmp_path / "payload.pt")
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for member in source.namelist():
            data = source.read(member)
            if member.endswith("sample_inputs/model.pt"):
                data = (tmp_path / "payload.pt").read_bytes()
            target.writestr(member, data)
    with pytest.raises(ModelFileError, match=r"torch\.export\.load failed"):
        read_torch(bad)
    assert not trap.exists()


def test_missing_and_damaged_archives(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        read_torch(tmp_path / "none.pt2")
    path = tmp_path / "net.pt2"
    torch.export.save(export_program(nn.Linear(3, 2), x23), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelFileError, match="damaged or truncated"):
        read_torch(path)
