from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.scheduler import build_scheduler
from search.space import HyperparameterValue

BASELINE: dict[str, HyperparameterValue] = {"learning_rate": 1e-3, "batch_size": 64, "optimizer": "sgd"}
OTHER = {**BASELINE, "optimizer": "adam"}


def decisions(*trials: tuple[dict[str, Any], list[float]], epochs: int = 10) -> list[list[str]]:
    """What the scheduler answers to each trial's accuracies, one trial after the other."""
    record: Any = SimpleNamespace(epochs=epochs, metric="val_accuracy", mode="max", trials=[])
    scheduler: Any = build_scheduler("asha", record, BASELINE)
    answers = []
    for number, (config, accuracies) in enumerate(trials):
        trial = SimpleNamespace(trial_id=str(number), config={**config, "seed": number}, status="RUNNING")
        scheduler.on_trial_add(None, trial)
        answers.append(
            [
                scheduler.on_trial_result(None, trial, {"epoch": epoch, "val_accuracy": accuracy})
                for epoch, accuracy in enumerate(accuracies, start=1)
            ]
        )
    return answers


def test_trial_behind_two_thirds_is_stopped_after_its_first_epoch() -> None:
    good, bad = (OTHER, [0.8]), (OTHER, [0.3])
    assert decisions(good, good, bad)[-1] == [TrialScheduler.STOP]


def test_baseline_runs_in_full_however_bad_it_is() -> None:
    answers = decisions((OTHER, [0.9] * 9), (BASELINE, [0.1] * 9))
    assert answers[-1] == [TrialScheduler.CONTINUE] * 9


def test_baseline_counts_for_the_others() -> None:
    answers = decisions((BASELINE, [0.9]), (OTHER, [0.1]))
    assert answers[-1] == [TrialScheduler.STOP]


@pytest.mark.parametrize("epochs", [1, 2])
def test_short_trials_are_possible(epochs: int) -> None:
    assert decisions((OTHER, [0.5] * epochs), epochs=epochs)[0][-1] == TrialScheduler.STOP


def test_none_stops_nothing() -> None:
    record: Any = SimpleNamespace(trials=[])
    assert isinstance(build_scheduler("none", record, BASELINE), FIFOScheduler)
