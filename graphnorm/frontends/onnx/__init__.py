"""ONNX models as IR: read, ordered, evaluated at concrete sizes, bodies joined to the main graph."""
