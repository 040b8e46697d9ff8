"""The rescaling graph: its variables, its objective, and which clips could be rescaled."""
