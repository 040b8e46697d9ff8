"""Whether two models compute the same: the certificate (proof) and the measurement (runs against float64).

``inputs/`` draws what models are run on, ``torch/`` and ``onnx/`` run them; ``measure`` judges a difference
by the original's own noise, ``search`` looks for an input on which the two part.
"""
