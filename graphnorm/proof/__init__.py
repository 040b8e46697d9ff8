"""Proofs of equivalence: pairs of networks, recovered coefficients and permutations, certificates."""
