"""Mixture of experts: the choice of an expert moved behind what the experts compute."""
