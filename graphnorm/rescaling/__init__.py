"""The rescaling graph: its variables, its objective, and which clips would gain freedom."""
