"""The three validators: a student, a quantized network, a child; each against where it comes from.

Their reports have the keys of AgentFarm's, so that what reads those reads these, and some more.
Times and memory (``*_ms``, ``latency_ratio`` with its check, ``throughput``, ``memory``) differ
from run to run; everything else depends on the arguments alone. Whoever writes a report adds the
paths, the record of the states to ``states``, and ``returns`` from
:func:`engine.stages.validation.returns.play_roles`.
"""
