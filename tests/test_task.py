"""The kind of training of a study is chosen in one place; all other code asks what there is, or calls a method."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.engine.runners import TrialRun, runner_of
from search.record.trial import Objective
from search.settings import StudySettings
from search.task.custom_metrics import CustomMetrics
from search.task.task import Task
from training import loop
from training.checkpoint import Checkpoint, read_metrics
from training.config import PROJECT, TrialConfig
from training.images.image_data import load_data
from training.metrics import EpochMetrics

KINDS = ("ImageTask", "FunctionTask", "ProgramTask", "ImportedTask")
NAMED_IN = {
    "task/task_choice.py",  # chooses the kind by the settings
    "engine/runners.py",  # has the table of how each kind is trained
}
BRANCH = re.compile(
    r"has_images|command is (not )?None|isinstance\([^()]*, \(?\w*(Task|Runner|Checkpoint)\b"
    r"|type\((self\.)?(_?task|_?runner|_?checkpoint)\)"
)
"""What a question for the kind looks like."""
FUNCTION, COMMAND = "train.py:train", "python train.py --lr {lr} --seed {seed}"
OWN = {"metric": "val_loss"}


def sources() -> dict[str, str]:
    folder = PROJECT / "search"
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.py")}


def task(**options: Any) -> Task:
    return StudySettings(**options).task


def test_kinds_of_training_are_named_in_one_place_of_the_search_and_one_of_the_engine() -> None:
    defined = {f"task/{name}.py" for name in ("image_task", "imported_task", "own_task")}
    naming = {file for file, source in sources().items() if re.search("|".join(KINDS), source)}
    assert naming - defined == NAMED_IN


def test_nothing_asks_for_the_kind_of_training() -> None:
    found = {file: match[0] for file, source in sources().items() if (match := BRANCH.search(source))}
    assert found.pop("engine/runners.py") == "type(task)"
    assert found.pop("task/task_choice.py") == "command is not None"
    assert found == {}


@pytest.mark.parametrize(
    ("options", "kind"),
    [*zip([{}, {"train_function": FUNCTION, **OWN}, {"command": COMMAND, **OWN}], KINDS[:3], strict=True)],
)
def test_settings_choose_the_kind_and_its_runner(options: dict[str, Any], kind: str) -> None:
    chosen = task(**options)
    assert type(chosen).__name__ == kind
    assert type(runner_of(chosen)).__name__ == kind.replace("Task", "Runner")


def test_imported_trials_have_a_kind_and_no_runner() -> None:
    chosen = task(imported="another program", **OWN)
    assert type(chosen).__name__ == "ImportedTask"
    with pytest.raises(ValueError, match="its training is not known here"):
        chosen.check_can_train()


def test_what_each_kind_of_training_has() -> None:
    images, function, program = (
        task(dataset="digits"),
        task(train_function=FUNCTION, **OWN),
        task(command=COMMAND, **OWN),
    )
    assert [one.short_name(Path()) for one in (images, function, program)] == ["digits", "train", "train"]
    assert [one.epochs for one in (images, function, program)] == [10, None, None]
    assert [one.unit("val_accuracy") for one in (images, function, program)] == ["points", *["val_accuracy"] * 2]
    assert [one.saves_epochs for one in (images, function, program)] == [True, True, False]
    assert [one.trains_on_all_data for one in (images, function, program)] == [True, False, False]
    assert images.network == "mlp"
    assert function.network is program.network is None


def test_record_adds_what_only_the_kind_can_have() -> None:
    images, function = task(dataset="auto"), task(train_function=FUNCTION, **OWN)
    assert images.recorded("digits", []).name == "digits"
    assert function.recorded(None, ["val_loss", "f1"]).metric_names == ["val_loss", "f1"]
    for one, dataset, metrics in ((images, None, []), (images, "digits", ["f1"]), (function, "digits", [])):
        with pytest.raises(ValueError, match=r"data set|metrics of images"):
            one.recorded(dataset, metrics)


def test_epoch_of_a_function_may_have_only_the_metrics_that_the_study_names() -> None:
    function = task(train_function=FUNCTION, **OWN)
    function.check_epoch(CustomMetrics(epoch=1, seconds=1.0, values={"val_loss": 2.5}))
    for values in (dict[str, float | None](other=1.0), dict[str, float | None](val_loss=float("inf"))):
        with pytest.raises(ValueError, match=r"does not name|cannot be inf"):
            function.check_epoch(CustomMetrics(epoch=1, seconds=1.0, values=values))


@pytest.mark.parametrize("val_fraction", [0.2, 0.0])
def test_images_are_trained_through_the_protocol_of_training_functions(tmp_path: Path, val_fraction: float) -> None:
    """The reports have what the loop has measured, and the checkpoint is that of training functions."""
    settings = StudySettings(dataset="digits", epochs=2, val_fraction=val_fraction)
    data, _ = load_data(settings, 0)
    reports: list[EpochMetrics] = []

    def report(metrics: EpochMetrics, *, is_last: bool) -> None:
        assert not is_last
        reports.append(metrics)

    runner_of(settings.task.recorded("digits", [])).train(
        TrialRun(
            number=0,
            hyperparameters={"learning_rate": 0.1},
            seed=3,
            objective=Objective(settings.metric_name, settings.direction),
            checkpoint=Checkpoint(tmp_path / "trial-0000.pt"),
            report=report,
            images=data,
            threads=1,
        )
    )
    expected = loop.train(TrialConfig(learning_rate=0.1, epochs=2, seed=3), data)
    times: dict[str, Any] = {"seconds": 0.0, "evaluation_seconds": 0.0}
    assert [replace(metrics, **times) for metrics in reports] == [replace(metrics, **times) for metrics in expected]
    best = max(reports, key=lambda metrics: getattr(metrics, settings.metric_name)).epoch
    kept = {f"trial-0000-epoch-{best:04}.pt", "trial-0000-last-0002.pt"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert read_metrics(tmp_path / f"trial-0000-epoch-{best:04}.pt") == reports[best - 1]
