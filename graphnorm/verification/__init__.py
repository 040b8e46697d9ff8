"""Whether two models are the same function: certificate (proof) and measurement (runs against float64).

``inputs/`` draws the inputs that models are run on, ``torch/`` and ``onnx/`` run them; ``measure`` judges a
difference by the original's own noise, ``search`` searches for an input on which they differ.
"""
