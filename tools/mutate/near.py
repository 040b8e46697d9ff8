"""Which tests are near a mutant: those that run its line, quickest first, within a budget of seconds.

The records come from one run of the tests (`recorder`), file by file; a test file is recorded anew when its
text changes.  A line that runs on import only stands for the functions that it names, or that name it.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.mutate.copies import Copy
from tools.mutate.operators import Mutant
from tools.mutate.recorder import line_key

_MOST = 80  # tests for one mutant
_IMPORT = 0.7  # seconds that one more test file costs


@dataclass
class Records:
    """Lines of tests.

    Attributes:
        path: the JSON file that holds them.
        files: test file -> hash of its text, and its tests: id -> seconds, lines.
        killers: tests that have killed mutants of a function.
    """

    path: Path
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    killers: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def __post_init__(self) -> None:
        if self.path.exists():
            held = json.loads(self.path.read_text(encoding="utf-8"))
            self.files = held["files"]
            for facts in self._facts():
                facts["lines"] = [held["lines"][number] for number in facts["lines"]]
        self._index()

    def _facts(self) -> Iterator[dict[str, Any]]:
        return (facts for held in self.files.values() for facts in held["tests"].values())

    def _index(self) -> None:
        self.seconds: dict[str, float] = {}
        self.by_line: dict[str, set[str]] = defaultdict(set)
        self.by_function: dict[str, set[str]] = defaultdict(set)
        for held in self.files.values():
            for test, facts in held["tests"].items():
                self.seconds[test] = facts["seconds"]
                for line in facts["lines"]:
                    self.by_line[line].add(test)
                    self.by_function[line.partition("|")[0]].add(test)

    def is_fresh(self, root: Path, name: str) -> bool:
        return name in self.files and self.files[name]["hash"] == _hash(root / name)

    def record(self, copy: Copy, name: str, modules: Iterable[str], seconds: float) -> int:
        """Run one test file under the recorder; how many of its tests passed."""
        target = copy.folder.with_name(f"{copy.folder.name}.record.json")
        target.unlink(missing_ok=True)
        env = {
            "MUTATE_FILES": ":".join(str(copy.folder / module) for module in modules),
            "MUTATE_RECORD": str(target),
        }
        copy.pytest(["-p", "tools.mutate.recorder", "--maxfail=1000", name], seconds, env)
        found = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
        tests = {
            test: {"seconds": facts["seconds"], "lines": facts["lines"]}
            for test, facts in found.items()
            if facts.get("passed")
        }
        self.files[name] = {"hash": _hash(copy.folder / name), "tests": tests}
        return len(tests)

    def save(self) -> None:
        """Write the records; each line's text once."""
        numbers = {line: i for i, line in enumerate(sorted({k for f in self._facts() for k in f["lines"]}))}
        files = {
            name: {
                "hash": held["hash"],
                "tests": {
                    test: {"seconds": facts["seconds"], "lines": [numbers[line] for line in facts["lines"]]}
                    for test, facts in held["tests"].items()
                },
            }
            for name, held in self.files.items()
        }
        text = json.dumps({"lines": list(numbers), "files": files})
        self.path.with_suffix(".new").write_text(text, encoding="utf-8")
        self.path.with_suffix(".new").replace(self.path)
        self._index()

    def keep(self, known: Iterable[str]) -> None:
        """Forget tests that are not there any more."""
        held = set(known)
        for facts in self.files.values():
            facts["tests"] = {test: f for test, f in facts["tests"].items() if test in held}
        self._index()

    def near(self, mutant: Mutant, source: str, budget: float) -> list[str]:
        """Tests for a mutant, likely killers first."""
        tests = self._covering(mutant, source)
        words = _words(mutant, source)
        turn: Counter[str] = Counter()
        ranked: list[tuple[int, bool, int, float, str]] = []
        for test in sorted(tests, key=lambda name: (self.seconds[name], name)):
            family = test.partition("[")[0]
            known = self.killers[mutant.function][test]
            ranked.append((-known, not _mentions(test, words), turn[family], self.seconds[test], test))
            turn[family] += 1
        chosen: list[str] = []
        files: set[str] = set()
        for *_, seconds, test in sorted(ranked):
            file = test.partition("::")[0]
            cost = seconds + (_IMPORT if file not in files else 0.0)
            if cost <= budget and len(chosen) < _MOST:
                chosen.append(test)
                files.add(file)
                budget -= cost
        return chosen

    def _covering(self, mutant: Mutant, source: str) -> set[str]:
        """Tests that run the line; else those that run its statement, its function, or what it names."""
        texts = source.splitlines()
        if mutant.function == "<module>":
            own = self.by_line.get(line_key("<module>", texts[mutant.lineno - 1]), set())  # of a lambda
            for named in (_functions_of(mutant.statement, source), _all_functions(source)):
                tests = own.union(*(self.by_function.get(name, ()) for name in named))
                if tests:
                    return tests
            return set()
        for number in (mutant.lineno, mutant.statement):
            found = self.by_line.get(line_key(mutant.function, texts[number - 1]))
            if found:
                return found
        if mutant.function in self.by_function:
            return self.by_function[mutant.function]
        text = texts[mutant.lineno - 1].strip()  # of a function that has another name since
        return {t for line, tests in self.by_line.items() if line.partition("|")[2] == text for t in tests}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _statement(lineno: int, source: str) -> ast.stmt | None:
    tree = ast.parse(source)
    held = [n for n in tree.body if n.lineno <= lineno <= (n.end_lineno or n.lineno)]
    return held[0] if held else None


def _words(mutant: Mutant, source: str) -> set[str]:
    """The function's name, and texts around a line: names of operators, as tests carry them in their ids."""
    held = [
        node for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call | ast.FunctionDef)
        and node.lineno <= mutant.lineno <= (node.end_lineno or 0)
    ]  # fmt: skip
    texts = {n.value for one in held for n in ast.walk(one) if isinstance(n, ast.Constant)}
    words = {text for text in texts if isinstance(text, str) and text.isidentifier()}
    words.add(mutant.function.rpartition(".")[2].strip("_").replace("_", ""))
    return {word.lower() for word in words if len(word) > 2}


def _mentions(test: str, words: set[str]) -> bool:
    inside = test.partition("[")[2].lower()
    return any(word in inside for word in words)


def _functions_of(lineno: int, source: str) -> set[str]:
    """Functions that a statement on the module's level names, and those that use the name it defines."""
    statement = _statement(lineno, source)
    if statement is None:
        return set()
    names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
    found = set(names)
    for node in ast.parse(source).body:
        for function, body in _functions(node):
            if names & {n.id for n in ast.walk(body) if isinstance(n, ast.Name)}:
                found.add(function)
    return found


def _all_functions(source: str) -> set[str]:
    return {name for node in ast.parse(source).body for name, _ in _functions(node)}


def _functions(node: ast.stmt) -> list[tuple[str, ast.stmt]]:
    if isinstance(node, ast.FunctionDef):
        return [(node.name, node)]
    if isinstance(node, ast.ClassDef):
        return [(f"{node.name}.{f.name}", f) for f in node.body if isinstance(f, ast.FunctionDef)]
    return []


def passed_ids(output: str) -> Sequence[str]:
    """Ids in what ``pytest --collect-only -q`` prints."""
    return [line for line in output.splitlines() if "::" in line and not line.startswith(("ERROR", "FAILED"))]
