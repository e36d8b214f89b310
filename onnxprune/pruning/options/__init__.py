"""All options, defined once: what an option is, those of a plan, of a job, and of promises."""

from onnxprune.pruning.options.definition import (
    BUDGET,
    DATA,
    Given,
    Kind,
    Option,
    as_words,
    by_keyword,
    defined,
    options_of,
)
from onnxprune.pruning.options.jobs import IntegerOptions, JobOptions
from onnxprune.pruning.options.planning import AUTO, CHANNELS, MEASURED, MODES, RANKS, REGIONS, PlanOptions
from onnxprune.pruning.options.promises import AutoOptions, CompressOptions, PromiseOptions

__all__ = [
    "AUTO",
    "BUDGET",
    "CHANNELS",
    "DATA",
    "MEASURED",
    "MODES",
    "RANKS",
    "REGIONS",
    "AutoOptions",
    "CompressOptions",
    "Given",
    "IntegerOptions",
    "JobOptions",
    "Kind",
    "Option",
    "PlanOptions",
    "PromiseOptions",
    "as_words",
    "by_keyword",
    "defined",
    "options_of",
]
