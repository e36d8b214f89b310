"""The certificate: every tensor of the pruned model equals that of the masked original at the kept positions.

The masked original is built without the code that shrinks: it keeps all channels, but whatever contracts or reduces
over removed positions does not see them (weights zeroed there; normalisers across channels see kept ones only).
"""

from onnxprune.ir.comparing import TensorDifference
from onnxprune.pruning.certificate.certificate import Certificate, Unwitnessed
from onnxprune.pruning.certificate.verifying import MEMORY, TOLERANCE, check, verify

__all__ = ["MEMORY", "TOLERANCE", "Certificate", "TensorDifference", "Unwitnessed", "check", "verify"]
