"""Damaged ONNX files against the command line: `python -m tools.fuzz --help`."""
