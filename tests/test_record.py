import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from studies import FULL_EPOCHS, HandDrivenStudy, metrics, search

from search.algorithms.search_algorithm import SearchAlgorithm
from search.record.database import NoRetry
from search.record.lookup import stored_settings
from search.record.ranking import best_trial, ranked
from search.record.study_record import StudyRecord
from search.record.trial import Failure
from search.settings import StudySettings


@pytest.fixture
def study(tmp_path: Path) -> HandDrivenStudy:
    return HandDrivenStudy(tmp_path)


def stored_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """What another process finds in the file."""
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder / 'study.db'}").trials


def test_baseline_is_trial_0_and_seeds_count_up(study: HandDrivenStudy) -> None:
    first, second = study.suggest("a"), study.suggest("b")
    assert first["hyperparameters"] == {"learning_rate": 1e-3, "batch_size": 64, "optimizer": "sgd"}
    assert (first["seed"], second["seed"]) == (0, 1)
    assert [trial.number for trial in study.record.trials] == [0, 1]


def test_value_of_a_trial_has_the_name_of_the_metric(study: HandDrivenStudy, tmp_path: Path) -> None:
    stored = optuna.load_study(study_name=tmp_path.name, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert stored.metric_names == [study.record.metric] == ["val_accuracy"]


def test_every_end_has_its_status_and_its_state_in_the_file(study: HandDrivenStudy, tmp_path: Path) -> None:
    study.run_one_of_each()
    expected = [
        ("completed", TrialState.COMPLETE, 0.6),
        ("completed", TrialState.COMPLETE, 0.9),  # the best epoch, not the last
        ("stopped_early", TrialState.PRUNED, 0.4),
        ("diverged", TrialState.FAIL, None),
        ("failed", TrialState.FAIL, None),
        ("failed", TrialState.FAIL, None),
        ("interrupted", TrialState.WAITING, None),
    ]
    assert [trial.status for trial in study.record.trials] == [status for status, _, _ in expected]
    stored = stored_trials(tmp_path)
    assert [(trial.user_attrs["status"], trial.state, trial.value) for trial in stored] == expected


def test_file_holds_every_measurement(study: HandDrivenStudy, tmp_path: Path) -> None:
    study.run_one_of_each()
    stored = stored_trials(tmp_path)
    assert stored[1].intermediate_values == {1: 0.7, 2: 0.9, 3: 0.8}
    assert stored[1].user_attrs["epoch 3"]["test_accuracy"] == pytest.approx(0.79)
    assert stored[1].user_attrs["ray_trial_id"] == "ray1"
    assert stored[1].user_attrs["last_value"] == 0.8
    assert stored[3].user_attrs["failure"]["kind"] == "diverged"
    assert stored[3].user_attrs["failure"]["error"] == "train_loss is nan in epoch 2 after 64 images"
    assert stored[4].user_attrs["failure"]["traceback"] == "Traceback ...\nValueError: boom"


def test_best_epoch_is_by_the_metric_and_the_earliest_of_equals(study: HandDrivenStudy) -> None:
    trial = study.run_trial(0.5, 0.7, 0.7)
    best = trial.best_epoch
    assert best is not None
    assert best.epoch == 2


def test_loss_is_minimised(tmp_path: Path) -> None:
    study = HandDrivenStudy(tmp_path, metric="val_loss")
    study.run_trial(0.5, 0.6, 0.4)
    better = study.run_trial(0.8, 0.7, 0.6)
    assert best_trial(study.record.trials) is better
    best = better.best_epoch
    assert best is not None
    assert best.epoch == 1
    assert stored_trials(tmp_path)[1].value == pytest.approx(0.4)


def test_failed_and_diverged_trials_are_never_the_best(study: HandDrivenStudy) -> None:
    study.run_one_of_each()
    assert [trial.number for trial in ranked(study.record.trials)] == [1, 0, 6, 2, 3, 4, 5]
    best = best_trial(study.record.trials)
    assert best is not None
    assert best.number == 1


def test_first_reason_of_a_failure_stands(study: HandDrivenStudy) -> None:
    study.suggest("a")
    study.record.add_failure("a", Failure("exception", "ValueError: boom", "text", seconds=1.0))
    study.record.add_failure("a", Failure("worker_died", "worker died: of it"))
    trial = study.record.finish("a")
    assert trial.failure == Failure("exception", "ValueError: boom", "text", seconds=1.0)
    assert trial.seconds == 1.0


def test_no_time_is_not_an_unknown_time(study: HandDrivenStudy) -> None:
    study.suggest("a")
    study.record.add_epoch("a", replace(metrics(1, 0.5), seconds=0.0))
    assert study.record.finish("a").seconds == 0.0
    study.suggest("b")
    study.record.add_failure("b", Failure("worker_died", "worker died"))
    assert study.record.finish("b").seconds is None


def test_study_without_finished_trials_has_no_best(study: HandDrivenStudy) -> None:
    study.suggest("a")
    assert best_trial(study.record.trials) is None
    assert ranked(study.record.trials) == []


def test_sampler_learns_from_what_the_record_tells(tmp_path: Path) -> None:
    """High accuracy near learning rate 0.01: later proposals come closer to it than the random start."""
    study = HandDrivenStudy(tmp_path)
    distances = []
    for number in range(40):
        rate = study.suggest(f"t{number}")["hyperparameters"]["learning_rate"]
        distance = abs(rate / 0.01 - 1) if rate > 0.01 else abs(0.01 / rate - 1)
        distances.append(distance)
        for epoch in range(1, FULL_EPOCHS + 1):
            study.record.add_epoch(f"t{number}", metrics(epoch, 1 / (1 + distance)))
        study.record.finish(f"t{number}")
    assert sorted(distances[20:])[10] < sorted(distances[1:11])[5] / 2


def test_searcher_is_pickled_as_scratch(study: HandDrivenStudy, tmp_path: Path) -> None:
    assert isinstance(pickle.loads(pickle.dumps(study.search)), SearchAlgorithm)
    study.search.save(str(tmp_path / "snapshot"))
    assert (tmp_path / "snapshot").read_bytes() == b""


def test_trial_whose_end_was_half_written_goes_on(study: HandDrivenStudy, tmp_path: Path) -> None:
    """A process that dies between writing a trial's error and its state leaves a trial that is run again."""
    study.suggest("a")
    study.record.add_epoch("a", metrics(1, 0.5))
    _, proposal = study.record._running["a"]
    proposal.set_user_attr("failure", {"kind": "exception", "error": "ValueError: boom"})
    record = StudyRecord.open(tmp_path)
    record.requeue_interrupted()
    (trial,) = record.trials
    assert (trial.status, trial.failure, len(trial.epochs)) == ("interrupted", None, 1)
    proposal_again = search(record).suggest("b")
    assert isinstance(proposal_again, dict)
    assert (proposal_again["seed"], proposal_again["epochs_recorded"]) == (0, 1)
    for epoch in range(2, FULL_EPOCHS + 1):
        record.add_epoch("b", metrics(epoch, 0.6))
    assert record.finish("b").status == "completed"
    assert [trial.state for trial in stored_trials(tmp_path)] == [TrialState.COMPLETE]


DIES_WHILE_WRITING = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # so that half of it reaches the file
database.execute("BEGIN")
database.execute("UPDATE trial_user_attributes SET value_json = '1' || zeroblob(100000)")
os._exit(1)
"""


def test_what_a_dead_process_left_half_written_is_undone(study: HandDrivenStudy, tmp_path: Path) -> None:
    study.run_one_of_each()
    before = [asdict(trial) for trial in StudyRecord.open(tmp_path).trials]
    subprocess.run([sys.executable, "-c", DIES_WHILE_WRITING, str(tmp_path / "study.db")], check=False)
    assert (tmp_path / "study.db-journal").stat().st_size > 0
    assert stored_settings(tmp_path).num_samples == StudySettings().num_samples
    assert not (tmp_path / "study.db-journal").exists()
    assert [asdict(trial) for trial in StudyRecord.open(tmp_path).trials] == before


def test_error_texts_become_one_harmless_line() -> None:
    failure = Failure("exception", "ValueError: \x1b[2J\x1b[31mred\nand \u202e reversed\r\x00")
    assert failure.error == "ValueError: \\x1b[2J\\x1b[31mred and \\u202e reversed \\x00"


class Again(NoRetry):
    """Tries again at once."""

    def wait(self, error: Exception) -> None:
        assert "disk is full" in str(error)


def test_nothing_is_lost_when_the_disk_is_full_at_a_commit(study: HandDrivenStudy, tmp_path: Path) -> None:
    study.record.retry_writes_with(Again())
    fails: Iterator[bool] = iter(())

    @event.listens_for(study.record._database.engine, "commit")
    def commit(_: object) -> None:
        if next(fails, False):
            raise OperationalError(None, None, OSError("disk is full"))

    for step in (
        lambda: study.suggest("a"),
        lambda: study.record.add_epoch("a", metrics(1, 0.5)),
        lambda: study.record.add_epoch("a", metrics(2, 0.6)),
        lambda: study.record.add_epoch("a", metrics(3, 0.7)),
        lambda: study.record.finish("a"),
    ):
        fails = iter([True])
        step()
        assert next(fails, None) is None
    assert StudyRecord.open(tmp_path).trials == study.record.trials


def test_study_that_writes_is_read_as_it_is_at_one_moment(study: HandDrivenStudy, tmp_path: Path) -> None:
    """While the tables are read, one after the other, an epoch is recorded: it is there as a whole, or not at all."""
    study.suggest("a")
    study.record.add_epoch("a", metrics(1, 0.5))
    writer = threading.Thread(target=lambda: study.record.add_epoch("a", metrics(2, 0.6)))

    def write_meanwhile(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM trial_user_attributes" in statement and threading.current_thread() is threading.main_thread():
            writer.start()
            writer.join(0.5)

    event.listen(Engine, "after_cursor_execute", write_meanwhile)
    try:
        read = StudyRecord.open(tmp_path)
    finally:
        event.remove(Engine, "after_cursor_execute", write_meanwhile)
    writer.join()
    assert [len(trial.epochs) for trial in read.trials] == [1]
    assert [len(trial.epochs) for trial in StudyRecord.open(tmp_path).trials] == [2]
