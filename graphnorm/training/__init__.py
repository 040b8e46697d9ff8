"""Training with rescalings: ENorm after each optimizer step, implicit ENorm, Path-SGD."""

from graphnorm.util.extras import needing

with needing("graphnorm.training"):
    import torch  # noqa: F401  every module here is made of it
