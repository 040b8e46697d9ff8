"""Small torch functions that together call every ATen operator with a lowering, by subject."""

import torch

torch.manual_seed(0)  # the tables draw weights and inputs
