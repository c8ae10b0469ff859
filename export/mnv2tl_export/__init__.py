"""From a run to files that others deploy: ONNX, the gate before publishing, and prediction."""
