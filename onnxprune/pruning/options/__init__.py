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
from onnxprune.pruning.options.levers import CHANNELS, INT8, LEVERS, PLANNED, RANKS, RECOVERY, REGIONS, RESOLUTION
from onnxprune.pruning.options.planning import AUTO, MEASURED, MODES, PlanOptions
from onnxprune.pruning.options.promises import AutoOptions, CompressOptions, PromiseOptions, TimesOptions

__all__ = [
    "AUTO",
    "BUDGET",
    "CHANNELS",
    "DATA",
    "INT8",
    "LEVERS",
    "MEASURED",
    "MODES",
    "PLANNED",
    "RANKS",
    "RECOVERY",
    "REGIONS",
    "RESOLUTION",
    "AutoOptions",
    "CompressOptions",
    "Given",
    "IntegerOptions",
    "JobOptions",
    "Kind",
    "Option",
    "PlanOptions",
    "PromiseOptions",
    "TimesOptions",
    "as_words",
    "by_keyword",
    "defined",
    "options_of",
]
