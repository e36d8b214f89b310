"""Time, measured in onnxruntime: models side by side, and layers at several widths.

Everything that measures takes an :class:`~onnxprune.ir.engine.Engine` (threads, provider) and, in tests, a clock.
"""
