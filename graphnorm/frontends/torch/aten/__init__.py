"""Lowerings of ATen operators to the IR's, by family; ``table`` joins them."""
