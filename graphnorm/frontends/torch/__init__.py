"""PyTorch models as IR, through ``torch.export``."""
