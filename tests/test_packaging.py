"""What is installed, what importing costs, and the public names."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import graphnorm
from graphnorm import errors
from tests.support.modules import FILES, is_module
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = ("graphnorm", "passes", "pyproject.toml", "README.md", "LICENSE")

# Packages on disk and in distributions.


def packages_on_disk() -> set[str]:
    found = {"graphnorm.passes"}
    for path in (ROOT / "graphnorm").rglob("*.py"):
        found.add(".".join(path.parent.relative_to(ROOT).parts))
    found |= {
        ".".join(("graphnorm", *path.parent.relative_to(ROOT).parts))
        for path in (ROOT / "passes").rglob("*.py")
    }
    return found


def test_declared_packages_are_the_folders_on_disk() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(packages_on_disk())
    for package in setuptools["packages"]:
        assert (ROOT.joinpath(*package.split(".")) / "__init__.py").is_file(), package
    assert setuptools["package-dir"] == {"graphnorm": "graphnorm", "graphnorm.passes": "passes"}


def test_passes_is_a_relative_link() -> None:
    link = ROOT / "graphnorm" / "passes"
    assert link.is_symlink()
    assert os.readlink(link) == "../passes"


def test_versions_agree() -> None:
    assert PROJECT["project"]["version"] == graphnorm.__version__
    assert f"## [{graphnorm.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what distributions are built from, so that building leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / name)
    return copy


def build_wheel(source: Path, into: Path) -> dict[str, bytes]:
    """File name -> content of the wheel, made without network."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    run([*command, "--wheel-dir", str(into), str(source)])
    (wheel,) = into.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def run(command: list[str], folder: Path = ROOT) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return build_wheel(tree, tmp_path_factory.mktemp("wheel"))


def _constraints(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): version for package, version in pins}


def _requirements() -> dict[str, SpecifierSet]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    listed = [*PROJECT["project"]["dependencies"], *(text for extra in extras for text in extra)]
    parsed = [Requirement(text) for text in listed]
    return {canonicalize_name(item.name): item.specifier for item in parsed if item.name != "graphnorm"}


def test_the_oldest_admitted_versions_are_those_that_are_tested() -> None:
    pins, admitted = _constraints("constraints-minimum.txt"), _requirements()
    for package, version in pins.items():
        (oldest,) = [part.version for part in admitted[package] if part.operator == ">="]
        assert Version(version) == Version(oldest), package
    tools = {
        "hypothesis",
        "mypy",
        "packaging",
        "pillow",
        "pre-commit",
        "pytest",
        "pytest-xdist",
        "ruff",
        "setuptools",
    }
    assert set(admitted) - set(pins) == tools


def test_constraints_pin_every_requirement_to_an_admitted_version() -> None:
    pins, admitted = _constraints("constraints.txt"), _requirements()
    assert set(admitted) - set(pins) == {"setuptools"}  # pip freeze leaves it out
    assert all(pins[package] in specifier for package, specifier in admitted.items() if package in pins)


def test_the_wheel_has_one_top_level_name(wheel: dict[str, bytes]) -> None:
    top = {name.partition("/")[0] for name in wheel}
    assert top == {"graphnorm", f"graphnorm-{graphnorm.__version__}.dist-info"}
    (listed,) = (content for name, content in wheel.items() if name.endswith("/top_level.txt"))
    assert listed.decode().split() == ["graphnorm"]


def test_the_wheel_holds_every_module_once(wheel: dict[str, bytes]) -> None:
    expected = {
        f"graphnorm/{'passes/' if component == 'passes' else ''}"
        f"{path.relative_to(ROOT / ('passes' if component == 'passes' else 'graphnorm')).as_posix()}"
        for component, path in FILES
    }
    assert {name for name in wheel if name.endswith(".py")} == expected
    assert "graphnorm/py.typed" in wheel
    assert any(name.endswith("/licenses/LICENSE") for name in wheel)


def test_the_source_distribution_builds_the_same_wheel(
    tree: Path, wheel: dict[str, bytes], tmp_path: Path
) -> None:
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run([sys.executable, "-c", build, str(tmp_path)], tree)
    (packed,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "unpacked")
    assert sum(name.endswith("/passes/__init__.py") for name in names) == 1
    (source,) = (tmp_path / "unpacked").iterdir()
    again = build_wheel(source, tmp_path / "again")
    modules = {name for name in wheel if name.endswith(".py")}
    assert {name: again[name] for name in again if name.endswith(".py")} == {
        name: wheel[name] for name in modules
    }


