"""Models of a framework as `graphnorm.ir.Graph`: ``torch/`` through torch.export, ``onnx/`` through onnx_ir.

``routing/`` rewrites mixtures of experts of either.  Operators keep their ONNX names; what has no ONNX name
gets one of graphnorm's own domain.  A framework is imported when the first model of it is read.
"""
