"""Write graphnorm/ops/defaults.py from ONNX's schemas: ``python -m tools.operator_defaults``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from onnx import defs

from graphnorm.frontends.onnx.schemas import schema_defaults

TARGET = Path(__file__).resolve().parents[1] / "graphnorm" / "ops" / "defaults.py"
HEAD = '''"""Attributes at the defaults of ONNX's schemas, written by `tools.operator_defaults`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPSET = {opset}
"""The opset whose schemas these are, each operator in its newest version."""

SCHEMAS: Mapping[str, Mapping[str, Any]] = {{
'''


def newest() -> dict[str, dict[str, Any]]:
    """Operator of ONNX's main domain -> its defaults."""
    schemas = sorted((s for s in defs.get_all_schemas() if not s.domain), key=lambda schema: schema.name)
    found = {schema.name: schema_defaults(schema) for schema in schemas}
    return {name: defaults for name, defaults in found.items() if defaults}


def main() -> None:
    """Write the file anew."""
    rows = "".join(f"    {name!r}: {defaults!r},\n" for name, defaults in newest().items())
    TARGET.write_text(HEAD.format(opset=defs.onnx_opset_version()) + rows + "}\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(TARGET)], check=True)


if __name__ == "__main__":
    main()
