"""Training with rescalings: ENorm after each optimizer step, implicit ENorm, Path-SGD."""
