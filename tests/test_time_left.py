"""The estimate of the remaining time: what it says of studies whose end is known."""

import pytest
from studies import metrics

from search.monitoring.time_left import RECENT, TimeLeft
from search.record.study_record import StudyRecord
from search.record.trial import Timing
from search.settings import StudySettings
from search.simulation.simulator import memory_record
from search.space.toml_file import default_space


class TimedStudy:
    """A study of epochs that take half a second, which `metrics` says, and the time between them."""

    def __init__(self, *, trials: int, epochs: int = 4) -> None:
        settings = StudySettings(dataset="digits", num_samples=trials, epochs=epochs, scheduler="asha")
        self.record: StudyRecord = memory_record(settings, default_space("mlp"))

    def run(self, name: str, epochs: int, *, ends: bool = True, waiting: float = 0.0) -> None:
        """Begin a trial and report epochs."""
        if name not in self.record.running_ids():
            proposal = self.record.study.ask()
            self.record.start(name, proposal, proposal.number)
        done = len(self.record.running(name).epochs)
        for epoch in range(done + 1, epochs + 1):
            timing = Timing(session=0, node=0, pid=1, waiting_seconds=waiting, reported=1.0)
            self.record.add_epoch(name, metrics(epoch, 0.5), timing)
        if ends:
            self.record.finish(name)


def test_equal_trials_are_counted_to_their_end() -> None:
    study = TimedStudy(trials=10)
    left = TimeLeft(study.record)
    assert left.seconds(0.0, 2) is None
    for number in range(4):
        study.run(f"{number}", 4)
    study.run("a", 2, ends=False)
    study.run("b", 2, ends=False)
    # each of two workers has an epoch and a half left of its trial, and two trials
    assert left.seconds(5.0, 2) == pytest.approx(0.75 + 2 * 2.0)


def test_stopped_trials_say_how_many_come_further() -> None:
    study = TimedStudy(trials=7)
    left = TimeLeft(study.record)
    for number, epochs in enumerate([1, 1, 4, 1, 1, 4]):
        study.run(f"{number}", epochs)
    study.run("last", 1, ends=False)
    # of seven trials that have done an epoch, four were stopped after it; two of two did all others
    assert left.seconds(6.5, 1) == pytest.approx(0.5 * (1 + 2 * 1.0 - 0.5))


def test_time_between_epochs_and_between_trials_lasts_on() -> None:
    study = TimedStudy(trials=10)
    left = TimeLeft(study.record)
    for number in range(4):
        study.run(f"{number}", 4, waiting=0.5)
    study.run("a", 2, ends=False, waiting=0.5)
    busy, in_epoch = 18.0, 1.0
    assert left.seconds(busy + in_epoch, 1) == pytest.approx(1.5 + 5 * 4.0)
    assert left.seconds(2 * busy + in_epoch, 1) == pytest.approx(2 * (1.5 + 5 * 4.0))


def test_epochs_of_a_slow_trial_are_its_own() -> None:
    study = TimedStudy(trials=2)
    left = TimeLeft(study.record)
    study.run("fast", 4)
    study.run("slow", 2, ends=False, waiting=9.5)
    assert left.seconds(22.0, 1) == pytest.approx(10 * 1.5, rel=0.01)


def test_sessions_before_count_as_trials_but_not_as_time() -> None:
    study = TimedStudy(trials=4)
    study.run("0", 4)
    study.run("1", 4)
    left = TimeLeft(study.record)
    study.run("2", 2, ends=False)
    assert left.seconds(1.25, 1) == pytest.approx(0.75 + 2.0)


def test_many_trials_are_estimated_from_the_recent_ones() -> None:
    study = TimedStudy(trials=10_000)
    left = TimeLeft(study.record)
    for number in range(RECENT + 20):
        study.run(f"{number}", 1 if number < 20 else 4)
    assert left.seconds(210.0, 2) == pytest.approx((10_000 - RECENT - 20) * 2.0 / 2, rel=0.01)
