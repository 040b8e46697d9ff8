"""The mutation tool: mutants are valid Python, a planted test kills one and misses another."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tools.mutate.__main__ import main
from tools.mutate.operators import Mutant, mutants
from tools.mutate.sampling import ROOMS, Placed, all_mutants, equivalents, modules, sample

TOY = '''"""A toy."""

LIMIT = 3


def larger(a: int, b: int) -> int:
    """The larger, up to a limit."""
    if a > LIMIT:
        raise ValueError("a" + "b")
    return a if a > b else b
'''
TEST = """import pytest

from graphnorm.toy import larger


def test_larger() -> None:
    assert larger(2, 1) == 2
    assert larger(1, 2) == 2


def test_limit() -> None:
    with pytest.raises(ValueError):
        larger(4, 1)


def test_failing() -> None:
    assert False
"""


def changes(source: str) -> set[str]:
    return {one.apply(source).strip() for one in mutants(source)}


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("x = a + b", {"x = a - b"}),
        ("x = (a) * (  # a ) + b\n    b)", {"x = (a) / (  # a ) + b\n    b)"}),
        ("x = a < b <= c", {"x = a <= b <= c", "x = a >= b <= c", "x = a < b < c", "x = a < b > c"}),
        ("x = a not  in b", {"x = a in b"}),
        ("x = a is not b", {"x = a is b"}),
        ("x = a and b or c", {"x = a or b or c", "x = a and b and c"}),
        ("x = not a", {"x = (a)"}),
        ("x = -a", {"x = (a)"}),
        ("x = 2", {"x = 3", "x = 1"}),
        ("x = 1e-9", {"x = 1e-07", "x = 1e-11"}),
        ("x = 4.0", {"x = 8.0", "x = 2.0"}),
        ("x = True", {"x = False"}),
        ("x = f(a, b, c)", {"x = f(b, a, c)"}),
        ("f(a)", {"pass"}),
        ("x += y", {"x -= y"}),
        ("if a:\n    f = b", {"if (not a):\n    f = b"}),
        ("x = b if f(a) else c", {"x = b if (not f(a)) else c"}),
        ("x = [a for a in b if a.c]", {"x = [a for a in b if (not a.c)]"}),
        ("x: int | None = f", set()),
        ("x = isinstance(a, int | str)", set()),
        ("x = zip(a, b, strict=True)", set()),
        ('"""A docstring."""', set()),
        ("raise ValueError(a + b)", set()),
        ("assert a < b", set()),
        ("x = 'ä' + f(a, ä)", {"x = 'ä' + f(ä, a)"}),
    ],
)  # fmt: skip
def test_operators(source: str, wanted: set[str]) -> None:
    assert changes(source) == wanted


def test_all_mutants_of_this_tree_are_other_programs() -> None:
    for name in modules(ROOT, ROOMS):
        source = (ROOT / name).read_text("utf-8")
        before = ast.dump(ast.parse(source))
        found = mutants(source)
        assert len({one.key for one in found}) == len(found)
        for one in found[::17]:
            assert ast.dump(ast.parse(one.apply(source))) != before, one


def test_keys_stay_when_code_moves() -> None:
    moved = TOY.replace("LIMIT = 3", "LIMIT = 3\nOTHER = 'x'")
    assert [one.key for one in mutants(TOY)] == [one.key for one in mutants(moved)]
    places = [[Placed("a", one) for one in mutants(TOY)], [Placed("b", one) for one in mutants(moved)]]
    first, second = (sample(found, 4, seed=1) for found in places)
    assert [one.mutant.key for one in first] == [one.mutant.key for one in second]
    assert [one.mutant.key for one in sample(places[0], 4, seed=2)] != [one.mutant.key for one in first]


def test_listed_mutants_exist_and_have_reasons() -> None:
    every = all_mutants(ROOT, modules(ROOT, ROOMS))
    there = {(one.mutant.function, one.mutant.line, one.mutant.becomes) for one in every}
    listed = equivalents()
    assert not listed.keys() - there, "of no mutant any more"
    assert all(len(reason) > 10 for reason in listed.values())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in {
        "graphnorm/__init__.py": "",
        "graphnorm/toy.py": TOY,
        "tests/test_toy.py": TEST,
    }.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "tree/pyproject.toml").write_text("", encoding="utf-8")
    (tmp_path / "tree/tools").symlink_to(ROOT / "tools")
    return tmp_path / "tree"


def run(tree: Path, *arguments: str) -> tuple[int, dict[str, str]]:
    target = tree.parent / "found.json"
    options = [
        "--root",
        str(tree),
        "--room",
        "toy",
        "--bare",
        "--workers",
        "1",
        "--work",
        str(tree.parent / "work"),
    ]
    code = main([*options, "--json", str(target), *arguments])
    return code, {one["becomes"]: one["outcome"] for one in json.loads(target.read_text())["mutants"]}


def test_one_is_killed_and_one_survives(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run(tree)
    assert found == {
        "LIMIT = 4": "killed",
        "LIMIT = 2": "survived",
        "if a >= LIMIT:": "survived",
        "if a <= LIMIT:": "killed",
        "return a if a >= b else b": "survived",
        "return a if a <= b else b": "killed",
    }
    assert code == 1
    said = capsys.readouterr().out
    assert "-    return a if a > b else b\n+    return a if a >= b else b" in said
    assert "3 of 6 killed (50.0 %)" in said
    assert (tree / "graphnorm/toy.py").read_text() == TOY, "only copies are mutated"
    assert run(tree, "--goal", "50")[0] == 0, "verdicts are kept"
    lines = "\n\ndef test_at_the_limit() -> None:\n    assert larger(3, 1) == 3\n"
    (tree / "tests/test_toy.py").write_text(TEST + lines, encoding="utf-8")
    assert run(tree)[1] == found, "without being asked to, nothing runs again"
    again = run(tree, "--again")[1]
    assert {name for name, outcome in again.items() if outcome == "survived"} == {"return a if a >= b else b"}


def test_what_computes_the_same_is_left_out(tree: Path, tmp_path: Path) -> None:
    listed = tmp_path / "equivalent.toml"
    listed.write_text(
        '[[equivalent]]\nfunction = "larger"\nline = "return a if a > b else b"\n'
        'becomes = "return a if a >= b else b"\nreason = "equal numbers are the same"\n'
    )
    (one,) = [m for m in mutants(TOY) if m.becomes == "return a if a >= b else b"]
    assert isinstance(one, Mutant)
    code, found = run(tree, "--equivalent", str(listed), "--count", "100")
    assert one.becomes not in found
    assert len(found) == 5
    assert code == 1


def test_mutants_that_hang_are_killed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "graphnorm/toy.py").write_text(
        "def last(n: int) -> int:\n    while n > 0:\n        n -= 1\n    return n\n"
    )
    (tree / "tests/test_toy.py").write_text(
        "from graphnorm.toy import last\n\n\ndef test_last() -> None:\n    assert last(3) == 0\n"
    )
    monkeypatch.setattr("tools.mutate.run._GRACE", 2.0)
    found = run(tree)[1]
    assert found["n += 1"] == "killed by timeout"


def test_a_room_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--room", "attic"]) == 2
    assert "no folder and no module graphnorm/attic" in capsys.readouterr().err
