"""Successive halving that pauses trials: who is paused, who continues, and what a killed study goes on with."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from serial_ray import StartedRun, run_command
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from studies import DEFAULT_SPACE, metadata, metrics

from search.algorithms.promotion import Promotion
from search.algorithms.search_algorithm import suggest_value
from search.algorithms.seen_trials import SeenTrials
from search.record.database import NoRetry
from search.record.study_record import StudyRecord
from search.record.trial import Failure, TrialRecord
from search.settings import StudySettings
from search.space.distributions import optuna_distribution
from search.space.encoding import SpaceEncoding

STUDY = ("--dataset", "digits", "--scheduler", "promotion", "--no-dashboard")


class Driven:
    """Trials of a record that report accuracies by hand, and are paused or continue as `Promotion` says."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        folder.mkdir()
        self.settings = StudySettings(scheduler="promotion", **settings)
        described = metadata(**{"scheduler": "promotion", "epochs": self.settings.epochs, **settings})
        self.record = StudyRecord.create(folder, described)
        self.promotion = Promotion(self.settings)

    def run(self, *accuracies: float) -> TrialRecord:
        """Run a new trial, or the one that was promoted, until it is paused or has no more to report."""
        rate = 1e-3 * (1 + len(self.record.trials))
        if not any(trial.status == "interrupted" for trial in self.record.trials):
            self.record.study.enqueue_trial({"learning_rate": rate, "batch_size": 64, "optimizer": "sgd"})
        proposal = self.record.study.ask()
        for name, distribution in DEFAULT_SPACE.items():
            suggest_value(proposal, name, optuna_distribution(distribution))
        trial = self.record.start(f"ray{proposal.number}", proposal, seed=proposal.number)
        for accuracy in accuracies:
            epoch = len(trial.epochs) + 1
            continues = self.promotion.continues(trial, epoch, accuracy, self.record.trials)
            self.record.add_epoch(trial.trial_id, metrics(epoch, accuracy))
            if not continues:
                break
        return self.record.finish(trial.trial_id)

    def promoted(self, *, all_begun: bool = False) -> int | None:
        """The number of the trial that is promoted."""
        if not self.promotion.promote(self.record, all_begun=all_begun):
            return None
        return next(trial.number for trial in self.record.trials if trial.status == "interrupted")


@pytest.fixture
def study(tmp_path: Path) -> Driven:
    """Trials of 9 epochs, with rungs after 1 and 3."""
    return Driven(tmp_path / "study", epochs=9)


def test_first_trials_are_paused_and_the_best_third_continues(study: Driven) -> None:
    for accuracy in (0.5, 0.7):
        assert study.run(accuracy).status == "paused"
    assert study.promoted() is None, "a third of two trials is none"
    study.run(0.6)
    assert study.promoted() == 1
    assert study.promoted() is None, "it waits already"
    trial = study.run(0.8, 0.9)
    assert (trial.number, trial.status, len(trial.epochs)) == (1, "paused", 3)


def test_trial_that_is_good_enough_at_once_is_not_paused(study: Driven) -> None:
    for accuracy in (0.5, 0.6):
        study.run(accuracy)
    trial = study.run(0.9, 0.9, 0.9)
    assert (trial.status, len(trial.epochs)) == ("paused", 3), "it passed the first rung, and is alone at the second"


def test_highest_rung_comes_first(study: Driven) -> None:
    for accuracy in (0.5, 0.6):
        study.run(accuracy)
    for accuracy in (0.7, 0.8, 0.9):
        study.run(accuracy, accuracy, accuracy)  # these reach the second rung
    study.run(0.95)
    study.record.trials[-1].status = "paused"
    assert study.promoted() == 4


def test_failed_trials_do_not_count(study: Driven) -> None:
    for accuracy in (0.5, 0.6, 0.7):
        study.run(accuracy)
    study.record.trials[0].failure = Failure("exception", "an error")
    assert study.promoted() is None, "a third of two trials is none"


def test_best_trial_runs_in_full_when_all_have_begun(study: Driven) -> None:
    for accuracy in (0.5, 0.6):
        study.run(accuracy)
    assert study.promoted(all_begun=False) is None
    assert study.promoted(all_begun=True) == 1
    study.run(0.7, 0.7)
    assert study.promoted(all_begun=True) == 1
    assert study.run(*[0.7] * 6).status == "completed"
    assert study.promoted(all_begun=True) is None


@pytest.mark.parametrize(("grace_period", "reduction_factor", "rungs"), [(1, 3, [1, 3]), (2, 2, [2, 4, 8]), (9, 3, [])])
def test_grace_period_and_reduction_factor_say_where_the_rungs_are(
    tmp_path: Path, grace_period: int, reduction_factor: int, rungs: list[int]
) -> None:
    study = Driven(tmp_path / "study", epochs=9, grace_period=grace_period, reduction_factor=reduction_factor)
    trial = TrialRecord(0, "ray", {}, 0, study.record.objective)
    assert [epoch for epoch in range(1, 10) if not study.promotion.continues(trial, epoch, 0.5, [])] == rungs


def test_trial_that_cannot_be_promoted_any_more_is_stopped(tmp_path: Path) -> None:
    study = Driven(tmp_path / "study", epochs=9, num_samples=6)
    for accuracy in (0.5, 0.7):
        study.run(accuracy)
    assert study.promotion.without_chance(study.record.trials) == [], "two of six continue"
    study.run(0.6)
    assert [trial.number for trial in study.promotion.without_chance(study.record.trials)] == [0]


