"""What became of a study that was killed: its record, compared from kill to kill, and the epochs it really began."""

import shutil
import tempfile
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import optuna
from begun_epochs import BegunEpoch, configuration, read_notes
from optuna.storages import get_storage
from optuna.trial import FrozenTrial, TrialState


@dataclass(kw_only=True)
class Tally:
    """What became of one study, or of several together."""

    driver_kills: int = 0
    worker_kills: int = 0
    kills_starting: int = 0
    """Kills before an epoch had begun since the process was started."""
    kills_ending: int = 0
    """Kills when the last epoch of the study had begun."""
    studies: int = 0
    failed: int = 0
    """Studies whose process ended with an error after a kill; all their finished trials count as lost."""
    hung: int = 0
    """The same, but their process did not end."""
    finished: int = 0
    lost: int = 0
    """Finished trials that later were gone, or were no longer what they had been."""
    incomplete: int = 0
    """Finished trials without the metrics of every epoch."""
    repeated: int = 0
    """Configurations that were trained again after they had finished, or finished as two trials."""
    epochs_begun: int = 0
    epochs_begun_again: int = 0
    most_begun_again: int = 0
    """Epochs that one trial began again after one kill, at most."""
    left_running: int = 0
    """Trials that the record calls running when the study is over."""
    different: int | None = None
    """Finished trials whose metrics are not those of a training that nobody kills; None if they were not compared."""
    seconds: float = 0

    def add(self, other: "Tally") -> None:
        """Count another study in."""
        for name, value in vars(other).items():
            if value is not None:
                combine = max if name == "most_begun_again" else sum
                setattr(self, name, combine([getattr(self, name) or 0, value]))


def stored_trials(folder: Path) -> list[FrozenTrial]:
    """The trials in `study.db`, read from a copy, because whoever opens the record repairs what a kill left of it."""
    with tempfile.TemporaryDirectory() as copy:
        for file in folder.glob("study.db*"):
            shutil.copy(file, copy)
        if not (Path(copy) / "study.db").exists():
            return []
        storage = get_storage(f"sqlite:///{copy}/study.db")
        names = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=names[0], storage=storage).get_trials() if names else []


def epochs_begun_again(notes: list[BegunEpoch], kills_at: list[int]) -> Counter[tuple[int, str]]:
    """How many epochs were begun that had been begun before.

    Args:
        notes: Every epoch that began, in order.
        kills_at: How many notes there were at each kill.

    Returns:
        The number, by kill (how many there had been) and configuration.
    """
    again: Counter[tuple[int, str]] = Counter()
    begun: set[BegunEpoch] = set()
    for index, note in enumerate(notes):
        if note in begun:
            again[bisect_right(kills_at, index), note.configuration] += 1
        begun.add(note)
    return again


class Audit:
    """Follows one study from kill to kill."""

    def __init__(self, folder: Path, notes: Path, epochs: int) -> None:
        self._folder = folder
        self._notes = notes
        self._epochs = epochs
        self._finished: dict[int, FrozenTrial] = {}
        self._finished_at: dict[str, int] = {}
        """Configuration -> how many epochs had begun when it was first seen to have finished."""
        self._kills_at: list[int] = []
        self._changed: set[str] = set()
        self._left_running = 0

    def note_kill(self) -> None:
        """Remember when a kill was, in epochs begun."""
        self._kills_at.append(len(read_notes(self._notes)))

    def look(self) -> None:
        """Compare the record with what it was; only while no process writes it."""
        trials = {trial.number: trial for trial in stored_trials(self._folder)}
        self._changed |= {_name(old) for number, old in self._finished.items() if trials.get(number) != old}
        self._finished = {number: trial for number, trial in trials.items() if trial.state.is_finished()}
        self._left_running = sum(trial.state == TrialState.RUNNING for trial in trials.values())
        begun = len(read_notes(self._notes))
        for trial in self._finished.values():
            self._finished_at.setdefault(_name(trial), begun)

    def tally(self, kept: list[str] | None = None) -> Tally:
        """What became of the study, all in all.

        Args:
            kept: Configurations that the tool says have finished; by default those that its record calls so.
        """
        notes = read_notes(self._notes)
        kept = [_name(trial) for trial in self._finished.values()] if kept is None else kept
        twins = {name for name, count in Counter(kept).items() if count > 1}
        trained_again = {
            note.configuration
            for index, note in enumerate(notes)
            if index >= self._finished_at.get(note.configuration, len(notes))
        }
        again = epochs_begun_again(notes, self._kills_at)
        return Tally(
            studies=1,
            finished=len(kept),
            lost=len(self._changed | (self._finished_at.keys() - set(kept))),
            incomplete=sum(len(trial.intermediate_values) != self._epochs for trial in self._finished.values()),
            repeated=len(trained_again | twins),
            epochs_begun=len(notes),
            epochs_begun_again=again.total(),
            most_begun_again=max(again.values(), default=0),
            left_running=self._left_running,
        )


def _name(trial: FrozenTrial) -> str:
    return configuration(trial.params)