# What an import brings with it.


def modules_after(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps([m.partition('.')[0] for m in sys.modules]))"
    return set(json.loads(run([sys.executable, "-c", script])))


def test_importing_graphnorm_brings_nothing_else() -> None:
    before = modules_after("")
    assert modules_after("import graphnorm, graphnorm.passes") - before - sys.stdlib_module_names == {
        "graphnorm"
    }


def test_frameworks_wait_until_they_are_needed() -> None:
    names = ", ".join(
        f"graphnorm.{name}" for name in ("api.canonicalize", "api.check", "api.trace", "explain", "cli")
    )
    of_torch = {name for name, home in graphnorm._HOMES.items() if home.startswith("graphnorm.training.")}
    others = sorted(set(graphnorm.__all__) - of_torch)
    loaded = modules_after(f"import {names}\nfor name in {others}: getattr(graphnorm, name)")
    assert not loaded & {"torch", "onnx", "onnx_ir", "onnxruntime", "matplotlib", "networkx", "safetensors"}
    assert {"numpy", "scipy"} <= loaded


# Public names and errors.


@pytest.mark.parametrize("name", graphnorm.__all__)
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    item = getattr(graphnorm, name)
    assert item.__name__ == name
    assert item.__doc__
    assert inspect.cleandoc(item.__doc__).partition("\n")[0].endswith("."), "the first line is a sentence"
    assert name in dir(graphnorm)
    for member, value in vars(item).items() if inspect.isclass(item) else ():
        if not member.startswith("_") and (isinstance(value, property) or inspect.isfunction(value)):
            assert value.__doc__, f"{name}.{member}"


def test_public_names_are_sorted_and_complete() -> None:
    assert list(graphnorm.__all__) == sorted(graphnorm.__all__)
    assert graphnorm._HOMES.keys() <= set(graphnorm.__all__)
    assert not [name for name in graphnorm.__all__ if is_module(name)], "a function under its module's name"


def test_an_unknown_public_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'graphnorm' has no attribute 'canonicalise'"):
        _ = graphnorm.canonicalise


def test_every_error_is_a_graphnorm_error() -> None:
    classes = [item for _, item in inspect.getmembers(errors, inspect.isclass)]
    assert errors.GraphNormError in classes
    for item in classes:
        assert issubclass(item, errors.GraphNormError), item
        assert item.__doc__, item


# Exceptions of other classes: protocols of Python, and signals that a caller inside graphnorm catches.
OTHER_RAISES = {"AttributeError", "NotImplementedError", "ValueError", "Unlowerable"}


def raised(path: Path) -> Iterator[tuple[int, str]]:
    """(line, class) of each `raise Class` and `raise Class(...)`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and node.exc is not None:
            target = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(target, ast.Name) and target.id[0].isupper():
                yield node.lineno, target.id


def test_what_is_raised_is_a_graphnorm_error() -> None:
    seen = set()
    for _, path in FILES:
        for line, name in raised(path):
            error = getattr(errors, name, None)
            assert error is not None or name in OTHER_RAISES, f"{path.relative_to(ROOT)}:{line}: {name}"
            seen.add(name)
    assert {"InputError", "ModelFileError", "NotEquivalentError"} <= seen


# What the documents say.


def commands() -> dict[str, str]:
    """The README's one-line commands by the comment that marks them."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    marks = ("<!-- demo-command -->", "<!-- test-command -->")
    return {mark: lines[lines.index(mark) + 2] for mark in marks}


def test_the_readme_has_its_two_commands() -> None:
    for mark, extra in (("<!-- demo-command -->", "all"), ("<!-- test-command -->", "dev")):
        setup, _, last = commands()[mark].rpartition(" && ")
        assert setup.startswith("python3 -m venv .venv && .venv/bin/pip install ")
        assert setup.endswith(f"-e '.[{extra}]'")
        assert last.startswith(".venv/bin/")
        assert extra in PROJECT["project"]["optional-dependencies"]


def test_the_quickstart_runs() -> None:
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False, encoding="utf-8")
    assert result.attempted > 5
    assert result.failed == 0
