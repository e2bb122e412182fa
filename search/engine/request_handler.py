"""Does what users ask of a study that runs, and records what was asked and answered."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

from search.algorithms.stopping import StudyStopper
from search.engine.concurrency import max_concurrent_trials
from search.engine.study import Study
from search.engine.width import Width
from search.monitoring.terminal import clock
from search.record.database import RecordUnwritableError
from search.record.mailbox import Mailbox
from search.record.requests import (
    AnsweredRequest,
    Request,
    assignments,
    changed_setting,
    new_request,
    stopped_trials,
    trial_number,
)
from search.record.trial import TrialRecord
from search.settings import StudySettings
from search.space.toml_file import read_point
from training.console.terminal import counted, show_event

SECONDS_BETWEEN_LOOKS = 0.2
"""How often the folder of the study is read."""


@dataclass(frozen=True)
class _Effect:
    """What a request does."""

    answer: str
    """In one sentence."""
    write: Callable[[], None] = lambda: None
    """What is written together with the answer."""
    settings: StudySettings | None = None
    """The settings of the study from now on, if they change."""


class RequestHandler:
    """Answers the requests in the mailbox of a study, and those of its view.

    What a request changes in the record is written together with the answer, so that after a kill the study knows what
    it has done.
    """

    def __init__(
        self, study: Study, stopper: StudyStopper, width: Width, *, stop_waiting: Callable[[list[TrialRecord]], None]
    ) -> None:
        """Open the mailbox.

        Args:
            study: The study, which begins to run.
            stopper: Lets trials end.
            width: How many trials may run at the same time.
            stop_waiting: Ends trials that do not run, and shows it.
        """
        self._study = study
        self._record = study.record
        self._stopper = stopper
        self._width = width
        self._stop_waiting = stop_waiting
        self._mailbox = Mailbox(study.record.folder)
        self._asked = SimpleQueue[Request]()
        self._next_look = 0.0
        self._trials_have_ended = False
        self._stopped_trials = stopped_trials(study.record.metadata.requests)
        """Numbers of trials that end with their next epoch, or have ended with it."""
        with suppress(OSError):  # a study can run without a mailbox
            self._mailbox.open()

    def close(self) -> None:
        """Answer what is left, because the trials have ended, and close the mailbox."""
        self._trials_have_ended = not self._stopper.starts_no_trial()
        with suppress(RecordUnwritableError):
            self.answer_all(at_once=True)
        self._mailbox.close()

    def ask(self, words: list[str]) -> None:
        """Make a request from the view of this process, in any thread; its answer is only shown."""
        self._asked.put(new_request(words, "the live view"))

    def answer_all(self, *, at_once: bool = False) -> None:
        """Answer all requests that wait; in the thread that writes the record.

        Args:
            at_once: Whether the folder is read also if that was done a moment ago.
        """
        with suppress(Empty):
            while True:
                self._answer(self._asked.get_nowait())
        if time.monotonic() < self._next_look and not at_once:
            return
        self._next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
        with suppress(OSError):  # somebody has removed the folder of the study, which is restored
            for request in self._mailbox.take():
                self._mailbox.answer(self._answer(request))

    def began(self, trial_id: str) -> None:
        """Let a trial that begins end with its next epoch, if somebody has asked for it before."""
        if self._record.running(trial_id).number in self._stopped_trials:
            self._stopper.stopped.add(trial_id)

    def _answer(self, request: Request) -> AnsweredRequest:
        earlier = self._record.metadata.requests
        for answered in earlier:
            if answered.request.id == request.id:  # the process that has done it died before it answered
                return answered
        try:
            effect, is_done = self._carry_out(request), True
        except ValueError as error:
            effect, is_done = _Effect(str(error)), False
        settings = effect.settings or self._record.metadata.settings
        answered = AnsweredRequest(
            request=request,
            session=len(self._record.metadata.sessions) - 1,
            seconds=round(time.monotonic() - self._study.began, 3),
            is_done=is_done,
            answer=effect.answer,
        )

        def write() -> None:
            effect.write()
            self._record.update(requests=[*earlier, answered], settings=settings)

        self._record.change(write)
        self._width.set()
        show_event(f"{request.text}, asked by {request.origin}: {answered.answer}")
        return answered

    def _carry_out(self, request: Request) -> _Effect:
        """Do what is asked; a ValueError says why it cannot be done."""
        words = request.words
        if self._trials_have_ended:
            raise ValueError("the trials of the study have ended")
        if self._record.metadata.plan and request.action in ("stop-trial", "enqueue"):
            raise ValueError(f"{request.action} is not possible in a confirmation, whose trainings are planned")
        match request.action:
            case "pause":
                return self._pause()
            case "resume":
                return self._go_on()
            case "stop":
                return self._stop(request.origin)
            case "stop-trial":
                return self._stop_trial(trial_number(words))
            case "enqueue":
                return self._enqueue(assignments(words))
            case "set":
                return self._set(*changed_setting(words))

    def _pause(self) -> _Effect:
        if self._stopper.starts_no_trial():
            raise ValueError("the study is about to end")
        self._stopper.is_paused = True
        return _Effect("running trials wait after their epoch, and no other trial begins until somebody asks to resume")

    def _go_on(self) -> _Effect:
        if self._stopper.starts_no_trial():
            raise ValueError("the study is about to end, so it does not go on")
        if not self._stopper.is_paused:
            raise ValueError("the study is not paused")
        self._stopper.is_paused = False
        return _Effect("the study goes on")

    def _stop(self, origin: str) -> _Effect:
        self._stopper.end_requested = f"Ended by a request from {origin}."
        return _Effect("no trial begins any more, and the study ends when the running trials have finished their epoch")

    def _stop_trial(self, number: int) -> _Effect:
        trial = next((trial for trial in self._record.trials if trial.number == number), None)
        if trial is None:
            raise ValueError(f"no trial {number} has begun")
        if not trial.may_continue:
            raise ValueError(f"trial {number} has ended: {trial.status.replace('_', ' ')}")
        if trial.status != "running" and trial.epochs:
            self._stop_waiting([trial])
            return _Effect(f"trial {number} will not go on after {counted(len(trial.epochs), 'epoch')}")
        self._stopped_trials.add(number)
        if trial.status == "running":
            self._stopper.stopped.add(trial.trial_id)
        return _Effect(f"trial {number} ends after epoch {len(trial.epochs) + 1}")

    def _enqueue(self, values: list[str]) -> _Effect:
        record = self._record
        point = read_point(record.space, values, record.metadata.task.config_type())
        settings, queued = record.metadata.settings, record.queued()
        answer = f"trial {record.next_number()} has these values"
        if queued:
            answer += f", and begins after {counted(len(queued), 'queued trial')}"
        planned = len(record.trials) + len(queued) + 1
        if planned > settings.num_samples:
            settings = replace(settings, num_samples=planned)
            answer += f"; the study has {counted(planned, 'trial')} now"
        return _Effect(answer, lambda: record.enqueue(point), settings)

    def _set(self, name: str, value: str) -> _Effect:
        settings = self._record.metadata.settings
        match name:
            case "num-samples":
                return self._set_num_samples(settings, value)
            case "max-concurrent":
                number = _whole_number(name, value)
                if not 1 <= number <= self._width.capacity:
                    raise ValueError(
                        f"max-concurrent must be from 1 to {self._width.capacity}, for so many trials there is room, "
                        f"got {value}"
                    )
                changed = replace(settings, max_concurrent=number)
                width = max_concurrent_trials(changed, self._width.capacity)
                return _Effect(f"at most {counted(width, 'trial')} at a time from now on", settings=changed)
            case _:
                budget = None if value == "none" else value
                seconds = replace(settings, time_budget=budget).time_budget_seconds
                self._stopper.set_time_budget(seconds)
                if seconds is None:
                    return _Effect("the study has no time budget any more")
                left = seconds - (time.monotonic() - self._study.began)
                return _Effect(
                    f"the time budget of this session is {value}, of which {clock(left)} is left"
                    if left > 0
                    else f"the time budget of this session is {value}, which is used up: the study ends"
                )

    def _set_num_samples(self, settings: StudySettings, value: str) -> _Effect:
        if self._record.metadata.plan:
            raise ValueError("the number of trainings of a confirmation is planned")
        number = _whole_number("num-samples", value.removeprefix("+"))
        if value.startswith("+"):
            number += settings.num_samples
        least = max(1, len(self._record.trials))
        if number < least:
            raise ValueError(f"num-samples must be >= {least}, because so many trials have begun, got {value}")
        answer = f"the study has {counted(number, 'trial')} now"
        left_out = len(self._record.trials) + len(self._record.queued()) - number
        if left_out > 0:
            answer += f", so {counted(left_out, 'queued trial')} will not begin"
        return _Effect(answer, settings=replace(settings, num_samples=number))


def _whole_number(name: str, value: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise ValueError(f"{name} must be a whole number, got {value}")
    return int(value)
