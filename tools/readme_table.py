"""Write the operator table into README.md: ``python tools/readme_table.py``."""

from __future__ import annotations

from pathlib import Path

from graphnorm.cli.operator_table import markdown, replace_table

README = Path(__file__).resolve().parents[1] / "README.md"


def main() -> None:
    README.write_text(replace_table(README.read_text(encoding="utf-8"), markdown()), encoding="utf-8")


if __name__ == "__main__":
    main()
