"""ONNX models as something to measure: onnxruntime, the float64 anchor, errors."""
