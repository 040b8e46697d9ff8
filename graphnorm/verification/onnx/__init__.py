"""Running ONNX models for measurement: onnxruntime, the float64 reference, errors."""
