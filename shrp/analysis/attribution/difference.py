"""Why one class rather than another: the difference of two logits of an input, to be explained as one logit is.

A class's probability depends on differences of logits alone. A word that raises both logits alike moves one logit, yet
not the answer; explained by the difference it has no part.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor

from shrp.analysis.attribution.instance import Instance
from shrp.errors import DataError


@dataclass(frozen=True, eq=False)
class DifferenceInstance(Instance):
    """One input whose one output is a class's logit less that of another; `against` makes it."""

    output: int
    rather_than: int

    def explained(self, logits: Tensor) -> Tensor:
        """The difference `(B, 1)`, of logits `(B, C)`; above 0 the class is likelier than the other one."""
        of_classes = super().explained(logits)
        return of_classes[:, [self.output]] - of_classes[:, [self.rather_than]]


def against(instance: Instance, output: int, rather_than: int) -> DifferenceInstance:
    """The input with the difference of two logits in place of the logits.

    Args:
        instance: one with all its classes, as `prepare` and `in_units` make it.
        output: the class, in the order of the task's labels.
        rather_than: the other one.

    Raises:
        DataError: these are no two classes of the task, as of a regression none are.
    """
    labels = instance.task.label_names
    if output == rather_than or not {output, rather_than} <= set(range(len(labels))):
        known = ", ".join(f"{place} ({name})" for place, name in enumerate(labels)) or "it has none"
        raise DataError(
            f"name two different classes of '{instance.task.name}' ({known}), not {output} and {rather_than}."
        )
    own = {field.name: getattr(instance, field.name) for field in fields(Instance)}
    return DifferenceInstance(**own, output=output, rather_than=rather_than)
