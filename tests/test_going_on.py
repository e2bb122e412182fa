"""Trainings that catch the end of their trial and go on: their worker is ended, and whose trial that costs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from optuna.distributions import FloatDistribution
from studies import SESSION, search

from search.algorithms.stopping import StudyStopper
from search.engine.recording_callback import RecordingCallback
from search.engine.trial_folder import UNENDED
from search.record.metadata import StudyMetadata
from search.record.study_record import StudyRecord
from search.record.trial import Failure, TrialRecord
from search.settings import StudySettings
from search.space.search_space import SearchSpace
from search.task.custom_metrics import CustomMetrics

DIED = Failure("worker_died", "worker died: by itself")


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    settings = StudySettings(metric="loss", epochs=2, num_samples=9, train_function="own.py:train", resume="no new one")
    space = SearchSpace({"slope": FloatDistribution(0.0, 1.0)})
    return StudyRecord.create(tmp_path, StudyMetadata(settings=settings, space=space, sessions=[SESSION]))


@pytest.fixture
def callback(record: StudyRecord) -> RecordingCallback:
    settings = SimpleNamespace(max_failures=0)
    machines = SimpleNamespace(capacity=1, cluster=None)
    study: Any = SimpleNamespace(record=record, settings=settings, began=0.0, machines=machines)
    view: Any = mock.MagicMock()
    with mock.patch("search.engine.recording_callback.Gauges"):
        return RecordingCallback(study, view, view, StudyStopper(), view)


def begin(record: StudyRecord, trial_id: str, epochs: int) -> TrialRecord:
    search(record).suggest(trial_id)
    for epoch in range(1, epochs + 1):
        record.add_epoch(trial_id, CustomMetrics(epoch=epoch, seconds=1.0, values={"loss": 1.0}))
    return record.running(trial_id)


def go_on(record: StudyRecord, trial: TrialRecord) -> None:
    record.checkpoints.trial_folder(trial.number).mkdir(parents=True)
    (record.checkpoints.trial_folder(trial.number) / UNENDED).write_text("loss is nan in epoch 2\nThread 0x1:\n")


def test_trial_that_waits_for_a_worker_that_goes_on_starts_in_another(
    record: StudyRecord, callback: RecordingCallback, capsys: pytest.CaptureFixture[str]
) -> None:
    first = begin(record, "a", epochs=1)
    record.finish("a")  # stopped early
    go_on(record, first)
    waiting = begin(record, "b", epochs=0)
    callback.worker_died("b", DIED)
    assert (waiting.status, waiting.worker_failures, first.status) == ("interrupted", 0, "stopped_early")
    assert "trial 0 went on after its end, so its worker was ended" in capsys.readouterr().out
    begin(record, "c", epochs=0)
    callback.worker_died("c", DIED)
    assert waiting.status == "failed"  # its own fault


@pytest.mark.parametrize(("epochs", "status", "error"), [(1, "failed", "loss is nan in epoch 2"), (2, "completed", "")])
def test_trial_whose_training_goes_on_after_its_end_has_ended(
    record: StudyRecord, callback: RecordingCallback, epochs: int, status: str, error: str
) -> None:
    trial = begin(record, "a", epochs)
    go_on(record, trial)
    callback.worker_died("a", DIED)
    assert trial.status == status
    assert (trial.failure.error if trial.failure else "") == (f"went on after its end: {error}" if error else "")
