"""The time accounting of studies driven by hand, whose parts are known, and of real ones."""

import json
from dataclasses import replace
from pathlib import Path

import faulty
import pandas as pd
import pytest
from studies import SESSION, HandDrivenStudy, metrics

from search.analysis.time_accounting import PART_NAMES, time_accounting, wall_seconds
from search.engine import tuner
from search.engine.study import prepare_study
from search.record.provenance import WidthChange
from search.record.study_record import StudyRecord
from search.record.trial import Failure, Timing
from search.run import run_study
from search.settings import StudySettings


class TimedStudy(HandDrivenStudy):
    """A study on four cores with room for two trials of one core; its epochs take 0.4 s of training and 0.1 s more."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.record.metadata = replace(self.record.metadata, sessions=[])

    def start(self, seconds: float | None = None) -> None:
        session = replace(SESSION, machine=replace(SESSION.machine, cpus=4), seconds=seconds)
        self.record.update(sessions=[*self.record.metadata.sessions, session])

    def report(self, trial: str, epoch: int, *, pid: int, at: float, waiting: float = 0.0, session: int = 0) -> None:
        timing = Timing(session=session, node=0, pid=pid, waiting_seconds=waiting, reported=at)
        self.record.add_epoch(trial, metrics(epoch, 0.5), timing)


@pytest.fixture
def study(tmp_path: Path) -> TimedStudy:
    return TimedStudy(tmp_path)


def parts(record: StudyRecord) -> dict[str, float]:
    """The parts that are not zero, after a check that they add up."""
    accounting = time_accounting(record)
    assert sum(accounting[part] for part in PART_NAMES) == pytest.approx(accounting["whole"], rel=0.03)
    return {part: seconds for part, seconds in accounting.items() if seconds}


def test_parts_of_two_workers_are_what_they_did(study: TimedStudy) -> None:
    study.start(seconds=20.0)
    study.suggest("a")
    study.suggest("b")
    study.report("a", 1, pid=1, at=11.0)  # the first epoch began at 10.5
    study.report("b", 1, pid=2, at=12.0)  # at 11.5
    study.report("a", 2, pid=1, at=12.5, waiting=1.0)
    study.report("a", 3, pid=1, at=13.0)
    study.record.finish("a")
    study.suggest("c")
    study.record.finish("b")
    study.report("c", 1, pid=1, at=14.2, waiting=0.4)  # began in its worker at 13.3
    study.record.finish("c")
    assert parts(study.record) == pytest.approx(
        {
            "whole": 80.0,
            "training": 2.0,
            "evaluation": 0.5,
            "start_up": 22.0,
            "ray_and_sampler": 1.0 + 0.3 + 0.4,
            "idle": (20.0 - 14.2) + (20.0 - 12.0) + 2 * 20.0,  # two workers, and the two cores not used
        }
    )


def test_epochs_that_came_to_nothing_are_lost(study: TimedStudy) -> None:
    study.start(seconds=20.0)
    study.suggest("a")
    study.report("a", 1, pid=1, at=10.5)
    diverged = Failure("diverged", "train_loss is nan", seconds=0.3)
    study.record.add_failure("a", diverged, Timing(session=0, node=0, pid=1, waiting_seconds=0.0, reported=10.8))
    study.record.finish("a")
    study.suggest("b")
    study.report("b", 1, pid=1, at=11.5, waiting=0.2)  # then its worker dies
    study.suggest("c")
    study.report("c", 1, pid=2, at=12.0)  # then the study is interrupted
    study.record.finish("b", interrupted=True)
    study.suggest("b again")
    study.report("b again", 2, pid=3, at=14.0)
    study.report("b again", 3, pid=3, at=14.5)
    study.record.finish("b again")
    study.record.interrupt_running()
    assert parts(study.record) == pytest.approx(
        {
            "whole": 80.0,
            "training": 2.0,
            "evaluation": 0.5,
            "start_up": 10.0 + 11.5,
            "ray_and_sampler": 0.2,
            "lost": 0.3 + (13.5 - 11.5) + (20.0 - 12.0),
            "idle": (20.0 - 14.5) + 2 * 20.0,
        }
    )


def test_pause_of_a_trial_loses_nothing(study: TimedStudy) -> None:
    metadata = study.record.metadata
    study.record.metadata = replace(metadata, settings=replace(metadata.settings, scheduler="promotion"))
    study.start(seconds=15.0)
    study.suggest("a")
    study.suggest("b")
    study.report("a", 1, pid=1, at=11.0)
    study.report("b", 1, pid=2, at=12.0)
    assert study.record.finish("a").status == "paused"
    study.record.promote(study.record.trials[0])
    study.record.finish("b")
    study.suggest("c")
    study.report("c", 2, pid=2, at=13.0, waiting=0.5)
    study.record.finish("c")
    assert "lost" not in parts(study.record)


def test_trial_that_goes_on_in_another_worker_after_a_pause_loses_nothing(study: TimedStudy) -> None:
    study.start(seconds=30.0)
    study.suggest("a")
    study.suggest("b")
    study.report("a", 1, pid=1, at=11.0)
    study.report("b", 1, pid=2, at=11.0)
    pause, go_on = (
        WidthChange(session=0, seconds=seconds, max_concurrent_trials=width, capacity=2, cpus=4)
        for seconds, width in ((11.0, 0), (21.0, 2))
    )
    study.record.update(widths=[pause, go_on])
    for trial in "ab":
        study.record.finish(trial, interrupted=True)
    study.suggest("c")
    study.report("c", 2, pid=2, at=22.0)  # Ray has ended worker 1
    study.report("c", 3, pid=2, at=22.5)
    study.record.finish("c")
    study.suggest("d")
    study.report("d", 2, pid=2, at=23.0)
    study.report("d", 3, pid=2, at=23.5)
    study.record.finish("d")
    found = parts(study.record)
    assert "lost" not in found
    assert found["paused"] == 20.0


def test_killed_session_counts_until_its_last_report(study: TimedStudy) -> None:
    study.start()
    study.suggest("a")
    study.report("a", 1, pid=1, at=5.5)
    study.record.interrupt_running()
    study.start(seconds=10.0)
    study.suggest("a again")
    study.record.add_epoch("a again", metrics(2, 0.5))  # trained in the first session, and not reported then
    study.report("a again", 3, pid=1, at=8.5, session=1)
    study.record.finish("a again")
    assert wall_seconds(study.record) == 15.5
    assert parts(study.record) == pytest.approx(
        {
            "whole": 62.0,
            "training": 0.8,
            "evaluation": 0.2,
            "start_up": 5.0 + 8.0,
            "idle": (10.0 - 8.5) + 3 * 15.5,
        }
    )


def test_accounting_is_the_same_when_the_record_is_read_again(study: TimedStudy, tmp_path: Path) -> None:
    study.start(seconds=30.0)
    study.run_one_of_each()
    assert parts(StudyRecord.open(tmp_path)) == parts(study.record)


def test_study_that_has_not_run_took_no_time(study: TimedStudy) -> None:
    assert parts(study.record) == {}
    assert wall_seconds(study.record) == 0.0


def test_parts_of_a_real_study_add_up(
    without_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuner, "trainable", faulty.slow)
    settings = StudySettings(
        dataset="digits", num_samples=2, epochs=4, scheduler="none", results_dir=tmp_path, name="study"
    )
    study = prepare_study(settings)
    assert run_study(study) == 0
    record = study.record
    measured = parts(record)
    assert measured.keys() >= {"training", "evaluation", "start_up", "ray_and_sampler"}
    assert measured["ray_and_sampler"] >= 8 * 0.2  # by which each of 8 epochs is reported too late
    epochs = pd.read_csv(tmp_path / "study" / "epochs.csv")
    assert measured["evaluation"] == pytest.approx(epochs["evaluation_seconds"].sum(), abs=0.1)
    assert measured["training"] == pytest.approx((epochs["seconds"] - epochs["evaluation_seconds"]).sum(), abs=0.1)
    assert epochs.groupby("trial_number")[["session", "node", "pid"]].nunique().eq(1).all(axis=None)
    assert json.loads((tmp_path / "study" / "study.json").read_text())["time"] == time_accounting(record)
    accounting, told = time_accounting(record), capfd.readouterr().out
    assert f"Time: training {accounting['training'] / accounting['whole']:.0%}, evaluation " in told
