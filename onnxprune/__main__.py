"""``python -m onnxprune``: the same as the command ``onnxprune``."""

from onnxprune.cli import main

if __name__ == "__main__":
    main()
