"""Keeping what a pruned model computes close to what the original did: closed form, no labels, no gradients."""

from onnxprune.compensation.closed_form import METHODS, Compensation, compensate
from onnxprune.compensation.refit import LayerFit

__all__ = ["METHODS", "Compensation", "LayerFit", "compensate"]
