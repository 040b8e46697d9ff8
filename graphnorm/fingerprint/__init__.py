"""Fingerprints: numbers that no rescaling and no permutation of hidden channels changes."""