def test_best_trial_is_not_stopped(tmp_path: Path) -> None:
    study = Driven(tmp_path / "study", epochs=9, num_samples=2)
    study.run(0.5)
    study.run(0.7)
    assert [trial.number for trial in study.promotion.without_chance(study.record.trials)] == [0]


def test_baseline_runs_in_full_unless_it_may_be_paused(tmp_path: Path) -> None:
    for options, epochs in (((), 3), (("--no-full-baseline",), 1)):
        results = tmp_path / str(epochs)
        run = run_command(
            "search/run.py", *STUDY, "--results-dir", str(results), "--num-samples=4", "--epochs=3", *options
        )
        assert run.status == 0, run.stderr
        trials = pd.read_csv(next(results.glob("digits-*/trials.csv")))
        assert trials[trials["trial_number"] == 0]["epochs"].item() == epochs


def test_paused_trials_are_paused_in_a_record_that_is_read_again(study: Driven) -> None:
    for accuracy in (0.5, 0.6, 0.7):
        study.run(accuracy)
    study.promoted()
    study.record.close()
    again = StudyRecord.open(study.record.folder)
    assert [trial.status for trial in again.trials] == ["paused", "paused", "interrupted"]
    again.requeue_interrupted()
    assert again.study.ask().number == 2
    assert again.study.ask().number == 3, "paused trials do not wait to be proposed"


class Again(NoRetry):
    """Tries again at once."""

    def wait(self, error: Exception) -> None:
        assert "disk is full" in str(error)


def test_nothing_is_lost_when_the_disk_is_full_at_a_commit(study: Driven) -> None:
    for accuracy in (0.5, 0.6, 0.7):
        study.run(accuracy)
    fails: Iterator[bool] = iter(())
    study.record.retry_writes_with(Again())

    @event.listens_for(study.record._database.engine, "commit")
    def commit(_: object) -> None:
        if next(fails, False):
            raise OperationalError(None, None, OSError("disk is full"))

    fails = iter([True])
    assert study.promoted() == 2
    fails = iter([True])
    study.record.stop_waiting([trial for trial in study.record.trials if trial.status == "paused"])
    assert next(fails, None) is None
    again = StudyRecord.open(study.record.folder)
    assert [trial.status for trial in again.trials] == ["stopped_early", "stopped_early", "interrupted"]


def test_sampler_sees_paused_trials_as_pruned(study: Driven) -> None:
    study.run(0.5)
    seen = SeenTrials(study.record.space, SpaceEncoding(study.record.space))
    seen.follow(study.record.study)
    shown = seen.shown(study.record.study.direction)
    assert [(trial.state.name, trial.intermediate_values) for trial in shown] == [("PRUNED", {1: 0.5})]


def test_complete_study_has_no_paused_trials_and_resumes_with_more(tmp_path: Path) -> None:
    run = run_command(
        "search/run.py", *STUDY, "--results-dir", str(tmp_path), "--name=few", "--num-samples=9", "--epochs=4"
    )
    assert run.status == 0, run.stderr
    assert "scheduler  promotion, which pauses weak trials" in run.stdout
    trials = pd.read_csv(tmp_path / "few" / "trials.csv")
    counts = Counter(trials["status"])
    assert set(counts) == {"completed", "stopped_early"}
    assert counts["stopped_early"] >= 6
    assert trials.iloc[0]["status"] == "completed", "the best trial ran in full"
    epochs = pd.read_csv(tmp_path / "few" / "epochs.csv")
    assert not epochs.duplicated(["trial_number", "epoch"]).any()
    assert set(trials[trials["status"] == "stopped_early"]["epochs"]) <= {1, 3}
    assert len(list((tmp_path / "few" / "checkpoints").glob("trial-*"))) == 1, "that of the best trial"
    more = run_command("search/run.py", "--resume=few", "--results-dir", str(tmp_path), "--num-samples=+3")
    assert more.status == 0, more.stderr
    again = pd.read_csv(tmp_path / "few" / "trials.csv")
    assert len(again) == 12
    stopped = trials[trials["status"] == "stopped_early"].set_index("trial_number")["epochs"]
    assert again.set_index("trial_number")["epochs"].loc[stopped.index].equals(stopped), "what was stopped stays so"


def test_killed_study_ends_with_the_trials_of_one_that_was_not(tmp_path: Path) -> None:
    options = (*STUDY, "--max-concurrent=1", "--num-samples=6", "--epochs=4", "--results-dir", str(tmp_path))
    assert run_command("search/run.py", *options, "--name=whole").status == 0
    with StartedRun("search/run.py", *options, "--name=killed") as killed:
        while killed.output.count("paused") < 3:
            assert killed.is_running(), killed.output
            time.sleep(0.02)
        killed.send(signal.SIGKILL)
        killed.end()
    before = StudyRecord.open(tmp_path / "killed")
    assert any(trial.status == "paused" for trial in before.trials)
    before.close()
    run = run_command("search/run.py", "--resume=killed", "--results-dir", str(tmp_path))
    assert run.status == 0, run.stderr
    whole, resumed = (pd.read_csv(tmp_path / name / "epochs.csv") for name in ("whole", "killed"))
    assert not resumed.duplicated(["trial_number", "epoch"]).any()
    starting_points = resumed[resumed["trial_number"] < 3].drop(columns="seconds")
    expected = whole[whole["trial_number"] < 3].drop(columns="seconds")
    common = starting_points.merge(expected, on=["trial_number", "epoch"], suffixes=("", "_expected"))
    assert len(common) >= 8
    assert (common["val_loss"] == common["val_loss_expected"]).all(), "a paused trial continues with the same numbers"
