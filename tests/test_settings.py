from pathlib import Path

import pytest

from search.settings import StudySettings
from search.task.metric_names import derived_mode


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"num_samples": 0}, "num_samples must be >= 1, got 0"),
        ({"num_samples": -3}, "num_samples must be >= 1, got -3"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"cpus_per_trial": 0}, "cpus_per_trial must be >= 1, got 0"),
        ({"memory_per_trial": "4"}, "memory_per_trial must be a size like 800MB or 4GB, got 4"),
        ({"node_label": ("a",), "address": "auto"}, "node_label must be one or several KEY=VALUE of letters, digits"),
        (
            {"node_label": ("a=b", "a=c"), "address": "auto"},
            "node_label must be one or several KEY=VALUE of letters, digits",
        ),
        ({"gpus_per_trial": -0.5}, "gpus_per_trial must be >= 0, got -0.5"),
        ({"gpus_per_trial": float("nan")}, "gpus_per_trial must be >= 0, got nan"),
        ({"gpus_per_trial": 1.5}, "gpus_per_trial above 1 must be a whole number, got 1.5"),
        ({"max_concurrent": 0}, "max_concurrent must be >= 1, got 0"),
        ({"val_fraction": 1.0}, "val_fraction must be in [0, 1), got 1.0"),
        (
            {"dataset": "cifar"},
            "dataset must be one of auto, fashion-mnist, mnist, kmnist, cifar10, digits, a folder of images, or",
        ),
        ({"scheduler": "pbt"}, "scheduler must be one of asha, promotion, median, hyperband, none, got pbt"),
        ({"sampler": "grid"}, "sampler must be one of gp, tpe, random, qmc, got grid"),
        ({"grace_period": 0}, "grace_period must be >= 1, got 0"),
        ({"grace_period": 3, "epochs": 2}, "grace_period must be at most epochs, 2, got 3"),
        ({"reduction_factor": 1}, "reduction_factor must be >= 2, got 1"),
        ({"metric": "f1"}, "metric must be one of val_accuracy, val_loss, test_accuracy, test_loss, got f1"),
        (
            {"metric": "test_accuracy"},
            "metric test_accuracy would choose by the test images; this needs val_fraction 0",
        ),
        ({"metric": "val_loss", "val_fraction": 0}, "metric val_loss needs validation images, but val_fraction is 0"),
        ({"seed": 2**32 - 1}, "the last trial's seed must be between 0 and 4294967295, got 4294967314"),
        *(
            ({"name": name}, "name must be 1 to 100 letters, digits, dots, dashes and underscores, beginning with")
            for name in ("", "a/b", "..", ".hidden", "../up", "-flag", "a b", "x" * 101, "naïve", "new\nline")
        ),
        ({"name": "latest"}, "name latest is taken"),
        ({"train_function": print}, "train_function must be a name or an import path as text, for example file.py:"),
        ({"network": print}, "network must be a name or an import path as text, for example file.py:function, got"),
        ({"space": "space.toml"}, "space must be a pathlib.Path of a file or a dictionary, got str"),
    ],
)
def test_bad_setting_is_refused_with_the_rule(options: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared as a whole below
        StudySettings(**options)  # type: ignore[arg-type]
    assert str(refusal.value).startswith(rule)


def test_name_of_an_existing_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="name mine is taken"):
        StudySettings(name="mine", results_dir=tmp_path)


def test_folders_that_are_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match="results_dir must be a folder"):
        StudySettings(results_dir=file)
    with pytest.raises(ValueError, match="data_dir must be a folder"):
        StudySettings(data_dir=file)


def test_default_metric_follows_the_validation_split() -> None:
    assert StudySettings().metric_name == "val_accuracy"
    assert StudySettings(val_fraction=0).metric_name == "test_accuracy"


def test_accuracies_are_maximised_and_losses_minimised() -> None:
    assert StudySettings(metric="val_accuracy").direction == "max"
    assert StudySettings(metric="val_loss").direction == "min"


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("val_loss", "min"),
        ("valLoss", "min"),
        ("Val Acc", "max"),
        ("val/f1", "max"),
        ("test_r2", "max"),
        ("RMSE", "min"),
        ("reward", None),
        ("f1_loss", None),
        ("glossary", None),
    ],
)
def test_name_of_a_metric_says_what_is_best_where_it_is_clear(metric: str, mode: str | None) -> None:
    assert derived_mode(metric) == mode
