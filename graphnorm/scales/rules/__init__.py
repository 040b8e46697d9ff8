"""The rules for scales, by family; ``table`` joins them."""
