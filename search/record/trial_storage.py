"""Optuna's storage of a record: trials are read from memory; what changes in them is also written into the database."""

import copy
from collections.abc import Callable, Container, Sequence
from datetime import datetime
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from search.record import database as rows
from search.record.database import StudyStorage

EPOCH = "epoch "
"""How the names of the attributes with the metrics of epochs begin."""
Result = TypeVar("Result")


class TrialStorage(BaseStorage):
    """The trials of one study in memory, before the database into which each change of them is written.

    Only one process writes a study, so memory and database agree, and no trial is read twice: Optuna's own cache reads
    all trials that have not ended again at each proposal. All that a change writes goes into the database with one
    statement for each table. The metrics of epochs are not kept here, because `TrialRecord` has them.
    """

    def __init__(self, database: StudyStorage) -> None:
        self._database = database
        self._trials: list[FrozenTrial] = []
        """By number. A trial is replaced when it changes, so that those who have read it can keep it."""
        self._numbers: dict[int, int] = {}
        """By the database's name of a trial."""
        self._unfinished: set[int] = set()
        """Numbers of the trials that run or wait."""
        self._is_read = False
        self._directions: dict[int, list[StudyDirection]] = {}
        self._distributions: dict[str, BaseDistribution] = {}
        """The newest distribution of each hyperparameter, so that equal ones are one object."""
        self._in_change = False
        self._later: list[Callable[[], object]] = []
        """Changes that the next one makes first."""
        self._calls: list[Callable[[], object]] = []
        """What is called after the next change."""
        self._before: dict[int, FrozenTrial | None] = {}
        """The trials that the change in progress has changed, as they were before it, by number; None for a new one."""
        self._rows: rows.Rows = {}
        """What the change in progress will write."""

    def change(self, make: Callable[[], Result]) -> Result:
        """Make a change in one transaction, as `StudyStorage.change` does, and undo it here where it fails.

        Args:
            make: It must return the same result when it is called again.
        """
        if self._in_change:
            return make()  # part of a larger change

        def attempt() -> Result:
            self._undo()  # an attempt before this one has failed
            for make_earlier in self._later:
                make_earlier()
            result = make()
            self._database.write(self._rows)
            return result

        self._in_change = True
        try:
            result = self._database.change(attempt)
        except BaseException:
            self._undo()
            raise
        finally:
            self._in_change = False
            self._before.clear()
            self._rows.clear()
        self._later.clear()
        calls, self._calls = self._calls, []
        for call in calls:
            call()
        return result

    def change_later(self, make: Callable[[], object]) -> None:
        """Make a change at the beginning of the next one, in the same transaction."""
        self._later.append(make)

    def call_later(self, call: Callable[[], object]) -> None:
        """Call a function after the next change."""
        self._calls.append(call)

    def make_later_changes(self) -> None:
        """Make the changes that wait for the next one."""
        if self._later or self._calls:
            self.change(lambda: None)

    def forget_epochs(self) -> None:
        """Forget the metrics of epochs, which were read from the database."""
        for number, trial in enumerate(self._trials):
            self._trials[number] = kept = copy.copy(trial)
            kept.user_attrs = {key: value for key, value in trial.user_attrs.items() if not key.startswith(EPOCH)}

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Add a trial, which runs unless a template says something else."""
        self._read(study_id)

        def create() -> int:
            number = len(self._trials)
            if template_trial is None:
                trial = FrozenTrial(number, TrialState.RUNNING, None, datetime.now(), None, {}, {}, {}, {}, {}, -1)
            else:
                trial = copy.deepcopy(template_trial)
                trial.number = number
            trial._trial_id = self._database.add_trial(study_id, trial)
            self._rows |= {(table, trial._trial_id, key): row for table, key, row in rows.rows_of(trial)}
            self._before[number] = None
            self._trials.append(trial)
            self._note(trial)
            return trial._trial_id

        return self.change(create)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Set a hyperparameter of a trial."""
        known = self._distributions.get(param_name, distribution)
        check_distribution_compatibility(known, distribution)
        if known == distribution:
            distribution = known
        self._distributions[param_name] = distribution
        value = distribution.to_external_repr(param_value_internal)

        def change(trial: FrozenTrial) -> None:
            trial.params = {**trial.params, param_name: value}
            trial.distributions = {**trial.distributions, param_name: distribution}

        self._change_trial(trial_id, change, rows.param_row(param_name, value, distribution))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set the state of a trial, and its value if it has one; returns False if it cannot run because it does."""
        before = self._trial(trial_id)
        self.check_trial_is_updatable(trial_id, before.state)
        if state == TrialState.RUNNING and before.state != TrialState.WAITING:
            return False

        def change(trial: FrozenTrial) -> None:
            trial.state = state
            if values is not None:
                trial.values = list(values)
            if state == TrialState.RUNNING:
                trial.datetime_start = started
            if state.is_finished():
                trial.datetime_complete = ended

        started = ended = datetime.now()
        changed = rows.state_row(
            state,
            started if state == TrialState.RUNNING else before.datetime_start,
            ended if state.is_finished() else before.datetime_complete,
        )
        self._change_trial(trial_id, change, changed, *([rows.value_row(values[0])] if values else []))
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set the objective's value of a trial after an epoch."""

        def change(trial: FrozenTrial) -> None:
            trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

        self._change_trial(trial_id, change, rows.intermediate_row(step, intermediate_value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute of a trial."""

        def change(trial: FrozenTrial) -> None:
            if not key.startswith(EPOCH):
                trial.user_attrs = {**trial.user_attrs, key: value}

        self._change_trial(trial_id, change, rows.user_row(key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a system attribute of a trial, which Optuna itself uses."""

        def change(trial: FrozenTrial) -> None:
            trial.system_attrs = {**trial.system_attrs, key: value}

        self._change_trial(trial_id, change, rows.system_row(key, value))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A copy of a trial, which Optuna changes."""
        trial = copy.copy(self._trial(trial_id))
        for name in ("params", "distributions", "user_attrs", "system_attrs", "intermediate_values"):
            setattr(trial, name, dict(getattr(trial, name)))
        return trial

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """All trials of the study with one of these states, by number."""
        self._read(study_id)
        trials = self._trials
        if states is not None:
            if not any(state in states for state in TrialState if state.is_finished()):
                trials = [trials[number] for number in sorted(self._unfinished)]
            trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else list(trials)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """The database's name of a trial."""
        self._read(study_id)
        return int(self._trials[trial_number]._trial_id)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Create the study."""
        return int(self._database.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        """Delete the study; nothing does."""
        self._database.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of the study."""
        self._database.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of the study, which Optuna itself uses."""
        self._database.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """The database's name of a study."""
        return int(self._database.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        """The name of a study."""
        return str(self._database.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """The direction of the study, in a list."""
        if study_id not in self._directions:
            self._directions[study_id] = self._database.get_study_directions(study_id)
        return self._directions[study_id]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """The attributes of the study."""
        return dict(self._database.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """The attributes of the study that Optuna itself uses."""
        return dict(self._database.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        """All studies in the database."""
        return list(self._database.get_all_studies())

    def _read(self, study_id: int) -> None:
        """Read the trials from the database, once."""
        if not self._is_read:
            for trial in self._database.read_trials(study_id):
                self._trials.append(trial)
                self._note(trial)
            self._is_read = True

    def _trial(self, trial_id: int) -> FrozenTrial:
        return self._trials[self._numbers[trial_id]]

    def _note(self, trial: FrozenTrial) -> None:
        self._numbers[trial._trial_id] = trial.number
        (self._unfinished.discard if trial.state.is_finished() else self._unfinished.add)(trial.number)

    def _change_trial(self, trial_id: int, change: Callable[[FrozenTrial], None], *changed: rows.Row) -> None:
        """Replace a trial by a copy that is changed, and write the rows that have changed."""

        def make() -> None:
            before = self._trial(trial_id)
            trial = copy.copy(before)
            change(trial)
            self._before.setdefault(trial.number, before)
            self._trials[trial.number] = trial
            self._note(trial)
            self._rows |= {(table, trial_id, key): row for table, key, row in changed}

        self.change(make)

    def _undo(self) -> None:
        """Bring the trials back as they were before the change in progress."""
        for number, before in sorted(self._before.items(), reverse=True):
            if before is None:
                self._unfinished.discard(number)
                self._numbers.pop(self._trials.pop()._trial_id, None)
            else:
                self._trials[number] = before
                self._note(before)
        self._before.clear()
        self._rows.clear()
