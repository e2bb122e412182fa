"""A trial trained again from its record, epoch by epoch beside what was recorded."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from search.record import provenance
from search.record.provenance import format_field
from search.record.study_record import StudyRecord
from search.record.trial import Failure, TrialRecord
from search.settings import StudySettings
from training.images.image_data import ImageData
from training.loop import TrainingDivergedError, train
from training.metrics import EpochMetrics

COMPARED = ("train_loss", "val_accuracy", "val_loss", "test_accuracy", "test_loss")
"""What is equal in equal trainings, to the last digit."""
_MACHINE = ("system", "processor", "cpus", "gpus")


@dataclass(frozen=True)
class EpochPair:
    """One epoch as it was recorded and as it is measured now."""

    recorded: EpochMetrics | None
    """None if the trial had failed by then."""
    retrained: EpochMetrics

    def off(self) -> dict[str, float]:
        """How far each metric that differs is off; infinite where only one of both has it."""
        if self.recorded is None:
            return {}
        pairs = {name: (getattr(self.recorded, name), getattr(self.retrained, name)) for name in COMPARED}
        return {
            name: float("inf") if one is None or other is None else abs(one - other)
            for name, (one, other) in pairs.items()
            if one != other
        }


class Reproduction:
    """The same training once more: as many epochs as were recorded, and up to the failure if it was the training's."""

    def __init__(self, record: StudyRecord, trial: TrialRecord, settings: StudySettings) -> None:
        """Nothing is trained yet; a network from a file is imported.

        Raises:
            ValueError: The trial's hyperparameters are none that its network takes.
        """
        self.trial = trial
        self.pairs: list[EpochPair] = []
        self.failure: Failure | None = None
        """What ended the training this time."""
        self._config = record.metadata.trial_config(trial)
        self._sessions = record.metadata.sessions
        self._settings = settings
        self._code = record.metadata.code

    def train(self, data: ImageData) -> Iterator[EpochPair]:
        """Train; yield each epoch when it ends."""
        on_gpu = self._settings.gpus_per_trial > 0 and torch.cuda.is_available()
        training = train(self._config, data.to("cuda") if on_gpu else data)
        for epoch in range(1, len(self.trial.epochs) + 1 + _is_of_training(self.trial.failure)):
            torch.set_num_threads(self.threads(epoch))
            try:
                retrained = next(training, None)
            except TrainingDivergedError as error:
                self.failure = Failure("diverged", str(error))
                return
            except Exception as error:  # perhaps the recorded one
                self.failure = Failure("exception", f"{type(error).__name__}: {error}")
                return
            if retrained is None:
                return
            recorded = self.trial.epochs[epoch - 1] if epoch <= len(self.trial.epochs) else None
            self.pairs.append(EpochPair(recorded, retrained))
            yield self.pairs[-1]

    def threads(self, epoch: int) -> int:
        """Threads with which an epoch was trained."""
        timing = self.trial.timings.get(epoch)
        if timing and timing.session < len(self._sessions):
            return self._sessions[timing.session].cpus_per_trial
        return self._settings.cpus_per_trial

    def agrees(self) -> bool:
        """Whether all metrics are the recorded ones, to the last digit, and it ended as it did."""
        return not any(pair.off() for pair in self.pairs) and self._ended_alike()

    def differences(self) -> list[str]:
        """How far off it is, in sentences; none if it agrees."""
        told = []
        off = {pair.retrained.epoch: pair.off() for pair in self.pairs if pair.off()}
        if off:
            largest = {
                name: max((values[name], epoch) for epoch, values in off.items() if name in values)
                for name in COMPARED
                if any(name in values for values in off.values())
            }
            listed = ", ".join(f"{name} {value:.2g} in epoch {epoch}" for name, (value, epoch) in largest.items())
            told.append(f"{len(off)} of {len(self.pairs)} epochs differ, the first is {min(off)}; at most {listed}.")
        if not self._ended_alike():
            told.append(
                f"The end differs: now it {_how(self.failure, len(self.pairs))}, then it {self._recorded_end()}."
            )
        return told

    def changes(self) -> list[str]:
        """What is another now than when the trial was run: versions, machine, code."""
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

    def _ended_alike(self) -> bool:
        if len(self.pairs) != len(self.trial.epochs):
            return False
        recorded = self.trial.failure
        if not _is_of_training(recorded):
            return self.failure is None
        assert recorded is not None, "there is one"
        same_kind = self.failure is not None and self.failure.kind == recorded.kind
        return same_kind and (recorded.kind == "diverged" or self.failure == Failure(recorded.kind, recorded.error))

    def _recorded_end(self) -> str:
        return _how(self.trial.failure if _is_of_training(self.trial.failure) else None, len(self.trial.epochs))


def find_trial(record: StudyRecord, number: int) -> TrialRecord:
    """The trial of this number, of which there is something to compare.

    Raises:
        ValueError: There is none, or nothing.
    """
    trial = next((trial for trial in record.trials if trial.number == number), None)
    if trial is None:
        numbers = [trial.number for trial in record.trials]
        known = f"they go from {min(numbers)} to {max(numbers)}" if numbers else "it has none"
        raise ValueError(f"study {record.folder.name} has no trial {number}: {known}")
    if not trial.epochs and not _is_of_training(trial.failure):
        why = trial.failure.error if trial.failure else trial.status
        raise ValueError(f"trial {number} ended before its first epoch did, so there is nothing to compare: {why}")
    return trial


def _is_of_training(failure: Failure | None) -> bool:
    """Whether the training itself failed, which it does again: not its worker, its memory or its time."""
    return failure is not None and failure.kind in ("diverged", "exception")


def _how(failure: Failure | None, epochs: int) -> str:
    if failure is None:
        return f"trained on after epoch {epochs}"
    return f"{'diverged' if failure.kind == 'diverged' else 'failed'} in epoch {epochs + 1} ({failure.error})"
