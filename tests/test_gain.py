"""The gain over the settings with which a study starts: over what, after how many epochs, and in which words."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from studies import planted_study

from search.analysis.findings import analyse
from search.analysis.gain import gain_over_start
from search.outputs.summary import show_summary
from search.record.study_record import StudyRecord
from search.record.trial import Failure


def study(folder: Path, *curves: list[float], dataset: str = "fashion-mnist", **settings: Any) -> StudyRecord:
    """A study whose first trials are the tutorial's settings, these with rmsprop, and these with adam."""
    given = iter(curves)
    record = planted_study(folder, lambda _: next(given), trials=len(curves), epochs=3)
    metadata = record.metadata
    changed = replace(metadata.settings, dataset=dataset, **settings)
    record.metadata = replace(metadata, settings=changed, dataset=replace(metadata.images, name=dataset))
    record.objective = record.metadata.objective
    for trial, optimizer in zip(record.trials, ("sgd", "rmsprop", "adam"), strict=False):
        trial.hyperparameters = {"learning_rate": 1e-3, "batch_size": 64, "optimizer": optimizer}
    record.trials[0].is_baseline = True
    for trial in record.trials:
        trial.objective = record.objective
        trial.best_epoch = min(trial.epochs, key=record.objective.minimized)
    return record


def told(record: StudyRecord, number: int, name: str = "val_accuracy") -> str | None:
    gain = gain_over_start(record, record.trials[number])
    return f"{gain.difference(record, name)} over the {gain.over}" if gain else None


def test_gain_on_the_tutorials_data_is_over_its_settings(tmp_path: Path) -> None:
    record = study(tmp_path, [0.5, 0.6, 0.7], [0.8, 0.8, 0.85], [0.6, 0.6, 0.6], [0.8, 0.9, 0.9])
    assert told(record, 3) == "+20.0 points of val_accuracy over the tutorial's settings"
    assert told(record, 2) == "-10.0 points of val_accuracy over the tutorial's settings"


def test_gain_on_other_data_is_over_the_best_starting_point(tmp_path: Path) -> None:
    """The tutorial's settings learn nothing on digits, so everything would gain much over them."""
    record = study(tmp_path, [0.1, 0.1, 0.1], [0.8, 0.8, 0.85], [0.6, 0.6, 0.6], [0.8, 0.9, 0.9], dataset="digits")
    assert told(record, 3) == "+5.0 points of val_accuracy over the best starting point, trial 1"
    assert told(record, 1) is None


@pytest.mark.parametrize(("baseline", "best"), [([0.5, 0.6, 0.7], [0.8]), ([0.5], [0.8, 0.9, 0.9])])
def test_trials_are_compared_after_the_same_number_of_epochs(
    tmp_path: Path, baseline: list[float], best: list[float]
) -> None:
    record = study(tmp_path, baseline, [0.1], [0.1], best)
    assert told(record, 3) == "+30.0 points of val_accuracy over the tutorial's settings, both after 1 epoch"


def test_lower_loss_is_said_in_words(tmp_path: Path) -> None:
    record = study(tmp_path, [0.5, 0.6, 0.7], [0.5] * 3, [0.5] * 3, [0.8, 0.9, 0.75], metric="val_loss")
    assert told(record, 3, "val_loss") == "val_loss lower by 0.2 over the tutorial's settings"
    assert told(record, 2, "val_loss") == "val_loss higher by 0.2 over the tutorial's settings"


def test_start_itself_has_no_gain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = study(tmp_path, [0.9, 0.9, 0.9], [0.5] * 3, [0.5] * 3, [0.5] * 3)
    assert told(record, 0) is None
    show_summary(record, analyse(record))
    assert "No trial was better than the settings with which the study started." in capsys.readouterr().out


def test_gain_over_diverged_settings_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = study(tmp_path, [0.5, 0.6], [0.5] * 3, [0.5] * 3, [0.8] * 3)
    record.trials[0].failure, record.trials[0].status = Failure("diverged", "train_loss is nan"), "diverged"
    assert told(record, 3) is None
    show_summary(record, analyse(record))
    assert "The tutorial's settings diverged, so no gain over them is known." in capsys.readouterr().out
