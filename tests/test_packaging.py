"""What is installed, what importing costs, who may import whom, and the public names."""

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
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import graphnorm
from graphnorm import errors
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = ("graphnorm", "passes", "pyproject.toml", "README.md", "LICENSE")

# Component (a module or folder of graphnorm) -> the components that it may import.  Data flows one way:
# front end -> IR -> scales -> rescaling graph -> solver -> coefficients -> emission -> verification.
MAY_IMPORT = {
    "errors": "",
    "util": "errors",
    "ops": "errors",
    "ir": "errors util ops",
    "nn": "errors util",
    "frontends": "errors util ir ops",
    "scales": "errors util ir ops",
    "solver": "errors util",
    "rescaling": "errors util ir ops scales solver",
    "weights": "util ir scales rescaling solver",
    "emission": "errors util ir frontends",
    "verification": "errors util ir ops scales rescaling weights frontends emission",
    "alignment": "util ir ops scales",
    "permutation": "util ir ops scales rescaling solver weights",
    "proof": "util ir scales rescaling alignment permutation verification",
    "api": "errors util ir rescaling solver weights frontends emission verification permutation proof",
    "certificates": "errors util ir rescaling solver permutation proof verification api",
    "fingerprint": "errors util ir ops scales rescaling solver alignment permutation api",
    "explain": "errors util ir ops scales rescaling solver api",
    "pictures": "errors util ir ops scales rescaling explain",
    "training": "errors util ir ops frontends scales rescaling solver api",
    "__init__": "errors util rescaling api training",
    "passes": "errors util ir nn frontends rescaling emission verification __init__",
    "cli": (
        "errors util ir ops frontends scales rescaling alignment permutation verification api explain "
        "pictures certificates fingerprint __init__"
    ),
    "__main__": "cli",
}
# Functions that import the other way, when they are called.
DEFERRED = {("api", "passes"), ("solver", "torch")}

THIRD_PARTY = {  # components without a framework -> what they may import from outside
    "errors": set(),
    "util": {"numpy"},
    "ir": {"numpy", "ml_dtypes"},
    "ops": set(),
    "scales": {"numpy", "scipy"},
    "solver": {"numpy", "scipy"},
    "rescaling": {"numpy", "scipy", "networkx"},
    "weights": {"numpy", "scipy"},
}


class Import(NamedTuple):
    """One import statement's target, as a dotted module name."""

    file: str
    line: int
    target: str
    deferred: bool

    @property
    def component(self) -> str:
        first, *rest = self.target.split(".")
        assert first == "graphnorm"
        return rest[0] if rest else "__init__"


def files() -> Iterator[tuple[str, Path]]:
    """(component, file) of every module; the link graphnorm/passes leads to passes/."""
    for path in sorted((ROOT / "graphnorm").rglob("*.py")):
        first = path.relative_to(ROOT / "graphnorm").parts[0].removesuffix(".py")
        if first != "passes":
            yield first, path
    for path in sorted((ROOT / "passes").rglob("*.py")):
        yield "passes", path


