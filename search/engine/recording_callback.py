"""Writes what the trials of a study report into its record, and shows it."""

import functools
import re
import time
from pathlib import Path
from typing import Any

from ray import tune

from search.algorithms.promotion import Promotion
from search.algorithms.stopping import StudyStopper
from search.engine.report_lines import NO_MATCH
from search.engine.request_handler import RequestHandler
from search.engine.study import Study
from search.engine.time_limit import read_stacks
from search.engine.trial_folder import UNENDED
from search.engine.width import Width
from search.monitoring.loggers import Loggers
from search.monitoring.prometheus import Gauges
from search.monitoring.terminal import View, trial_name
from search.outputs.files import StudyFiles
from search.record.trial import ENDED_BY_RAY, Failure, MemoryUse, Timing, TrialRecord
from training.console.terminal import printable, show_event

DIVIDED = (
    "the memory does not suffice for whole batches: they are divided into micro-batches, whose gradients are added up "
    "(micro_batch_size in trials.csv)"
)
MB_PER_GB = 2**30 / 10**6
"""Megabytes in what Ray calls a GB."""


class RecordingCallback(tune.Callback):  # type: ignore[misc]
    """Writes the reports of Ray's trials into the record, the tables, the loggers and the terminal."""

    def __init__(self, study: Study, files: StudyFiles, loggers: Loggers, stopper: StudyStopper, view: View):
        self._record = study.record
        self._files = files
        self._loggers = loggers
        self._view = view
        self._gauges = Gauges(study.record)
        self._max_failures = study.settings.max_failures
        self._stopper = stopper
        self._study_began = study.began
        self._nodes: dict[str, int] = {}
        """Number of each node, by its address."""
        self._pids: dict[str, int] = {}
        """Process id of the worker of each trial that has reported, by Ray's id of the trial."""
        self._unended = {trial.number for trial in self._record.trials if self._unended_file(trial).is_file()}
        """Numbers of the trials whose training went on after their end, and whose worker was therefore ended."""
        self._width = Width(study, stopper)
        self._requests = RequestHandler(study, stopper, self._width, stop_waiting=self._stop)
        self._warnings: set[str] = set()
        """Warnings of workers that were printed; each is printed once."""
        self._view.begin_trials()

    def on_step_begin(self, **_: Any) -> None:
        """Do what users ask of the study, and follow the machines of a cluster."""
        self.look_around()

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """Show a trial that begins in a worker."""
        if trial.trial_id in self._record.running_ids():  # it may have been interrupted before it began
            self._requests.began(trial.trial_id)
            self._view.show_started(self._record.running(trial.trial_id))

    def ask(self, words: list[str]) -> None:
        """Make a request from the view."""
        self._requests.ask(words)

    def close(self) -> None:
        """Answer the requests that are left, because the trials have ended."""
        self._requests.close()
        self._width.close()

    def look_around(self, *, at_once: bool = False) -> None:
        """Do what users ask of the study, and follow the machines of a cluster; Ray asks for nothing while it waits.

        Args:
            at_once: Whether requests are looked for also if that was done a moment ago.
        """
        self._requests.answer_all(at_once=at_once)
        self._width.follow_cluster()

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Record an epoch, or the failure with which the trial is about to end."""
        self._pids[trial.trial_id] = result["pid"]
        if "left" in result:
            self._width.follow_cluster(at_once=True)  # before the trial begins anew, which must not be there
        self._warn(result.get("warning"))
        if "memory" in result:
            memory = MemoryUse(**result["memory"])
            self._record.add_memory(trial.trial_id, memory)
            self._warn(DIVIDED if memory.micro_batch_size else None)
        if "failure" in result:
            if self._stopper.signal is not None:
                return  # the signal may have ended the processes of the training; the study is resumed with this trial
            if not self._width.trusts(result["node"]):
                self._stopper.interrupted.add(trial.trial_id)  # it is tried again on another node
                return
            self._record.add_failure(trial.trial_id, Failure(**result["failure"]), self._timing(result, 0.0))
            return
        if "metrics" in result:
            metrics = self._record.read_metrics(result)
            waiting_seconds = result["waiting_seconds"]
            timing = None if waiting_seconds is None else self._timing(result, waiting_seconds)
            self._record.add_epoch(trial.trial_id, metrics, timing)
            self._record.when_recorded(functools.partial(self._show_epoch, self._record.running(trial.trial_id)))
        if "ended" in result:
            self._record.end_by_itself(trial.trial_id)

    def _warn(self, warning: str | None) -> None:
        """Print a warning of a worker, unless it was printed before."""
        if warning and warning not in self._warnings:
            self._warnings.add(warning)
            show_event(warning)

    def _show_epoch(self, trial: TrialRecord) -> None:
        self._gauges.epoch(trial)
        self._loggers.epoch(trial)
        self._view.show_epoch(trial)

    def _timing(self, result: dict[str, Any], waiting_seconds: float) -> Timing:
        return Timing(
            session=len(self._record.metadata.sessions) - 1,
            node=self._nodes.setdefault(result["node_ip"], len(self._nodes)),
            pid=result["pid"],
            waiting_seconds=max(0.0, round(waiting_seconds, 3)),
            reported=round(time.monotonic() - self._study_began, 3),
        )

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """Record a trial that completed, or that was stopped by the scheduler or because the time is up."""
        interrupted, stopped = self._stopper.interrupts(trial.trial_id), trial.trial_id in self._stopper.stopped
        self._finish(trial.trial_id, interrupted=interrupted, stopped=stopped)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """Record a trial that raised an error, or whose worker died: then the trial goes on in another worker."""
        if self._stopper.interrupts(trial.trial_id):
            self._finish(trial.trial_id, interrupted=True)
            return
        text = Path(trial.error_file).read_text() if trial.error_file else "Ray gave no reason"
        if re.search(r"The actor \w+ is unavailable|its node has died", text):
            # The trial is not to blame; but if it never reported from that node, it may have crashed the node
            failure = Failure("worker_died", "worker lost: its node died or cannot be reached", text)
            self.worker_died(trial.trial_id, failure, counts=trial.trial_id not in self._pids)
        else:
            self.worker_died(trial.trial_id, Failure("worker_died", f"worker died: {main_sentence(text)}", text))

    def worker_died(self, trial_id: str, failure: Failure, *, counts: bool = True) -> None:
        """Record that a trial lost its worker, and let the trial go on unless this has happened too often.

        Args:
            trial_id: Ray's id of the trial.
            failure: The failure of the trial if it does not go on.
            counts: Whether this failure counts towards `max_failures`.
        """
        trial = self._record.running(trial_id)
        if self._stopper.signal is not None:
            self._finish(trial_id, interrupted=True)
            return
        if self._record.checkpoints.store:
            self._record.checkpoints.store.fetch_notes()
        if unended := self._unended_before(trial):
            self._unended_trial_lost_its_worker(trial_id, unended)
            return
        stacks = read_stacks(self._record.checkpoints.file(trial.number))
        if stacks:  # the worker ended itself, because its time was up
            failure = Failure("timeout", f"took longer than trial_timeout{_location(stacks)}", stacks)
        if (
            trial.failure is None
            and not stacks
            and (not counts or self._record.add_worker_failure(trial_id) <= self._max_failures)
        ):
            epoch = len(trial.epochs)
            after = f"continues after epoch {epoch}" if epoch else "starts again"
            show_event(f"{trial_name(self._record, trial)}: {failure.error}; the trial {after}")
            self._finish(trial_id, interrupted=True)
        else:
            self._record.add_failure(trial_id, failure)
            self._finish(trial_id)

    def _unended_before(self, died: TrialRecord) -> TrialRecord | None:
        """The trial whose training went on after its end, so that the worker of a trial was ended; None if none did.

        It is the same trial, or an earlier one whose worker it waited for, and from which it has not reported yet.
        """
        possible = [died] if died.trial_id in self._pids else self._record.trials
        new = (trial for trial in possible if trial.number not in self._unended)
        unended = next((trial for trial in new if self._unended_file(trial).is_file()), None)
        if unended:
            self._unended.add(unended.number)
        return unended

    def _unended_trial_lost_its_worker(self, trial_id: str, unended: TrialRecord) -> None:
        """End a trial whose training went on after its end; another one that waited for its worker gets a new one."""
        show_event(f"{trial_name(self._record, unended)} went on after its end, so its worker was ended")
        limit = self._record.epoch_limit
        if unended.trial_id == trial_id and (limit is None or len(unended.epochs) < limit):
            text = self._unended_file(unended).read_text()
            failure = Failure("exception", f"went on after its end: {printable(text.partition(chr(10))[0])}", text)
            self._record.add_failure(trial_id, failure)
        self._finish(trial_id, interrupted=True)

    def _unended_file(self, trial: TrialRecord) -> Path:
        return self._record.checkpoints.trial_folder(trial.number) / UNENDED

    def memory_ran_out(self, report: str) -> None:
        """Record that Ray ended workers because the memory was full; trials of other workers are only interrupted."""
        killed = re.findall(r"Selected to kill: .*?pid=(\d+).*?used=([\d.]+GB)", report)
        victims = {int(pid): used for pid, used in killed}
        for trial_id in self._record.running_ids():
            pid = self._pids.get(trial_id)  # None before its first epoch: then its worker may be among those
            if pid is None or pid in victims:
                used = f", which used {victims[pid]}" if pid in victims else ""
                if pid in victims:
                    memory = MemoryUse(peak_mb=round(float(victims[pid].removesuffix("GB")) * MB_PER_GB))
                    self._record.add_memory(trial_id, memory)
                failure = Failure("out_of_memory", f"{ENDED_BY_RAY}{used}", report)
                self.worker_died(trial_id, failure)
            else:
                self._finish(trial_id, interrupted=True)

    def _finish(self, trial_id: str, *, interrupted: bool = False, stopped: bool = False) -> None:
        self._pids.pop(trial_id, None)
        trial = self._record.finish(trial_id, interrupted=interrupted, stopped=stopped)
        if trial.status == "paused":
            promotion = Promotion(self._record.metadata.settings)
            self._stop(promotion.without_chance(self._record.trials), shown_later=trial)
        elif trial.status != "interrupted":
            self._loggers.ended(trial)
        self._gauges.ended()
        self._files.refresh()
        if trial.status != "interrupted":
            self._stopper.observe(trial)
            if trial.failure and NO_MATCH in trial.failure.error and not any(one.epochs for one in self._record.trials):
                self._stopper.repeated_failure = f"{trial_name(self._record, trial)} ended, and {NO_MATCH}."
            self._view.show_ended(trial)

    def stop_paused(self) -> None:
        """Record that the paused trials will not continue, because the study is complete."""
        self._stop([trial for trial in self._record.trials if trial.status == "paused"])
        self._files.refresh()

    def _stop(self, waiting: list[TrialRecord], *, shown_later: TrialRecord | None = None) -> None:
        if waiting:
            self._record.stop_waiting(waiting)
        for trial in waiting:
            self._loggers.ended(trial)
            if trial is not shown_later:
                self._view.show_stopped(trial)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles callbacks into its scratch folder


def main_sentence(text: str) -> str:
    """Find the most informative sentence of an error text: Ray writes it at the beginning of the last line."""
    return printable(text.strip().splitlines()[-1].partition(". ")[0])


def _location(stacks: str) -> str:
    """Find the line of code that a worker ran when it was ended, from the stacks that `faulthandler` wrote."""
    frames = [line.strip() for line in stacks.splitlines() if line.startswith("  File ")]
    return f"; it was at {printable(frames[0])}" if frames else ""
