"""Mixture of experts: the choice of an expert moved behind the experts' computation."""
