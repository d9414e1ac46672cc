"""The three validators: a student, a quantized network, a child; each against where it comes from.

Their reports have the keys of AgentFarm's, so that what reads those reads these, and some more.
Times and memory (``*_ms``, ``latency_ratio`` with its check, ``throughput``, ``memory``) differ
from run to run; everything else depends on the arguments alone. Whoever writes a report adds the
paths, the record of the states to ``states``, and ``returns`` from
:func:`engine.stages.returns.play_roles`.
"""

from engine.stages.child_validation import oracle_agreement, validate_child
from engine.stages.quantized_validation import validate_quantized
from engine.stages.student_validation import robustness_slices, validate_student

__all__ = [
    # the validators
    "validate_student",
    "validate_quantized",
    "validate_child",
    # parts of them
    "robustness_slices",
    "oracle_agreement",
]
