"""Trains a trial again from its record, and compares each epoch with the recorded one."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from search.record import provenance
from search.record.provenance import format_field
from search.record.study_record import StudyRecord
from search.record.trial import Failure, TrialRecord
from search.settings import StudySettings
from training.console.terminal import counted
from training.images.image_data import ImageData
from training.loop import TrainingDivergedError, train
from training.metrics import EpochMetrics

COMPARED = ("train_loss", "val_accuracy", "val_loss", "test_accuracy", "test_loss")
"""Metrics that are equal to the last digit in equal trainings."""
_MACHINE = ("system", "processor", "cpus", "gpus")


@dataclass(frozen=True)
class EpochPair:
    """The metrics of one epoch: the recorded ones, and those of the training that is repeated."""

    recorded: EpochMetrics | None
    """None if the trial had failed by then."""
    retrained: EpochMetrics

    def deviations(self) -> dict[str, float]:
        """Compute the deviation of each metric that differs; it is infinite where only one epoch has the metric."""
        if self.recorded is None:
            return {}
        pairs = {name: (getattr(self.recorded, name), getattr(self.retrained, name)) for name in COMPARED}
        return {
            name: float("inf") if one is None or other is None else abs(one - other)
            for name, (one, other) in pairs.items()
            if one != other
        }


class Reproduction:
    """A repeated training: it runs the recorded epochs, and up to the failure if the training itself failed."""

    def __init__(self, record: StudyRecord, trial: TrialRecord, settings: StudySettings) -> None:
        """Prepare the training; a network from a file is imported.

        Raises:
            ValueError: The network does not take the hyperparameters of the trial.
        """
        self.trial = trial
        self.pairs: list[EpochPair] = []
        self.failure: Failure | None = None
        """The failure of the repeated training."""
        self._config = record.metadata.trial_config(trial)
        self._sessions = record.metadata.sessions
        self._settings = settings
        self._code = record.metadata.code

    def train(self, data: ImageData) -> Iterator[EpochPair]:
        """Train; yield each epoch with the recorded one when it ends."""
        on_gpu = self._settings.gpus_per_trial > 0 and torch.cuda.is_available()
        training = train(self._config, data.to("cuda") if on_gpu else data)
        for epoch in range(1, len(self.trial.epochs) + 1 + _is_repeatable(self.trial.failure)):
            torch.set_num_threads(self.threads(epoch))
            try:
                retrained = next(training, None)
            except TrainingDivergedError as error:
                self.failure = Failure("diverged", str(error))
                return
            except Exception as error:  # the recorded failure may be any error of the network
                self.failure = Failure("exception", f"{type(error).__name__}: {error}")
                return
            if retrained is None:
                return
            recorded = self.trial.epochs[epoch - 1] if epoch <= len(self.trial.epochs) else None
            self.pairs.append(EpochPair(recorded, retrained))
            yield self.pairs[-1]

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
                for name in COMPARED
                if any(name in values for values in deviations.values())
            }
            listed = ", ".join(f"{name} {value:.2g} in epoch {epoch}" for name, (value, epoch) in largest.items())
            differ = f"{len(deviations)} of {counted(len(self.pairs), 'epoch')} differ"
            sentences.append(f"{differ}, the first is epoch {min(deviations)}; the largest differences are {listed}.")
        if not self._same_end():
            now = _describe_end(self.failure, len(self.pairs))
            failure = self.trial.failure if _is_repeatable(self.trial.failure) else None
            recorded = _describe_end(failure, len(self.trial.epochs))
            sentences.append(f"The end differs: the repeated training {now}, the recorded one {recorded}.")
        return sentences

    def changes(self) -> list[str]:
        """List the versions, parts of the machine and files of code that have changed since the trial was run."""
        numbers = {timing.session for timing in self.trial.timings.values()}
        used = [session for number, session in enumerate(self._sessions) if number in numbers] or self._sessions[-1:]
        versions, machine = provenance.versions(), provenance.machine()
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
        code = provenance.code(self._config.network)
        files = sorted(name for name in self._code.keys() | code.keys() if self._code.get(name) != code.get(name))
        if files:
            commit = (used[-1].git_commit if used else None) or "an unknown commit"
            changed.append(f"code: {', '.join(files)} of {commit} (now {provenance.git_commit() or 'no commit'})")
        return list(dict.fromkeys(changed))

    def _same_end(self) -> bool:
        if len(self.pairs) != len(self.trial.epochs):
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


def _describe_end(failure: Failure | None, epochs: int) -> str:
    if failure is None:
        return f"continued after epoch {epochs}"
    return f"{'diverged' if failure.kind == 'diverged' else 'failed'} in epoch {epochs + 1} ({failure.error})"
