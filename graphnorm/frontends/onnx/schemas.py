"""What ONNX's schemas say of attributes that are left out."""

from __future__ import annotations

from typing import Any

from onnx import defs, helper


def schema_defaults(schema: defs.OpSchema) -> dict[str, Any]:
    """Attribute -> default, for those that have one; strings as text, lists as tuples."""
    found = {}
    for name, attribute in sorted(schema.attributes.items()):
        if attribute.default_value.type:
            value = helper.get_attribute_value(attribute.default_value)
            if isinstance(value, list):
                value = tuple(item.decode() if isinstance(item, bytes) else item for item in value)
            found[name] = value.decode() if isinstance(value, bytes) else value
    return found
