"""Small torch functions that together call every ATen operator with a lowering, by subject."""
