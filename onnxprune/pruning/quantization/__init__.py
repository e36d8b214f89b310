"""8-bit integers, by onnxruntime.quantization: what becomes int8, the file, its proof and what it costs."""
