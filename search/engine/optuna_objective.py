"""The trial that an Optuna objective receives: the study has proposed its values, and its reports go to the study."""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FixedTrial

from search.engine.reporter import Reporter
from search.record.trial import Objective
from training.config_fields import NONE


class ObjectiveTrial(FixedTrial):
    """Suggests the values of a trial of the study, and reports its metric."""

    def __init__(
        self, hyperparameters: Mapping[str, Any], number: int, objective: Objective, reporter: Reporter
    ) -> None:
        super().__init__(dict(hyperparameters), number)
        self._objective = objective
        self._reporter = reporter

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._params:
            raise ValueError(f"the objective suggests {name}, which the search space does not have in this trial")
        choices = distribution.choices if isinstance(distribution, CategoricalDistribution) else ()
        if self._params[name] == NONE and None in choices:  # a search space has no None
            self._params[name] = None
        return super()._suggest(name, distribution)

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
