"""The ONNX graph: load from any source, specs, cuts and pieces, precision rewriting. Knows no other folder."""
