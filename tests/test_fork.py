"""Studies that begin with what another one found, and studies that must not go on."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serial_ray import StartedRun
from studies import DEFAULT_SPACE, DEFAULTS, metrics, search

from search.engine.header import header_lines
from search.engine.study import Study, prepare_study
from search.record.lookup import resumed_settings
from search.record.metadata import WarmStart
from search.record.study_record import StudyRecord
from search.run import read_settings
from search.settings import StudySettings
from search.space.search_space import starting_points
from search.task import checksums
from search.task.custom_metrics import CustomMetrics


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
    assert later.record.metadata.warm_start == [WarmStart(study="earlier", trials=2, of=3)]
    assert later.settings.seed == 0
    assert later.trials_to_run == later.settings.num_samples


def test_fork_is_a_new_study_with_the_old_settings_unless_others_are_given(earlier: Study, tmp_path: Path) -> None:
    before = (earlier.record.folder / "study.db").read_bytes()
    fork = prepared(tmp_path, "--resume", "earlier", "--fork", "--epochs", "5")
    assert (fork.settings.epochs, fork.settings.seed) == (5, 7)
    assert fork.record.folder != earlier.record.folder
    assert len(warm_start_points(fork)) == 2
    assert (earlier.record.folder / "study.db").read_bytes() == before


def test_study_that_goes_on_takes_nothing_more(earlier: Study, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="warm_start is for a new study: leave it out, or add --fork to begin one"):
        prepared(tmp_path, "--resume", "earlier", "--warm-start", "latest")
    words = ["--name", "earlier", "--resume-existing", "--epochs", "2", "--seed", "7", "--warm-start", "gone"]
    assert prepared(tmp_path, *words).record.metadata.warm_start == []  # the same command line has begun it


def test_fork_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fork needs resume"):
        StudySettings(fork=True, results_dir=tmp_path)


def first_points(study: Study, number: int) -> list[dict[str, Any]]:
    searcher = search(study.record)
    for place in range(number):
        searcher.suggest(str(place))
    return [trial.hyperparameters for trial in study.record.trials]


def test_trials_of_a_study_of_another_metric_count_for_nothing(earlier: Study, tmp_path: Path) -> None:
    later = prepared(tmp_path, "--warm-start", "earlier", "--metric", "val_loss", "--name", "later")
    differences = ["metric val_accuracy (here val_loss)", "mode max (here min)"]
    expected = WarmStart(study="earlier", trials=0, of=3, differences=differences)
    assert later.record.metadata.warm_start == [expected]
    assert warm_start_points(later) == []
    assert first_points(later, 3) == starting_points(DEFAULT_SPACE, DEFAULTS)  # the best of them is the second one
    assert later.record.queued() == []
    (line,) = [line for line in header_lines(later) if line.startswith("  warm start")]
    assert line.endswith(f"no further configuration of study earlier, which has {', '.join(differences)}")


def other_task(folder: Path, name: str, *hyperparameters: dict[str, float | str]) -> None:
    """A study of a training function with these trials, the best first."""
    (folder / "own.py").write_text("def train(config): ...\n")
    space = folder / f"{name}.toml"
    ranges = "\n".join(f"{one} = {{low = 1e-6, high = 10.0}}" for one in hyperparameters[0] if one != "optimizer")
    space.write_text(f'{ranges}\noptimizer = {{choices = ["adam", "lion"]}}\n')
    words = ["--train-function", f"{folder}/own.py:train", "--metric", "loss", "--space", str(space), "--no-dashboard"]
    study = prepare_study(read_settings([*words, "--name", name, "--results-dir", str(folder)]))
    for place, values in enumerate(hyperparameters):
        study.record.enqueue(values)
        proposed = search(study.record).suggest(str(place))
        assert isinstance(proposed, dict)
        study.record.add_epoch(str(place), CustomMetrics(epoch=1, values={"loss": float(place)}, seconds=1.0))
        study.record.finish(str(place))
    study.folder.close()


def test_several_studies_give_trials_or_configurations_first_the_best_of_each(earlier: Study, tmp_path: Path) -> None:
    """What the space lacks is left out, what the other study lacks has its default, and numbers are clipped."""
    other_task(tmp_path, "b", {"learning_rate": 5.0, "decay": 1.0, "optimizer": "adam"}, {"learning_rate": 0.02})
    other_task(tmp_path, "c", {"learning_rate": 0.01, "optimizer": "lion"}, {"learning_rate": 0.03})
    later = prepared(tmp_path, "--warm-start", "b", "earlier", "c", "b", "--name", "later")
    known = [(one.study, one.trials, one.tried_first) for one in later.record.metadata.warm_start]
    assert known == [("b", 0, 2), ("earlier", 2, 0), ("c", 0, 1)]
    assert len(warm_start_points(later)) == 2
    default = {"batch_size": 64, "optimizer": "sgd"}
    baseline, *tried = first_points(later, 4)
    assert baseline == {"learning_rate": 1e-3, **default}
    assert tried[:2] == [
        {"learning_rate": 0.1, "batch_size": 64, "optimizer": "adam"},
        {"learning_rate": 0.01, **default},
    ]
    assert tried[2]["learning_rate"] == 0.02
    alone = prepared(tmp_path, "--warm-start", "c", "--name", "alone")
    assert first_points(alone, 4) == [*starting_points(DEFAULT_SPACE, DEFAULTS), tried[1]]


def test_values_that_the_other_study_fixed_are_tried_too_if_there_are_trials_for_them(tmp_path: Path) -> None:
    words = ["--metric", "val_loss", "--set", "optimizer=adam", "learning_rate=0.02", "--no-baseline"]
    other = prepared(tmp_path, "--name", "fixed", *words)
    search(other.record).suggest("0")
    other.record.add_epoch("0", metrics(1, 0.8))
    other.record.finish("0")
    later = prepared(tmp_path, "--warm-start", "fixed", "--name", "later")
    (trial,) = other.record.trials
    assert first_points(later, 4)[3] == {"learning_rate": 0.02, **trial.hyperparameters, "optimizer": "adam"}
    few = prepared(tmp_path, "--warm-start", "fixed", "--name", "few", "--num-samples", "3")
    assert [one.tried_first for one in few.record.metadata.warm_start] == [0]
    assert len(few.record.queued()) == 3


def test_study_of_other_images_of_the_same_name_gives_no_trials(earlier: Study, tmp_path: Path) -> None:
    earlier.record.update(dataset=replace(earlier.record.metadata.images, sha256="another"))
    (one,) = prepared(tmp_path, "--warm-start", "earlier", "--name", "later").record.metadata.warm_start
    assert (one.trials, one.differences) == (0, ["other images of digits"])


def test_fork_may_take_more_than_its_own_study(earlier: Study, tmp_path: Path) -> None:
    other_task(tmp_path, "b", {"learning_rate": 0.02, "optimizer": "adam"})
    fork = prepared(tmp_path, "--resume", "earlier", "--fork", "--warm-start", "b")
    assert [one.study for one in fork.record.metadata.warm_start] == ["earlier", "b"]
    settings = resumed_settings(earlier.record.folder, results_dir=tmp_path, fork=True, warm_start=("b",))
    assert [Path(one).name for one in settings.warm_start] == ["earlier", "b"]
    with pytest.raises(ValueError, match=r"must be a tuple of studies, for example \('latest',\), got str"):
        resumed_settings(earlier.record.folder, results_dir=tmp_path, fork=True, warm_start="b")


def test_study_that_searched_nothing_of_the_space_is_refused(tmp_path: Path) -> None:
    other_task(tmp_path, "b", {"decay": 1.0, "momentum": 0.5})
    space = tmp_path / "space.toml"
    space.write_text("learning_rate = {low = 1e-4, high = 1e-1}\n")
    with pytest.raises(ValueError, match=r"study b cannot be .*: it has metric loss .*, and no hyperparameter lear"):
        prepared(tmp_path, "--warm-start", "b", "--name", "later", "--space", str(space))
    assert not (tmp_path / "later").exists()
    with pytest.raises(ValueError, match=r"must be a tuple of studies, for example \('latest',\), got str"):
        StudySettings(warm_start="b")  # type: ignore[arg-type]


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
