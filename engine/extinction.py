"""When a run ends because nothing succeeds any more."""

from __future__ import annotations

from collections.abc import Sequence

from populations.errors import CultivarError
from populations.plans import ChildPlan, Plan, Result

ADVICE = {  # by phase and what became of all
    ("children", "failed"): ". 'cultivar operators check' tells what is wrong with an operator; "
    "then start again in another --run-dir, since this run would only fail once more",
    ("students", "rejected"): ". Better teachers (teachers.training.steps) or longer training "
    "(distillation.steps) may help",
}
WORDS = {"failed": "failed", "lost": "were lost", "rejected": "were rejected"}


class ExtinctionError(CultivarError):
    """Not one birth or evaluation of a stage succeeded."""


def refuse_extinction(plans: Sequence[Plan], results: Sequence[Result]) -> None:
    """Stop where nothing of a stage succeeded: going on would only burn time.

    Raises:
        ExtinctionError: There is no result that is ``ok``.
    """
    if not plans or any(result.status == "ok" for result in results):
        return
    first = results[0]
    advice = ADVICE.get((plans[0].phase, first.status), "")
    raise ExtinctionError(
        f"all {len(plans)} {plans[0].phase} of generation {plans[0].generation} "
        f"{WORDS[first.status]}; the first one because: {first.reason}{advice}"
    )


class Offspring:
    """Watches whether children keep coming.

    In a generation of few children, all may fail by chance: a run that was well before goes on with
    their parents. If not one child of the first generation succeeds, or of two in a row, something
    is wrong with all of them.
    """

    def __init__(self) -> None:
        self._was_barren = False

    def is_barren(self, births: Sequence[ChildPlan], results: Sequence[Result]) -> bool:
        """Tell whether all children of a generation failed or were lost.

        Args:
            births: The births of the generation, controls included.
            results: What became of each.

        Raises:
            ExtinctionError: They did, and it is the first generation or the second one in a row.
        """
        pairs = [
            (plan, result)
            for plan, result in zip(births, results, strict=True)
            if plan.kind == "child"
        ]
        barren = all(result.status in ("failed", "lost") for _, result in pairs)
        if barren and (self._was_barren or births[0].generation == 1):
            refuse_extinction([plan for plan, _ in pairs], [result for _, result in pairs])
        self._was_barren = barren
        return barren
