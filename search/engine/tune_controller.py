"""Ray Tune's loop without what grows with the number of trials, and with one transaction for what arrives together."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import ray
from ray.tune import Callback, registry
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback

from search.record.study_record import StudyRecord

FEWEST_TOGETHER = 4
"""With fewer running trials, reports seldom arrive together, and it costs more to ask for them than to wait."""


class StudyController(TuneController):  # type: ignore[misc]
    """Handles all reports that have arrived in one step, and forgets the trials that have ended.

    Ray's own controller handles one report in a step, and in each step it looks at all trials that there ever were.
    Nobody asks it for those that have ended: the record has them.
    """

    def __init__(self, *args: Any, record: StudyRecord, callbacks: list[Callback], **options: Any) -> None:
        self._record = record
        self._waiting: list[Trial] | None = None
        """Trials whose workers go on when their reports are recorded; None while each report is recorded by itself."""
        silent = [callback for callback in callbacks if not isinstance(callback, TrialProgressCallback)]
        super().__init__(*args, callbacks=silent, **options)  # Ray's own display shows nothing, and keeps all trials

    def step(self) -> None:
        """Handle one event as Ray does, and then all that have arrived meanwhile."""
        super().step()
        self._handle_arrived()
        self._forget_ended()

    def _handle_arrived(self) -> None:
        """Handle the events that wait; a worker goes on only when its epoch is in the record.

        Otherwise a crash could leave a checkpoint that is more than one epoch ahead of the record.
        """
        events = self._actor_manager._actor_task_events
        futures = list(events.get_futures())
        if len(futures) < FEWEST_TOGETHER:
            return
        arrived, _ = ray.wait(futures, num_returns=len(futures), timeout=0)
        self._waiting = []
        try:
            with self._record.epochs_together():
                for future in arrived:
                    if future in events.get_futures():  # an event before it may have ended its actor
                        events.resolve_future(future)
        finally:
            waiting, self._waiting = self._waiting, None
        for trial in waiting:
            if trial in self._trial_to_actor:
                self._schedule_trial_train(trial)

    def _schedule_trial_train(self, trial: Trial) -> None:
        if self._waiting is None:
            super()._schedule_trial_train(trial)
        else:
            self._waiting.append(trial)

    def _forget_ended(self) -> None:
        ended = {
            trial for trial in self._stopped_trials | self._failed_trials if trial not in self._trial_to_actor
        } - self._live_trials
        if ended:
            self._trials[:] = [trial for trial in self._trials if trial not in ended]
            for group in (self._stopped_trials, self._failed_trials, self._trials_to_cache):
                group.difference_update(ended)
            for trial in ended:
                self._trial_metadata.pop(trial.trial_id, None)
            manager = self._actor_manager  # it keeps what was scheduled for actors that were not needed after all
            for actor in manager._pending_actors_to_enqueued_actor_tasks.keys() - manager._pending_actors_to_attrs:
                del manager._pending_actors_to_enqueued_actor_tasks[actor]

    def __getstate__(self) -> dict[str, Any]:
        """What Ray saves at the end, which is never read."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name not in ("_record", "_waiting")}


@contextmanager
def controlled(record: StudyRecord) -> Iterator[None]:
    """Let Ray Tune run trials by our controller, and read what it has registered once; it has no parameters for this.

    It would unpickle the trainable twice for each trial, each time as another class, of which all would stay in memory.
    """
    read_once = functools.cache(registry._global_registry.get)
    with (
        mock.patch("ray.tune.tune.TuneController", functools.partial(StudyController, record=record)),
        mock.patch.object(registry._global_registry, "get", read_once),
    ):
        yield
