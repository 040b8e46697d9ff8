"""The documentation: links lead somewhere, and the glossary explains words that are used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
GLOSSARY = ROOT / "docs" / "glossary.md"
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def broken(page: Path, text: str) -> list[str]:
    """Links of a page to files that are not there, or to headings that are not there."""
    found = []
    for target in _LINK.findall(text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (heading and heading not in _anchors(path)):
            found.append(target)
    return found


def _anchors(path: Path) -> set[str]:
    headings = _HEADING.findall(path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def terms(text: str) -> list[str]:
    """The bold terms of a glossary's tables."""
    return re.findall(r"^\| \*\*(.+?)\*\* \|", text, re.MULTILINE)


def unused(listed: list[str], elsewhere: str) -> list[str]:
    """Terms that occur nowhere else, in any case and as a plural too."""
    return [term for term in listed if not re.search(rf"\b{re.escape(term)}", elsewhere, re.IGNORECASE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    assert not broken(page, page.read_text(encoding="utf-8"))


def test_a_broken_link_is_found() -> None:
    text = "[a](architecture.md) [b](architecture.md#data-flow) [c](nowhere.md) [d](architecture.md#nowhere)"
    assert broken(GLOSSARY, text) == ["nowhere.md", "architecture.md#nowhere"]


def test_every_term_of_the_glossary_is_used() -> None:
    listed = terms(GLOSSARY.read_text(encoding="utf-8"))
    assert len(listed) >= 30
    assert len(set(listed)) == len(listed)
    files = [page for page in PAGES if page not in (GLOSSARY, ROOT / "CHANGELOG.md")]
    files += [*(ROOT / "graphnorm").rglob("*.py"), *(ROOT / "passes").rglob("*.py")]
    elsewhere = "\n".join(" ".join(file.read_text(encoding="utf-8").split()) for file in files)
    assert not unused(listed, elsewhere)


def test_a_term_that_nobody_uses_is_found() -> None:
    listed = terms("| **log-scale** | a | b |\n| **flogiston** | c | d |\n")
    assert unused(listed, "Log-scales of a weight.") == ["flogiston"]


def test_every_theory_chapter_is_listed() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for chapter in (ROOT / "docs" / "theory").glob("*.md"):
        assert f"(theory/{chapter.name})" in text, chapter
