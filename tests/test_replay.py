"""Studies replayed against recorded curves: the order of events, what it costs, and what is refused."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest
import tables
from studies import DEFAULT_SPACE, DEFAULTS, metadata, metrics

from search.algorithms.samplers import build_sampler
from search.algorithms.schedulers import build_scheduler
from search.algorithms.search_algorithm import SearchAlgorithm
from search.algorithms.stopping import StudyStopper
from search.record.study_record import StudyRecord
from search.record.trial import Failure
from search.replay import main
from search.settings import SamplerName, SchedulerName, StudySettings
from search.simulation.learning_curves import GridCurves, read_csv, read_grid
from search.simulation.simulator import incumbents, replay_grid, replay_trials, seconds_of
from search.simulation.study_curves import StudyTrial, read_study
from search.space.search_space import starting_points
from training.config import PROJECT
from training.metrics import EpochMetrics

REFERENCE = PROJECT / "results" / "fashion-mnist-reference"


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tables.write(tmp_path_factory.mktemp("table"), tables.rows())


@pytest.fixture(scope="module")
def curves(file: Path) -> GridCurves:
    return read_grid(file, read_csv(file))


def settings(**options: Any) -> StudySettings:
    return StudySettings(epochs=tables.EPOCHS, **options)


def given_trial(number: int, seconds: float, *accuracies: float, failure: Failure | None = None) -> StudyTrial:
    steps = [metrics(epoch, accuracy) for epoch, accuracy in enumerate(accuracies, start=1)]
    timed = [EpochMetrics(**asdict(step) | {"seconds": seconds}) for step in steps]
    return StudyTrial(number, "completed", is_baseline=False, curve=[*timed, *([failure] if failure else [])])


def test_order_of_events_and_the_clock_by_hand() -> None:
    trials = [given_trial(0, 3, 0.5, 0.6), given_trial(1, 2, 0.4, 0.4), given_trial(2, 4, 0.7)]
    reports = list(replay_trials(trials, StudySettings(scheduler="none", epochs=2), workers=2))
    assert [(report.trial.number, report.clock, report.seconds_used, report.ended) for report in reports] == [
        (1, 2, 4, False),
        (0, 3, 6, False),
        (1, 4, 8, True),
        (0, 6, 12, True),
        (2, 8, 14, True),  # it began when trial 1 ended, and after trial 0 one worker was idle
    ]


def test_what_ended_first_counts_when_a_later_trial_is_judged() -> None:
    slow_and_good, fast_and_bad = given_trial(0, 5, 0.9, 0.9), given_trial(1, 1, 0.1, 0.1)
    one_worker, two_workers = (
        [
            len(report.trial.epochs)
            for report in replay_trials([slow_and_good, fast_and_bad], StudySettings(epochs=2), n)
        ]
        for n in (1, 2)
    )
    assert one_worker == [1, 2, 1]
    assert two_workers == [1, 2, 1, 2]  # nobody had come before it


def test_failed_trial_takes_its_time_and_what_it_measured_does_not_stand() -> None:
    trials = [given_trial(0, 1, 0.9, failure=Failure("diverged", "nan", seconds=5)), given_trial(1, 1, 0.5)]
    study = StudySettings(scheduler="none", epochs=3)
    reports = list(replay_trials(trials, study, workers=1))
    assert [(report.clock, report.trial.status) for report in reports] == [
        (1, "diverged"),
        (6, "diverged"),
        (7, "stopped_early"),  # its curve ends there
    ]
    found = incumbents(replay_trials(trials, study, workers=1), study)
    assert [(ended, best.value, best.epochs_run) for ended, best in found.items()] == [(2, 0.5, 2)]


def test_without_a_scheduler_every_epoch_is_run_and_the_cost_adds_up(curves: GridCurves) -> None:
    reports = list(replay_grid(curves, settings(scheduler="none", sampler="random"), DEFAULT_SPACE, workers=2))
    assert len(reports) == 20 * tables.EPOCHS
    assert reports[-1].seconds_used == pytest.approx(sum(seconds_of(report.step) for report in reports))
    clocks = [report.clock for report in reports]
    assert clocks == sorted(clocks)
    assert reports[-1].seconds_used / 2 <= clocks[-1] <= reports[-1].seconds_used / 2 + 2 * tables.EPOCHS


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
def test_same_seed_same_replay_and_another_one_another(curves: GridCurves, sampler: SamplerName) -> None:
    def proposals(seed: int) -> list[dict[str, float | int | str]]:
        study = settings(sampler=sampler, seed=seed, num_samples=7)
        reports = replay_grid(curves, study, DEFAULT_SPACE, workers=2)
        points = {report.trial.number: report.trial.hyperparameters for report in reports}
        return [point for _, point in sorted(points.items())]

    first = proposals(0)
    assert first == proposals(0)
    assert first[:3] == starting_points(DEFAULT_SPACE, DEFAULTS) == proposals(1)[:3]
    assert first[3:] != proposals(1)[3:]
    assert len({tuple(point.values()) for point in first}) == 7


@pytest.mark.parametrize("scheduler", ["none", "asha", "median", "hyperband"])
def test_planted_optimum_is_found(curves: GridCurves, scheduler: SchedulerName) -> None:
    study = settings(scheduler=scheduler, num_samples=60)
    found = incumbents(replay_grid(curves, study, DEFAULT_SPACE, workers=2), study)[60]
    best = found.trial.hyperparameters
    assert (best["optimizer"], found.epoch) == ("adam", tables.EPOCHS)
    assert curves.best_truth("val_accuracy") - curves.truth(best, found.epoch, "val_accuracy") < 0.05
    assert (found.epochs_run == 60 * tables.EPOCHS) == (scheduler == "none")


def test_gp_tries_what_lies_between_values_that_are_equally_good(curves: GridCurves) -> None:
    """Batch sizes 32 and 512 do not differ; the best one lies between them, and is better by 5 points."""
    for seed in range(4):
        study = settings(sampler="gp", scheduler="none", num_samples=20, seed=seed)
        found = incumbents(replay_grid(curves, study, DEFAULT_SPACE, workers=2), study)[20]
        truth = curves.truth(found.trial.hyperparameters, found.epoch, "val_accuracy")
        assert curves.best_truth("val_accuracy") - truth < 0.02


def test_replay_proposes_what_a_real_study_with_one_worker_does(curves: GridCurves, tmp_path: Path) -> None:
    study = settings(num_samples=12, seed=5)
    record = StudyRecord.create(tmp_path, metadata(epochs=tables.EPOCHS))
    record.enqueue_starting_points(study.num_samples)
    sampler = build_sampler(study.sampler, study.seed, 0, study.epochs, record.epoch_seconds)
    search = SearchAlgorithm(record, sampler, seed=5, num_ended=12, stopper=StudyStopper())
    scheduler = build_scheduler(study, record)
    while isinstance(search.suggest(trial_id := f"ray{len(record.trials)}"), dict):
        trial = record.running(trial_id)
        for step in curves.curve(trial.hyperparameters, trial.seed):
            assert isinstance(step, EpochMetrics)
            result = {"epoch": step.epoch, "objective": step.val_accuracy}
            decision = scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial_id), result)
            record.add_epoch(trial_id, step)
            if decision == "STOP":
                break
        record.finish(trial_id)
    reports = list(replay_grid(curves, study, DEFAULT_SPACE, workers=1))
    replayed = {report.trial.number: report.trial for report in reports}
    assert [(trial.hyperparameters, trial.seed, trial.status, trial.epochs) for trial in record.trials] == [
        (trial.hyperparameters, trial.seed, trial.status, trial.epochs) for trial in replayed.values()
    ]


def test_between_two_learning_rates_curves_are_linear_in_the_logarithm(curves: GridCurves) -> None:
    def last_accuracy(rate: float) -> float:
        return curves.truth(
            {"optimizer": "adam", "batch_size": 64, "learning_rate": rate}, tables.EPOCHS, "val_accuracy"
        )

    assert last_accuracy(10**-2.75) == pytest.approx(0.75 * last_accuracy(1e-3) + 0.25 * last_accuracy(1e-2))
    assert curves.best_truth("val_accuracy") == pytest.approx(tables.accuracy(**tables.BEST, epoch=tables.EPOCHS))


def test_each_trial_takes_one_of_the_seeds(tmp_path: Path) -> None:
    table = tables.rows()
    table["val_accuracy"] = table["seed"] / 10
    file = tables.write(tmp_path, table)
    seen = read_grid(file, read_csv(file))
    point: dict[str, float | int | str] = {"optimizer": "sgd", "batch_size": 64, "learning_rate": 2e-3}
    first_epochs = [seen.curve(point, seed)[0] for seed in range(300)]
    times = Counter(round(10 * (step.val_accuracy or 0)) for step in first_epochs if isinstance(step, EpochMetrics))
    assert times.keys() == {0, 1, 2}
    assert min(times.values()) > 70
    assert seen.truth(point, 1, "val_accuracy") == pytest.approx(0.1)


def test_runs_that_diverged_end_as_failures_and_are_worth_nothing_after(tmp_path: Path) -> None:
    table = tables.rows()
    high = table["learning_rate"] == 1e-1
    diverged = high & ((table["epoch"] > 2) | (table["batch_size"] == 512))
    file = tables.write(tmp_path, table[~diverged], runs=3 * 3 * 5 * 4)
    seen = read_grid(file, read_csv(file))
    point: dict[str, float | int | str] = {"optimizer": "sgd", "batch_size": 64, "learning_rate": 1e-1}
    *measured, end = seen.curve(point, 0)
    assert [step.seconds for step in measured] == [2, 2]
    assert isinstance(end, Failure)
    assert seen.truth(point, 3, "val_accuracy") == 0
    assert seen.truth(point, 3, "val_loss") == float("inf")
    (end,) = seen.curve(point | {"batch_size": 512}, 0)
    assert isinstance(end, Failure)
    found = incumbents(replay_grid(seen, settings(num_samples=10), DEFAULT_SPACE, workers=2), settings())
    assert found[10].value > 0.5


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command in this process; gives its exit status, and what it says on stdout or else on stderr."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["replay.py", *words])
        try:
            status = main()
        except SystemExit as end:
            status = int(end.code or 0)
        told = capsys.readouterr()
        return status, told.out or told.err

    return run


Replay = Callable[..., tuple[int, str]]


def test_command_tells_what_studies_find_on_one_screen(replay: Replay, file: Path) -> None:
    status, told = replay(str(file), "--seeds", "3", "--num-samples", "7", "--sampler", "random", "--scheduler", "none")
    assert status == 0, told
    assert "3 replayed studies, each with 7 trials of 4 epochs: sampler random, no scheduler, 2 workers" in told
    assert "  epochs                28   28 to 28   100% of the same trials in full" in told
    assert [line.split()[0] for line in told.splitlines()[-2:]] == ["5", "7"]
    assert len(told.splitlines()) <= 24


def test_command_tells_what_a_finished_study_could_have_saved(replay: Replay) -> None:
    status, told = replay(str(REFERENCE / "epochs.csv"), "--seeds", "3")
    assert status == 0, told
    trials = pd.read_csv(REFERENCE / "trials.csv")
    best = trials.iloc[0]
    found = f"trial {best['trial_number']}: val_accuracy {best['val_accuracy']:.4f} in epoch {best['best_epoch']}"
    assert f"The best is {found}" in told
    assert f"{(trials['status'] == 'stopped_early').sum()} trials did not run in full" in told
    # the study was run with just this scheduler and two workers
    assert "saves 0% of the epochs and 0% of the seconds; the best value is the same" in told
    assert len(told.splitlines()) <= 24


def test_own_trials_that_ran_in_full_show_what_a_scheduler_saves() -> None:
    trials = [given_trial(number, 1, *[accuracy] * 9) for number, accuracy in enumerate((0.5, 0.9, 0.3, 0.2))]
    study = StudySettings(epochs=9)
    found = incumbents(replay_trials(trials, study, workers=1), study)
    assert (found[4].value, found[4].epochs_run) == (0.9, 20)


def damaged(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], Path]:
    return lambda folder: tables.write(folder, change(tables.rows()), runs=180)


def cut_short(folder: Path) -> Path:
    file = tables.write(folder, tables.rows())
    file.write_bytes(file.read_bytes()[:-100])
    return file


def another(folder: Path) -> Path:
    file = tables.write(folder, tables.rows())
    file.write_bytes(tables.write(folder, tables.rows(seeds=2)).read_bytes())
    tables.write(folder, tables.rows()).write_bytes(file.read_bytes() + b" ")
    return file


def alone(folder: Path) -> Path:
    file = tables.write(folder, tables.rows())
    (folder / "table.json").unlink()
    return file


BAD_TABLES = [
    (lambda folder: folder / "nothing.csv.gz", "there is no file"),
    (lambda folder: folder, "there is no file"),
    (cut_short, "cannot be read as a table"),
    (alone, "table.json, which belongs to the table, cannot be read"),
    (lambda folder: tables.write(folder, tables.rows(), sha256="0"), "its SHA-256 differs"),
    (damaged(lambda table: table[table["learning_rate"] > 2e-4]), "is incomplete"),
    (damaged(lambda table: table.assign(val_accuracy="good")), "is not a number >= 0"),
    (damaged(lambda table: table.assign(seconds=-1.0)), "is not a number >= 0"),
    (damaged(lambda table: table.assign(epoch=table["epoch"] + 1)), "is damaged: epoch 5 of 4"),
]


@pytest.mark.parametrize(("make", "sentence"), BAD_TABLES)
def test_bad_table_is_refused(make: Callable[[Path], Path], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared below
        read_grid(file := make(tmp_path), read_csv(file))
    assert sentence in str(refusal.value)


def copied(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame] | None = None, name: str = "") -> Path:
    """The CSV files of the reference study, one of them changed."""
    for of_study in ("epochs.csv", "trials.csv"):
        table = pd.read_csv(REFERENCE / of_study)
        (change(table) if change and name == of_study else table).to_csv(folder / of_study, index=False)
    return folder / "epochs.csv"


BAD_STUDIES = [
    ("epochs.csv", lambda epochs: epochs.drop(index=1), "their trials and epochs differ"),
    ("trials.csv", lambda trials: trials.drop(index=1), "their trials and epochs differ"),
    ("trials.csv", lambda trials: trials.drop(columns="status"), "is not the trials.csv of a study"),
    ("trials.csv", lambda trials: trials.assign(status="happy"), "no trial has status happy"),
    ("trials.csv", lambda trials: trials.assign(trial_number=2), "their trials and epochs differ"),
    ("epochs.csv", lambda epochs: epochs.assign(val_loss=-1.0), "is not a number >= 0"),
]


@pytest.mark.parametrize(("name", "change", "sentence"), BAD_STUDIES)
def test_bad_study_is_refused(
    name: str, change: Callable[[pd.DataFrame], pd.DataFrame], sentence: str, tmp_path: Path
) -> None:
    file = copied(tmp_path, change, name)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared below
        read_study(file, read_csv(file))
    assert sentence in str(refusal.value)


def test_study_without_its_trials_is_refused(tmp_path: Path) -> None:
    file = copied(tmp_path)
    (tmp_path / "trials.csv").unlink()
    with pytest.raises(ValueError, match=r"there is no file .*trials.csv"):
        read_study(file, read_csv(file))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{foreign}"], "is neither a table of learning curves nor the epochs.csv of a study: its columns are a, b"),
        (["{table}", "--workers", "0"], "workers must be >= 1, got 0"),
        (["{table}", "--num-samples", "0"], "num_samples must be >= 1, got 0"),
        (["{table}", "--grace-period", "5"], "grace_period must be at most epochs, 4, got 5"),
        (["{table}", "--metric", "test_accuracy"], "metric test_accuracy would choose by the test images"),
        (["{study}", "--sampler", "gp"], "the recorded trials of a study are replayed: leave out --sampler"),
    ],
)
def test_mistake_is_one_sentence_and_status_2(
    words: list[str], sentence: str, replay: Replay, file: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "notes.csv"
    foreign.write_text("a,b\n1,2\n")
    places = {"foreign": foreign, "table": file, "study": REFERENCE / "epochs.csv"}
    status, told = replay(*(word.format(**places) for word in words))
    assert status == 2
    assert told.startswith("error: ")
    assert sentence in told
    assert told.count("\n") == 1


def test_batch_size_between_those_of_the_table_is_refused(curves: GridCurves) -> None:
    with pytest.raises(ValueError, match="the table has no curves of adam with batch size 48, only of sgd 32, sgd 64"):
        curves.curve({"optimizer": "adam", "batch_size": 48, "learning_rate": 1e-3}, 0)
    with pytest.raises(ValueError, match=r"learning rates go from 0.0001 to 0.1, and 1.0 was proposed"):
        curves.curve({"optimizer": "adam", "batch_size": 64, "learning_rate": 1.0}, 0)
