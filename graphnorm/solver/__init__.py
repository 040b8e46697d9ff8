"""Φ(z) = Σ A exp(p (r(z) + c(z))) minimised over log-scales z, with a certificate of optimality.

Arrays only: ``problem`` states it, ``method`` is what every method takes and returns, ``solve`` chooses.
Nothing here knows of networks.
"""
