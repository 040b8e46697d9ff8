"""Certificates as files: what was tampered with is rejected, with the place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import graphnorm
from graphnorm.api.sources import open_model
from graphnorm.certificates.file import read
from graphnorm.certificates.hashing import graph_hash, weights_hash
from graphnorm.certificates.verify import save_certificate, verify_certificate
from graphnorm.cli.commands import app
from graphnorm.emission.onnx_file import rescale_onnx
from tests.api.test_canonicalize import exported, network, small_cnn
from tests.api.test_check_differences import tied


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a.onnx, its canonical, permuted b.onnx, and the certificate c.json."""
    folder = tmp_path_factory.mktemp("certificate")
    model, example = small_cnn()
    onnx.save(exported(model, example), folder / "a.onnx")
    arguments = ["canonicalize", str(folder / "a.onnx"), "-o", str(folder / "b.onnx"), "--permute"]
    found = CliRunner().invoke(app, [*arguments, "--certificate", str(folder / "c.json")])
    assert found.exit_code == 0, found.output
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    for path in made.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path


def verify(folder: Path) -> Any:
    return verify_certificate(folder / "a.onnx", folder / "b.onnx", folder / "c.json")


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "c.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def vectors(folder: Path, change: Any) -> None:
    """Change the vectors, and the hash with them."""
    import hashlib

    path = folder / "c.safetensors"
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)
    rewrite(folder, vectors=hashlib.sha256(path.read_bytes()).hexdigest())


def test_holds(folder: Path) -> None:
    found = verify(folder)
    assert found.valid, found.failure
    assert found.worst_ulp <= 1 + 1e-6
    assert read(folder / "c.json").permutation


def test_command_line(folder: Path) -> None:
    paths = [str(folder / name) for name in ("a.onnx", "b.onnx", "c.json")]
    found = CliRunner().invoke(app, ["verify-certificate", *paths])
    assert (found.exit_code, found.output.startswith("valid")) == (0, True)
    found = CliRunner().invoke(app, ["verify-certificate", paths[1], paths[1], paths[2], "--json", "-"])
    assert found.exit_code == 1
    assert "A's weights" in found.output


@pytest.mark.parametrize("which", ["a", "b"])
def test_tampered_weights(folder: Path, which: str) -> None:
    path = folder / f"{which}.onnx"
    loaded = onnx_ir.load(path)
    weights = open_model(loaded).network.weights
    name = next(name for name, array in weights.items() if array.ndim > 1)
    changed = weights[name].copy()
    changed.flat[0] *= 1.01
    onnx_ir.save(rescale_onnx(loaded, {name: changed}), path)
    assert f"{which.upper()}'s weights" in verify(folder).failure
    rewrite(folder, **{f"{which}_weights": weights_hash(open_model(path).network)})
    assert "half ulps off its coefficient" in verify(folder).failure


def test_another_graph(folder: Path) -> None:
    proto = onnx.load(folder / "b.onnx")
    node = next(node for node in proto.graph.node if node.op_type == "Relu")
    node.op_type = "Sigmoid"
    onnx.save(proto, folder / "b.onnx")
    assert "B's graph" in verify(folder).failure
    rewrite(folder, b_graph=graph_hash(open_model(folder / "b.onnx").network))
    assert "Relu" in verify(folder).failure
    assert "stands against Sigmoid" in verify(folder).failure


