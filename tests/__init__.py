"""Tests of onnxprune; they mirror its packages."""
