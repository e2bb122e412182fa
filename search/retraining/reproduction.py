"""Trains a trial again from its record, and compares each epoch with the recorded one."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import torch

from search.engine.command_training import ProgramError
from search.engine.reporter import Report
from search.engine.runners import TrialRun, runner_of
from search.record import provenance
from search.record.provenance import format_field
from search.record.study_record import StudyRecord
from search.record.trial import Failure, Metrics, TrialRecord
from search.task.custom_metrics import metric_value
from training.checkpoint import Checkpoint
from training.console.terminal import counted, type_and_text
from training.images.image_data import ImageData
from training.loop import TrainingDivergedError
from training.threads import use_threads

_MACHINE = ("system", "processor", "cpus", "gpus")


@dataclass(frozen=True)
class EpochPair:
    """The metrics of one epoch: the recorded ones, and those of the training that is repeated."""

    recorded: Metrics | None
    """None if the trial had failed by then, or had ended."""
    retrained: Metrics
    names: Sequence[str]
    """The metrics that are equal to the last digit in equal trainings."""

    def deviations(self) -> dict[str, float]:
        """Compute the deviation of each metric that differs; it is infinite where only one epoch has the metric."""
        if self.recorded is None:
            return {}
        pairs = {name: (metric_value(self.recorded, name), metric_value(self.retrained, name)) for name in self.names}
        return {
            name: float("inf") if one is None or other is None else abs(one - other)
            for name, (one, other) in pairs.items()
            if one != other
        }


Show: TypeAlias = Callable[[EpochPair], None]


class _EnoughEpochsError(BaseException):
    """Ends a training after the epochs that are compared."""


class Reproduction:
    """A repeated training: it runs the recorded epochs, and as far as the training itself failed or ended."""

    def __init__(self, record: StudyRecord, trial: TrialRecord) -> None:
        """Prepare the training; a network or a training function from a file is imported.

        Raises:
            ValueError: The network or the function does not take the hyperparameters of the trial, or the program is
                missing.
        """
        record.metadata.task.check_can_train()
        self.trial = trial
        self.pairs: list[EpochPair] = []
        self.failure: Failure | None = None
        """The failure of the repeated training."""
        self._has_ended = False
        """Whether the repeated training ended by itself."""
        own_folder = record.checkpoints.trial_folder(trial.number)
        self._trial_folder = own_folder.relative_to(own_folder.parents[2])
        """The folder of the trial, from that of all studies; the training may use the names in it."""
        self._metadata = record.metadata
        self._sessions = record.metadata.sessions
        self._settings = record.metadata.settings
        self._machine = provenance.machine()
        self._code = record.metadata.current_code()
        self._runner = runner_of(self._metadata.task)
        self._hyperparameters = record.space.add_fixed(trial.hyperparameters)
        self._runner.check_trial(self._hyperparameters, trial.seed)
        self._takes_seed = self._runner.takes_seed(record.space.order)
        self._shared_data = self._runner.load_shared_data(self._settings.seed)

    def train(self, data: ImageData | None, show: Show) -> None:
        """Train, and compare each epoch with the recorded one when it ends.

        Args:
            data: The images of the study; None if it has none.
            show: Receives each pair of epochs.
        """
        compared = len(self.trial.epochs) + (_is_repeatable(self.trial.failure) or self.trial.ended_by_itself)

        def receive(metrics: Metrics) -> None:
            epoch = len(self.pairs) + 1
            recorded = self.trial.epochs[epoch - 1] if epoch <= len(self.trial.epochs) else None
            self.pairs.append(EpochPair(recorded, metrics, self._metadata.task.metric_names))
            show(self.pairs[-1])
            if epoch >= compared:
                raise _EnoughEpochsError
            use_threads(self.threads(epoch + 1))

        use_threads(self.threads(1))
        try:
            self._run(data, receive)
            self._has_ended = True
        except _EnoughEpochsError:
            pass
        except TrainingDivergedError as error:
            self.failure = Failure("diverged", str(error))
        except ProgramError as error:
            self.failure = Failure("exception", str(error))
        except Exception as error:  # the recorded failure may be any error of the user's code
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            self.failure = Failure("exception", type_and_text(error))

    def _run(self, images: ImageData | None, receive: Callable[[Metrics], None]) -> None:
        """Run the training in a folder that is removed afterwards; what it prints is not shown."""
        on_gpu = self._settings.gpus_per_trial > 0 and torch.cuda.is_available()
        with (
            TemporaryDirectory(prefix="tunesmith-") as folder,
            Path(os.devnull).open("w") as nowhere,
        ):
            run = TrialRun(
                number=self.trial.number,
                hyperparameters=self._hyperparameters,
                seed=self.trial.seed,
                objective=self.trial.objective,
                checkpoint=Checkpoint(Path(folder) / "checkpoint.pt", Path(folder) / self._trial_folder),
                report=_printing_as_now(receive),
                images=images,
                shared_data=self._shared_data,
                threads=self.threads(1),
                device="cuda" if on_gpu else "cpu",
            )
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                self._runner.train(run)

    def threads(self, epoch: int) -> int:
        """Number of torch threads in the recorded training of an epoch."""
        timing = self.trial.timings.get(epoch)
        return self._sessions[timing.session].cpus_per_trial if timing else self._settings.cpus_per_trial

    def agrees(self) -> bool:
        """Whether all metrics equal the recorded ones to the last digit, and the training ended in the same way."""
        return not any(pair.deviations() for pair in self.pairs) and self._same_end()

    def differences(self) -> list[str]:
        """Describe in sentences how the training differs from the record; there is no sentence if it agrees."""
        sentences = []
        deviations = {pair.retrained.epoch: pair.deviations() for pair in self.pairs if pair.deviations()}
        if deviations:
            largest = {
                name: max((values[name], epoch) for epoch, values in deviations.items() if name in values)
                for name in self._metadata.task.metric_names
                if any(name in values for values in deviations.values())
            }
            listed = ", ".join(f"{name} {value:.2g} in epoch {epoch}" for name, (value, epoch) in largest.items())
            differ = f"{len(deviations)} of {counted(len(self.pairs), 'epoch')} differ"
            sentences.append(f"{differ}, the first is epoch {min(deviations)}; the largest differences are {listed}.")
            if self.trial.objective.metric not in largest:
                sentences.append(f"{self.trial.objective.metric} is the same in all epochs.")
        if not self._same_end():
            now = _describe_end(self.failure, len(self.pairs), self._has_ended)
            failure = self.trial.failure if _is_repeatable(self.trial.failure) else None
            recorded = _describe_end(failure, len(self.trial.epochs), self.trial.ended_by_itself)
            sentences.append(f"The end differs: the repeated training {now}, the recorded one {recorded}.")
        return sentences

    def changes(self) -> list[str]:
        """List the versions, parts of the machine and files of code that have changed since the trial was run."""
        numbers = {timing.session for timing in self.trial.timings.values()}
        used = [session for number, session in enumerate(self._sessions) if number in numbers] or self._sessions[-1:]
        versions, machine = provenance.versions(), self._machine
        changed = [
            f"{name} {then} (now {versions.get(name, 'none')})"
            for session in used
            for name, then in session.versions.items()
            if versions.get(name) != then
        ]
        changed += [
            f"{name} {format_field(getattr(session.machine, name))} (now {format_field(getattr(machine, name))})"
            for session in used
            for name in _MACHINE
            if getattr(session.machine, name) != getattr(machine, name)
        ]
        changed += ["a cluster, whose machines were not recorded one by one" for session in used if session.cluster]
        then, now = self._metadata.code, self._code
        files = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        if files:
            commit = (used[-1].git_commit if used else None) or "an unknown commit"
            changed.append(f"code: {', '.join(files)} of {commit} (now {provenance.git_commit() or 'no commit'})")
        return list(dict.fromkeys(changed))

    def reasons(self) -> list[str]:
        """List what may keep the trial from giving the same numbers again, although nothing has changed."""
        reasons = []
        if not self._takes_seed:
            reasons.append(self._metadata.task.without_seed)
        workers = {epoch: (one.session, one.node, one.pid) for epoch, one in sorted(self.trial.timings.items())}
        last = [epoch for epoch in workers if epoch + 1 in workers and workers[epoch] != workers[epoch + 1]]
        if last:
            epochs = " and ".join(map(str, last))
            reasons.append(f"the trial was interrupted after epoch {epochs}, and continued in another process")
        if self._settings.gpus_per_trial > 0 or any(session.machine.gpus for session in self._sessions):
            reasons.append("there is a GPU, which may add numbers in another order each time if the training uses it")
        return [*reasons, *self._metadata.task.unrecorded]

    def _same_end(self) -> bool:
        if len(self.pairs) != len(self.trial.epochs):
            return False
        if self.trial.ended_by_itself != self._has_ended:
            return False
        recorded = self.trial.failure
        if recorded is None or not _is_repeatable(recorded):
            return self.failure is None
        same_kind = self.failure is not None and self.failure.kind == recorded.kind
        return same_kind and (recorded.kind == "diverged" or self.failure == Failure(recorded.kind, recorded.error))


def find_trial(record: StudyRecord, number: int) -> TrialRecord:
    """Find a trial by its number.

    Raises:
        ValueError: There is no such trial, or it has recorded nothing that can be compared.
    """
    trial = next((trial for trial in record.trials if trial.number == number), None)
    if trial is None:
        numbers = [trial.number for trial in record.trials]
        known = f"its trials are {min(numbers)} to {max(numbers)}" if numbers else "it has no trials"
        raise ValueError(f"study {record.folder.name} has no trial {number}: {known}")
    if not trial.epochs and not _is_repeatable(trial.failure):
        why = trial.failure.error if trial.failure else trial.status
        raise ValueError(f"trial {number} has finished no epoch, so there is nothing to compare: {why}")
    return trial


def _is_repeatable(failure: Failure | None) -> bool:
    """Whether the training itself failed, and not its worker, its memory or its time: then it fails again."""
    return failure is not None and failure.kind in ("diverged", "exception")


def _describe_end(failure: Failure | None, epochs: int, has_ended: bool) -> str:
    if failure is None:
        return f"{'ended by itself after' if has_ended else 'reached'} epoch {epochs}"
    return f"{'diverged' if failure.kind == 'diverged' else 'failed'} in epoch {epochs + 1} ({failure.error})"


def _printing_as_now(receive: Callable[[Metrics], None]) -> Report:
    """A function that prints to the present standard output, wherever a training prints meanwhile."""
    stdout = sys.stdout

    def receive_and_print(metrics: Metrics, **_: object) -> None:
        with redirect_stdout(stdout):
            receive(metrics)

    return receive_and_print
