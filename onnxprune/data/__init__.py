"""Data sets that models are trained, calibrated and evaluated with, read from a short text: a SPEC.

``read_data`` reads ``.npz`` files, folders of IDX files or images, and what a Python function returns; whatever it
was, it comes out as :class:`Batches` in the layout and type of the model's inputs.
"""

from onnxprune.data.batches import ArrayBatches, Batch, Batches, Data
from onnxprune.data.inputs import InputSpec, inputs_of
from onnxprune.data.reading import read_data
from onnxprune.errors import DataError

__all__ = ["ArrayBatches", "Batch", "Batches", "Data", "DataError", "InputSpec", "inputs_of", "read_data"]
