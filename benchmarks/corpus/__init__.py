"""All of the onnx package's backend models, compared in several ways."""
