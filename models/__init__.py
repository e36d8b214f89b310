"""Reference models: small networks, trained on Fashion-MNIST and exported to ONNX by several exporters."""
