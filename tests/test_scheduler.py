"""Which trials are stopped, by each scheduler: driven by hand, on records in memory."""

import pickle
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import optuna
import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from studies import DEFAULT_SPACE, metadata, metrics

from search.algorithms.schedulers import InterruptingScheduler, build_scheduler
from search.algorithms.stopping import StudyStopper
from search.record.study_record import StudyRecord
from search.settings import SchedulerName, StudySettings
from search.simulation.simulator import memory_record

GO_ON, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
BASELINE = {"baseline": True}


class Driven:
    """Trials that report accuracies to a scheduler and to a record, in the order that Ray does."""

    def __init__(self, scheduler: SchedulerName, folder: Path | None = None, **settings: Any) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.settings = StudySettings(scheduler=scheduler, **settings)
        if folder:  # in memory, Optuna does not ask for an interrupted trial again
            folder.mkdir()
            self.record = StudyRecord.create(folder, metadata(epochs=self.settings.epochs))
        else:
            self.record = memory_record(self.settings, DEFAULT_SPACE)
        self.scheduler = build_scheduler(self.settings, self.record)
        self._names = iter(range(10**6))

    def start(self, attributes: dict[str, bool] | None = None) -> str:
        """Begin a trial, or go on with an interrupted one."""
        trial_id = f"ray{next(self._names)}"
        if attributes is not None:
            self.record.study.enqueue_trial({}, user_attrs=attributes)
        proposal = self.record.study.ask()
        self.record.start(trial_id, proposal, seed=proposal.number)
        return trial_id

    def report(self, trial_id: str, *accuracies: float) -> list[str]:
        """What the scheduler answers to each epoch, until it stops the trial."""
        answers = []
        for accuracy in accuracies:
            epoch = metrics(len(self.record.running(trial_id).epochs) + 1, accuracy)
            result = {"epoch": epoch.epoch, "objective": accuracy, "node": "n"}
            answers.append(self.scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial_id), result))
            self.record.add_epoch(trial_id, epoch)
            if answers[-1] == STOP:
                break
        return answers

    def run(self, *accuracies: float, attributes: dict[str, bool] | None = None) -> list[str]:
        """Run one trial until it is stopped or has no more to report."""
        trial_id = self.start(attributes or {})
        answers = self.report(trial_id, *accuracies)
        self.record.finish(trial_id)
        return answers

    def start_again(self) -> None:
        """What a resumed study does: the trials that ran wait in the record, and the scheduler is another one."""
        self.record.interrupt_running()
        self.scheduler = build_scheduler(self.settings, self.record)


STOPPING: tuple[SchedulerName, ...] = ("asha", "median", "hyperband")


def test_asha_stops_a_trial_behind_two_thirds_after_its_first_epoch() -> None:
    study = Driven("asha")
    assert [study.run(0.8)[-1], study.run(0.8)[-1], study.run(0.3)[-1]] == [GO_ON, GO_ON, STOP]


def test_grace_and_reduction_say_when_asha_decides_and_how_strictly() -> None:
    ascending = [0.1 * trial for trial in range(1, 10)]
    lenient, strict = Driven("asha", reduction_factor=2), Driven("asha", grace_period=2, reduction_factor=4)
    for study in (lenient, strict):
        for accuracy in ascending:
            study.run(*[accuracy] * 10)
    assert [len(lenient.run(*[accuracy] * 10)) for accuracy in (0.15, 0.55, 0.65, 0.95)] == [1, 10, 10, 10]
    assert [len(strict.run(*[accuracy] * 10)) for accuracy in (0.15, 0.55, 0.65, 0.95)] == [2, 2, 2, 10]


@pytest.mark.parametrize("scheduler", STOPPING)
def test_baseline_runs_in_full_however_bad_it_is_and_counts_for_the_others(scheduler: SchedulerName) -> None:
    study = Driven(scheduler)
    for _ in range(3):
        study.run(*[0.9] * 10)
    assert study.run(*[0.1] * 9, attributes=BASELINE) == [GO_ON] * 9
    assert STOP in study.run(*[0.05] * 9)
    only = Driven(scheduler)
    for _ in range(3):
        only.run(*[0.9] * 10, attributes=BASELINE)
    assert STOP in only.run(*[0.5] * 9)


@pytest.mark.parametrize("scheduler", STOPPING)
@pytest.mark.parametrize("epochs", [1, 2])
def test_short_trials_are_possible(scheduler: SchedulerName, epochs: int) -> None:
    study = Driven(scheduler, epochs=epochs)
    assert len(study.run(*[0.5] * epochs)) == epochs


def test_none_stops_nothing() -> None:
    assert type(Driven("none").scheduler) is FIFOScheduler


@pytest.mark.parametrize("scheduler", STOPPING)
def test_resumed_study_stops_as_if_it_had_not_been_interrupted(scheduler: SchedulerName, tmp_path: Path) -> None:
    steady, resumed = Driven(scheduler, epochs=4), Driven(scheduler, tmp_path / "study", epochs=4)
    for study in (steady, resumed):
        for accuracy in (0.3, 0.5, 0.7):
            study.run(*[accuracy] * 4)
    resumed.start_again()
    for accuracies in ([0.2] * 4, [0.45] * 4, [0.62] * 4, [0.7, 0.7, 0.4, 0.4]):
        assert resumed.run(*accuracies) == steady.run(*accuracies)


