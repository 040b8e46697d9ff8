"""Who may import whom, and where modules stand."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.modules import FILES, is_module
from tests.support.paths import ROOT

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
                inside = module == "graphnorm" and is_module(alias.name)
                yield Import(
                    name, node.lineno, f"{module}.{alias.name}" if inside else module, id(node) in inner
                )


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


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


# Where modules stand.


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