def imports(path: Path) -> Iterator[Import]:
    """Absolute imports, `from graphnorm import ir` as graphnorm.ir."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or _for_types_only(function)
        for node in ast.walk(function)
    }
    name = str(path.relative_to(ROOT))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, node.lineno, alias.name, id(node) in inner)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            module = str(node.module)
            for alias in node.names:
                inside = module == "graphnorm" and _is_module(alias.name)
                yield Import(
                    name, node.lineno, f"{module}.{alias.name}" if inside else module, id(node) in inner
                )


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_module(name: str) -> bool:
    return (ROOT / "graphnorm" / f"{name}.py").exists() or (ROOT / "graphnorm" / name).is_dir()


FILES = list(files())


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


# Who may import whom.


def test_every_component_has_its_place() -> None:
    missing = {component for component, _ in FILES} - MAY_IMPORT.keys()
    assert not missing, f"give {sorted(missing)} a place in MAY_IMPORT"
    gone = MAY_IMPORT.keys() - {component for component, _ in FILES}
    assert not gone, f"{sorted(gone)} are in MAY_IMPORT, and nowhere else"


def test_the_order_has_no_cycle() -> None:
    order = list(
        TopologicalSorter({name: allowed.split() for name, allowed in MAY_IMPORT.items()}).static_order()
    )
    assert set(order) == MAY_IMPORT.keys()
    assert {name for name, allowed in MAY_IMPORT.items() if "cli" in allowed.split()} == {"__main__"}
    assert not set(MAY_IMPORT["verification"].split()) & {"cli", "api"}


def _packages(name: str) -> set[str]:
    """The packages around a module."""
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def import_graph() -> dict[str, set[str]]:
    """Module -> the modules that it imports when it is loaded, or for types only."""
    names = {}
    for component, path in FILES:
        base = ROOT if component == "passes" else ROOT / "graphnorm"
        parts = path.relative_to(base).with_suffix("").parts
        names[".".join(("graphnorm", *(part for part in parts if part != "__init__")))] = path
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        late = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        targets = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in late:
                targets |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
            elif isinstance(node, ast.Import) and id(node) not in late:
                targets |= {alias.name for alias in node.names}
        inside = {target for target in targets if target in names}
        packages = {parent for target in inside for parent in _packages(target)}  # they are loaded first
        found[name] = (inside | packages) & names.keys() - {name} - _packages(name)
    return found


def test_modules_import_each_other_in_one_direction() -> None:
    graph = import_graph()
    assert sum(map(len, graph.values())) > 1000
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(("component", "path"), FILES, ids=[str(path.relative_to(ROOT)) for _, path in FILES])
def test_imports_go_one_way(component: str, path: Path) -> None:
    allowed = {component, *MAY_IMPORT.get(component, "").split()}
    outside = THIRD_PARTY.get(component)
    for item in imports(path):
        where = f"{item.file}:{item.line}: {item.target}"
        top = item.target.partition(".")[0]
        if top == "graphnorm":
            late = item.deferred and (component, item.component) in DEFERRED
            assert item.component in allowed or late, where
        elif outside is not None and top not in sys.stdlib_module_names:
            assert top in outside or (item.deferred and (component, top) in DEFERRED), where


def test_pictures_know_no_rules() -> None:
    """They are drawn from the solved graph and from facts about operators."""
    graph = import_graph()
    drawn = set().union(*(found for name, found in graph.items() if name.startswith("graphnorm.pictures")))
    assert "graphnorm.rescaling.graph" in drawn
    assert not {
        name for name in drawn if name.startswith(("graphnorm.scales.rules", "graphnorm.scales.walk"))
    }


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
    assert not [name for name in graphnorm.__all__ if _is_module(name)], "a function under its module's name"


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


@pytest.mark.parametrize("path", [path for _, path in FILES], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert said.partition("\n")[0].rstrip().endswith((".", ":", "?", "?``")), "the first line is a sentence"


def test_the_architecture_names_every_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent.relative_to(ROOT) for _, path in FILES} - {Path("graphnorm"), Path("passes")}
    assert len(folders) > 20
    for folder in folders:
        inside = folder.parts[1:] if folder.parts[0] == "graphnorm" else folder.parts
        short = folder.parts[1] == "verification" and f"`{folder.name}/`" in text
        assert f"{'/'.join(inside)}/`" in text or short, folder


def test_rooms_are_not_crowded() -> None:
    """A folder of more than 30 modules, or a file of more than 400 lines, is two things."""
    modules = [path for _, path in FILES]
    modules += [*(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    crowded = {folder: n for folder, n in Counter(path.parent for path in modules).items() if n > 30}
    assert not crowded, crowded
    sources = [path for _, path in FILES] + list((ROOT / "tools").rglob("*.py"))
    long = [str(path) for path in sources if len(path.read_text(encoding="utf-8").splitlines()) > 400]
    assert not long, long
    loose = {path.name for path in (ROOT / "graphnorm").glob("*.py")}
    assert loose == {"__init__.py", "__main__.py", "errors.py", "ir.py"}
