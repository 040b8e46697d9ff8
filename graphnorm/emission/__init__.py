"""New values into models: the tensors of a torch module or an ONNX model replaced, and nothing else."""
