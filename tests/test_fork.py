"""Studies that begin with what another one found, and studies that must not go on."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from serial_ray import StartedRun
from studies import metrics, search

from search.engine.study import Study, prepare_study
from search.record.metadata import WarmStart
from search.record.study_record import StudyRecord
from search.run import read_settings
from search.settings import StudySettings
from search.task import checksums


def prepared(folder: Path, *options: str) -> Study:
    """A study as the command line would prepare it."""
    words = ["--dataset", "digits", "--no-dashboard", "--results-dir", str(folder), *options]
    study = prepare_study(read_settings(words))
    study.folder.close()
    return study


@pytest.fixture
def earlier(tmp_path: Path) -> Study:
    """A study of three trials: the baseline, a good one, and one that has not ended."""
    study = prepared(tmp_path, "--name", "earlier", "--epochs", "2", "--seed", "7")
    searcher = search(study.record)
    for number in range(3):
        searcher.suggest(str(number))
    for epoch in (1, 2):
        study.record.add_epoch("0", metrics(epoch, 0.5))
        study.record.add_epoch("1", metrics(epoch, 0.8))
    study.record.finish("0")
    study.record.finish("1")
    return study


def warm_start_points(study: Study) -> list[dict[str, object]]:
    return [dict(trial.params) for trial in study.record.study.trials if "warm_start" in trial.user_attrs]


def test_warm_start_takes_what_ended_and_says_how_many(earlier: Study, tmp_path: Path) -> None:
    later = prepared(tmp_path, "--warm-start", "earlier", "--name", "later", "--epochs", "5")
    assert warm_start_points(later) == [trial.hyperparameters for trial in earlier.record.trials[:2]]
    assert later.record.metadata.warm_start == WarmStart(study="earlier", trials=2, of=3)
    assert later.settings.seed == 0
    assert later.trials_to_run == later.settings.num_samples


def test_fork_is_a_new_study_with_the_old_settings_unless_others_are_given(earlier: Study, tmp_path: Path) -> None:
    before = (earlier.record.folder / "study.db").read_bytes()
    fork = prepared(tmp_path, "--resume", "earlier", "--fork", "--epochs", "5")
    assert (fork.settings.epochs, fork.settings.seed) == (5, 7)
    assert fork.record.folder != earlier.record.folder
    assert len(warm_start_points(fork)) == 2
    assert (earlier.record.folder / "study.db").read_bytes() == before


def test_fork_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fork needs resume"):
        StudySettings(fork=True, results_dir=tmp_path)


def test_evidence_by_another_metric_or_data_set_is_refused(earlier: Study, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"the trials of study earlier cannot be a warm start: it has metric val_accuracy \(here val_loss\)",
    ):
        prepared(tmp_path, "--warm-start", "earlier", "--metric", "val_loss")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier"]


def test_study_does_not_go_on_with_other_code(earlier: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = checksums.code("mlp")
    assert "loop" in code
    monkeypatch.setattr(checksums, "code", lambda _: {**code, "loop": "another checksum"})
    with pytest.raises(
        ValueError, match=r"with other code: loop changed since .*; resume it without this change, or add --fork"
    ):
        prepared(tmp_path, "--resume", "earlier")
    assert len(warm_start_points(prepared(tmp_path, "--resume", "earlier", "--fork"))) == 2


def test_study_does_not_go_on_with_other_data(earlier: Study, tmp_path: Path) -> None:
    earlier.record.update(dataset=replace(earlier.record.metadata.images, sha256="another"))
    with pytest.raises(ValueError, match="study earlier was run on other data than those of digits"):
        prepared(tmp_path, "--resume", "earlier")


def test_options_of_one_start_are_not_inherited(tmp_path: Path) -> None:
    prepared(tmp_path, "--name", "study", "--time-budget", "1m", "--max-failures", "5")
    resumed = prepared(tmp_path, "--resume", "study")
    assert resumed.settings.time_budget is None
    assert resumed.settings.max_failures == 5


def test_name_of_a_study_that_was_never_whole_is_free(tmp_path: Path) -> None:
    """A process that dies while it makes a study leaves no folder of that name."""
    with pytest.MonkeyPatch.context() as dies:
        dies.setattr(StudyRecord, "enqueue_starting_points", lambda *_, **__: os._exit(9))
        died = StartedRun("search/run.py", "--dataset=digits", "--name=mine", f"--results-dir={tmp_path}")
    assert died.end() == (9, "")
    assert not (tmp_path / "mine").exists()
    assert prepared(tmp_path, "--name", "mine").record.trials == []
