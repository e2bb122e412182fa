"""The trial that an Optuna objective receives: the study has proposed its values, and its reports go to the study."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FixedTrial

from search.engine.reporter import Reporter
from search.record.trial import Objective
from search.space.objective_space import ObjectiveStudy
from training.config_fields import NONE


class ObjectiveTrial(FixedTrial):
    """Suggests the values of a trial of the study, and reports its metric."""

    def __init__(
        self, hyperparameters: Mapping[str, Any], number: int, objective: Objective, reporter: Reporter, *, study: str
    ) -> None:
        """Suggest nothing yet; `study` is the name of the study."""
        self._values = dict(hyperparameters)
        super().__init__(self._values, number)
        self.study = ObjectiveStudy(study, objective.mode)
        self._objective = objective
        self._reporter = reporter

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        """Return the value of the study."""
        self._check(name)
        return super().suggest_float(name, low, high, **options)

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        """Return the value of the study."""
        self._check(name)
        return super().suggest_int(name, low, high, **options)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return the value of the study."""
        self._check(name)
        if self._values[name] == NONE and None in choices:  # a search space has no None
            self._values[name] = None
        return super().suggest_categorical(name, choices)

    def _check(self, name: str) -> None:
        if name not in self._values:
            raise ValueError(f"the objective suggests {name}, which the search space does not have in this trial")

    def report(self, value: float, step: int) -> None:  # noqa: ARG002
        """Report the metric of the next epoch; its number is the number of reports, whatever the step is."""
        if self.should_prune():
            self._reporter({})  # raises its end
        try:
            self._reporter({self._objective.metric: value})
        except BaseException:
            if isinstance(self._reporter.end, Exception):  # a value that is refused
                raise

    def should_prune(self) -> bool:
        """Whether the study has stopped the trial, or it has reached the last epoch."""
        return self._reporter.end is not None