@pytest.mark.parametrize("scheduler", ["asha", "hyperband"])
def test_resumed_trial_is_not_judged_for_epochs_that_it_left_behind(scheduler: SchedulerName, tmp_path: Path) -> None:
    study = Driven(scheduler, tmp_path / "study", grace_period=3, reduction_factor=2)
    study.report(study.start({}), 0.2, 0.2, 0.2, 0.2)  # the first to come so far: it goes on
    for _ in range(4):
        study.run(*[0.9] * 6)
    study.start_again()
    again = study.start()
    assert study.record.running(again).number == 0
    assert study.report(again, 0.2, 0.2) == [GO_ON, STOP]  # epochs 5 and 6: it decides after 3 and 6


def test_resumed_trial_is_judged_by_its_best_epoch_before_the_interruption(tmp_path: Path) -> None:
    study = Driven("median", tmp_path / "study")
    for accuracy in (0.4, 0.5, 0.6):
        study.run(*[accuracy] * 10)
    first = study.start({})
    study.report(first, 0.55)
    study.start_again()
    assert study.report(study.start(), 0.1, 0.1) == [GO_ON, GO_ON]


def test_median_rule_against_a_computation_by_hand() -> None:
    study = Driven("median")
    study.run(0.1, 0.5, 0.9)  # means 0.1, 0.3, 0.5
    study.run(0.3, 0.3, 0.9)  # means 0.3, 0.3, 0.5
    assert study.run(0.0, 0.6) == [GO_ON, GO_ON]  # two trials are too few to judge by; means 0.0, 0.3
    assert study.run(0.05) == [STOP]  # the median of 0.1, 0.3, 0.0 is 0.1
    # The median of 0.1, 0.3, 0.0, 0.05 is 0.075; then that of 0.3, 0.3, 0.3 is 0.3; then two trials are too few
    assert study.run(0.08, 0.29) == [GO_ON, STOP]
    assert study.run(0.08, 0.31, 0.0, 0.0) == [GO_ON] * 4


def test_losses_are_better_when_lower() -> None:
    for scheduler in STOPPING:
        study = Driven(scheduler, metric="val_loss")
        for loss in (0.9, 0.8, 0.7, 0.6, 0.5):
            assert answers(study, loss)[-1] == GO_ON
        assert STOP in answers(study, 2.0)


def answers(study: Driven, loss: float) -> list[str]:
    trial_id = study.start({})
    given = []
    for epoch in range(1, 10):
        trial, result = SimpleNamespace(trial_id=trial_id), {"epoch": epoch, "objective": loss}
        given.append(study.scheduler.on_trial_result(None, trial, result))
        if given[-1] == STOP:
            break
    return given


def test_hyperband_has_brackets_that_decide_later_and_a_trial_keeps_its_own() -> None:
    def epochs_run(study: Driven) -> list[int]:
        return [len(study.run(*[1 / (2 + trial)] * 10)) for trial in range(300)]  # each is worse than all before it

    study, again = Driven("hyperband"), Driven("hyperband")
    ran = epochs_run(study)
    assert ran == epochs_run(again)
    stopped_after = Counter(ran)
    assert stopped_after[10] == 3  # the first in each bracket
    assert stopped_after.keys() == {1, 3, 9, 10}
    assert stopped_after[1] > 1.5 * stopped_after[3] > 2 * stopped_after[9] > 0
    assert Counter(epochs_run(Driven("asha"))) == {10: 1, 1: 299}


@pytest.mark.parametrize("scheduler", get_args(SchedulerName))
def test_ray_can_pickle_it(scheduler: SchedulerName, tmp_path: Path) -> None:
    assert pickle.dumps(Driven(scheduler, tmp_path / "study").scheduler)


def test_failing_trial_is_left_to_end_by_itself() -> None:
    study = Driven("asha")
    report = {"failure": {"kind": "diverged", "error": "nan"}}
    assert study.scheduler.on_trial_result(None, SimpleNamespace(trial_id=study.start({})), report) == GO_ON


@pytest.mark.parametrize("scheduler", ["asha", "promotion"])
def test_trial_that_is_to_wait_is_judged_first(scheduler: SchedulerName) -> None:
    driven, stopper = Driven(scheduler, epochs=9), StudyStopper()
    driven.scheduler = InterruptingScheduler(driven.scheduler, stopper)
    for accuracy in (0.9, 0.8, 0.7):
        driven.run(accuracy)
    stopper.is_paused = True
    weak, strong = driven.start({}), driven.start({})
    assert [driven.report(weak, 0.1), driven.report(strong, 0.95)] == [[STOP], [STOP]]
    assert [stopper.interrupts(weak), stopper.interrupts(strong)] == [False, True]


@pytest.mark.parametrize("scheduler", ["asha", "promotion"])
def test_trial_is_not_stopped_where_all_others_have_ended_by_themselves(scheduler: SchedulerName) -> None:
    def end(name: str) -> None:
        result = {"ended": True, "node": "n"}
        assert study.scheduler.on_trial_result(None, SimpleNamespace(trial_id=name), result) == GO_ON
        study.record.end_by_itself(name)
        study.record.finish(name)

    study = Driven(scheduler, epochs=27, grace_period=3)
    names = [study.start(BASELINE), *(study.start({}) for _ in range(5))]
    study.report(names[0], 0.5, 0.5, 0.5)
    end(names[0])
    assert study.report(names[1], 0.9, 0.9, 0.9)[-1] == GO_ON
    assert study.report(names[2], 0.95, 0.95, 0.1)[-1] == GO_ON, "it is the worst, but it ends here as the first one"
    study.report(names[1], 0.9)
    end(names[1])
    assert study.report(names[3], 0.96, 0.96, 0.1)[-1] == STOP, "they end after different epochs"
