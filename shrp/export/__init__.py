"""Models as ONNX: written, checked, and run as they are served."""
