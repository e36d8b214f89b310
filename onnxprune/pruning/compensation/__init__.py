"""Keeping what a pruned model computes close to what the original did: closed form, no labels, no gradients."""

from onnxprune.pruning.compensation.closed_form import METHODS, Compensation, compensate
from onnxprune.pruning.compensation.refit import LayerFit

__all__ = ["METHODS", "Compensation", "LayerFit", "compensate"]