def test_one_log_scale(folder: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        moving = np.flatnonzero(arrays["log_scales"])
        arrays["log_scales"][moving[0]] += 1e-3

    vectors(folder, change)
    failure = verify(folder).failure
    assert "equation of" in failure or "half ulps off" in failure


def test_a_tied_label_must_follow(tmp_path: Path) -> None:
    model, example = tied()
    result = graphnorm.canonicalize(model, example)
    save_certificate(result, tmp_path / "c.json")
    rows = result.graph.scales.constraints.rows
    row = next(r for r in rows if r.labels.shape[1] > 1 and (r.labels > 0).all())

    def change(arrays: dict[str, Any]) -> None:
        arrays["log_scales"][row.labels[0, 0]] += 1e-3

    assert verify_certificate(model, result.model, tmp_path / "c.json", example).valid
    vectors(tmp_path, change)
    found = verify_certificate(model, result.model, tmp_path / "c.json", example)
    assert f"equation of {result.graph.node_label(row.node)}" in found.failure


def test_pinned_label(folder: Path) -> None:
    vectors(folder, lambda arrays: arrays["log_scales"].__setitem__(0, 0.5))
    assert verify(folder).failure == "the pinned label has a scale"


def test_not_finite(folder: Path) -> None:
    vectors(folder, lambda arrays: arrays["log_scales"].__setitem__(3, np.nan))
    assert "label 3 is not finite" in verify(folder).failure


def test_number_of_labels(folder: Path) -> None:
    vectors(folder, lambda arrays: arrays.update(log_scales=arrays["log_scales"][:-1].copy()))
    assert "labels" in verify(folder).failure


def test_permutation_of_a_frozen_factor(folder: Path) -> None:
    vectors(folder, lambda arrays: arrays.update({"permutation.999999": np.arange(4)}))
    assert verify(folder).failure == "factor 999999 may not be permuted"


def test_wrong_permutation(folder: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        name = next(name for name in arrays if name.startswith("permutation."))
        arrays[name][[0, 1]] = arrays[name][[1, 0]]

    vectors(folder, change)
    assert "half ulps off" in verify(folder).failure


@pytest.mark.parametrize("name", ["before", "after"])
def test_wrong_objective(folder: Path, name: str) -> None:
    rewrite(folder, **{name: 1.5})
    assert f"objective {name}: 1.5 is claimed" in verify(folder).failure


def test_exact_claim_needs_powers_of_two(folder: Path) -> None:
    rewrite(folder, exact=True)
    assert not verify(folder).valid


class TestFiles:
    def test_vectors_that_do_not_belong(self, folder: Path) -> None:
        (folder / "c.safetensors").write_bytes(b"something else")
        with pytest.raises(graphnorm.InputError, match=r"c\.safetensors: is not the file that"):
            verify(folder)

    def test_damaged_vectors(self, folder: Path) -> None:
        import hashlib

        (folder / "c.safetensors").write_bytes(b"something else")
        rewrite(folder, vectors=hashlib.sha256(b"something else").hexdigest())
        with pytest.raises(graphnorm.InputError, match="damaged or no safetensors file"):
            verify(folder)

    def test_missing(self, folder: Path) -> None:
        (folder / "c.safetensors").unlink()
        with pytest.raises(graphnorm.InputError, match="no such file"):
            verify(folder)

    def test_no_json(self, folder: Path) -> None:
        (folder / "c.json").write_text("{")
        with pytest.raises(graphnorm.InputError, match="no JSON"):
            verify(folder)

    def test_another_format(self, folder: Path) -> None:
        rewrite(folder, version=2)
        with pytest.raises(graphnorm.InputError, match="is no graphnorm certificate of version 1"):
            verify(folder)

    def test_missing_and_wrong_claims(self, folder: Path) -> None:
        rewrite(folder, p="two")
        with pytest.raises(graphnorm.InputError, match="p is 'two'"):
            verify(folder)
        held = json.loads((folder / "c.json").read_text())
        del held["p"]
        (folder / "c.json").write_text(json.dumps(held))
        with pytest.raises(graphnorm.InputError, match="lacks p"):
            verify(folder)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("p", 0), ("p", -2.0), ("p", float("nan")), ("p", True), ("p", 10**400), ("p", [2]),
            ("c", -1.0), ("c", 0), ("c", float("inf")), ("c", None),
            ("before", float("inf")), ("before", -1), ("after", float("nan")), ("after", 10**400),
            ("gap", -1e-9), ("gap", float("nan")), ("gap", "0"), ("exact", 1), ("vectors", 7),
        ],
        ids=lambda item: str(item)[:6],
    )  # fmt: skip
    def test_claims_that_no_network_has(self, folder: Path, name: str, value: Any) -> None:
        rewrite(folder, **{name: value})
        with pytest.raises(graphnorm.InputError, match=f"{name} is .*, and should be a|{name} is .* true or"):
            verify(folder)

    @pytest.mark.parametrize("version", [True, 1.0, "1", 0, None])
    def test_versions_that_are_none(self, folder: Path, version: Any) -> None:
        rewrite(folder, version=version)
        with pytest.raises(graphnorm.InputError, match="is no graphnorm certificate of version 1"):
            verify(folder)

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"p": ' + "9" * 5000 + "}", "\xff"])
    def test_text_that_is_no_certificate(self, folder: Path, text: str) -> None:
        (folder / "c.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(graphnorm.InputError, match=r"no JSON|nested too deep"):
            verify(folder)

    @pytest.mark.parametrize("name", ["permutation.", "permutation.²", "permutation." + "7" * 5000])
    def test_permutation_of_no_factor(self, folder: Path, name: str) -> None:
        vectors(folder, lambda arrays: arrays.update({name: np.arange(3)}))
        with pytest.raises(graphnorm.InputError, match="unknown vector"):
            verify(folder)

    def test_no_vector(self, folder: Path) -> None:
        vectors(folder, lambda arrays: arrays.pop("log_scales"))
        with pytest.raises(graphnorm.InputError, match="no float64 vector log_scales"):
            verify(folder)

    def test_unknown_vector(self, folder: Path) -> None:
        vectors(folder, lambda arrays: arrays.update(other=np.zeros(2)))
        with pytest.raises(graphnorm.InputError, match="unknown vector 'other'"):
            verify(folder)

    def test_no_permutation(self, folder: Path) -> None:
        vectors(folder, lambda arrays: arrays.update({"permutation.3": np.zeros(2, dtype=np.int64)}))
        with pytest.raises(graphnorm.InputError, match=r"permutation\.3 is not a permutation"):
            verify(folder)


def test_torch_modules(tmp_path: Path) -> None:
    model, arguments = network("residual_projection")
    result = graphnorm.canonicalize(model.eval(), arguments, mode="exact")
    save_certificate(result, tmp_path / "c.json")
    found = verify_certificate(model, result.model, tmp_path / "c.json", arguments)
    assert found.valid, found.failure
    assert found.exact


def test_rewritten_clips_are_refused(tmp_path: Path) -> None:
    model, arguments = network("relu6")
    result = graphnorm.canonicalize(model.eval(), arguments, rewrite_clips=True)
    assert result.report.clips is not None
    assert result.report.clips["rewritten"]
    with pytest.raises(graphnorm.InputError, match="rewritten clips are another"):
        save_certificate(result, tmp_path / "c.json")


def test_destination_is_checked_first(made: Path) -> None:
    arguments = ["canonicalize", str(made / "a.onnx"), "-o", str(made / "x.onnx"), "--certificate"]
    found = CliRunner().invoke(app, [*arguments, str(made / "c.txt")])
    assert found.exit_code == 2
    assert not (made / "x.onnx").exists()
