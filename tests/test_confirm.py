"""Confirming: the statistics by themselves, and whole confirmations on digits."""

import json
import math
import re
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import faulty
import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from scipy import stats
from serial_ray import CompletedRun, StartedRun, run_command
from studies import NUMBERS, HandDrivenStudy, metadata, metrics, search

from search import confirm as command
from search.algorithms.search_algorithm import SearchAlgorithm
from search.engine import tuner
from search.engine.study import Repetition
from search.engine.study import _enqueue_repetition as enqueue_repetition
from search.outputs.confirmation_text import describe_result
from search.record.configuration import Configuration, difference, measure, rank
from search.record.confirmation import Confirmation, Final, Plan
from search.record.estimate import accuracy_estimate, best_mean_epoch, t_interval
from search.record.ranking import best_configurations
from search.record.study_record import StudyRecord
from search.record.trial import Failure, TrialRecord
from search.retraining import confirm_study
from search.retraining.confirm_study import fresh_seeds
from search.retraining.settings import ConfirmSettings
from search.space.distributions import HyperparameterValue
from training.config import PROJECT, DataConfig, TrialConfig
from training.images.image_data import ImageData, load_data
from training.loop import Training, train
from training.metrics import EpochMetrics, accuracy_interval
from training.model.model_folder import load_model

MEASURED: list[dict[str, Any]] = [
    {"objective": one.objective, "task": one.task} for one in (metadata("val_accuracy"), metadata("val_loss"))
]
ACCURACY, LOSS = MEASURED
POINT: dict[str, HyperparameterValue] = {"learning_rate": 1e-3, "batch_size": 64, "optimizer": "adam"}


def curve(*accuracies: float) -> list[EpochMetrics]:
    return [metrics(epoch, accuracy) for epoch, accuracy in enumerate(accuracies, start=1)]


def configuration(trial: int, *accuracies: float, failed: int = 0, search_value: float = 0.9) -> Configuration:
    """One that was trained from seeds 0, 1, ... for one epoch."""
    trainings: dict[int, list[EpochMetrics] | None] = {seed: curve(value) for seed, value in enumerate(accuracies)}
    trainings |= {1000 + seed: None for seed in range(failed)}
    return measure(trial, POINT, search_value, trainings, **ACCURACY)


def order(configurations: list[Configuration]) -> list[int]:
    """Numbers of the trials, that of the winner first."""
    return [one.trial for one in rank(configurations)]


def test_interval_is_that_of_students_t() -> None:
    values = [0.9, 0.92, 0.91, 0.95]
    estimate = t_interval(values)
    low, high = stats.t.interval(0.95, df=3, loc=np.mean(values), scale=stats.sem(values))
    assert [estimate.low, estimate.high] == pytest.approx([low, high])
    assert estimate.deviation == pytest.approx(np.std(values, ddof=1))


def test_interval_holds_the_true_mean_19_times_of_20() -> None:
    chance = np.random.default_rng(0)
    estimates = [t_interval(chance.normal(3.0, 2.0, 5).tolist()) for _ in range(4000)]
    assert sum(one.low <= 3 <= one.high for one in estimates) / 4000 == pytest.approx(0.95, abs=0.011)


@pytest.mark.parametrize(("seeds", "deviations"), [(2, (1, 1, 1)), (5, (1, 1, 1)), (5, (0.5, 1, 2))])
def test_interval_of_the_winner_holds_its_true_mean_too(seeds: int, deviations: tuple[float, ...]) -> None:
    """Though it was chosen by its interval; of the intervals by its own deviation alone, clearly fewer do."""
    chance, held, held_by_own = np.random.default_rng(0), 0, 0
    for _ in range(1500):
        means = chance.normal(10.0, 0.5, 3).tolist()
        drawn = [chance.normal(mean, sd, seeds).tolist() for mean, sd in zip(means, deviations, strict=True)]
        losses = [
            measure(trial, POINT, 9.0, {seed: losses_of(value) for seed, value in enumerate(values)}, **LOSS)
            for trial, values in enumerate(drawn)
        ]
        winner, *_ = ranked = rank(losses)
        held += winner.metric.low <= means[winner.trial] <= winner.metric.high
        own = min(ranked, key=lambda one: t_interval(one.values).high)
        held_by_own += t_interval(own.values).low <= means[own.trial] <= t_interval(own.values).high
    assert held / 1500 >= 0.945
    assert held_by_own < held


def test_hopeless_configuration_takes_no_certainty_from_the_others() -> None:
    seeds = (0.95, 0.96, 0.955)
    alone, _ = rank([configuration(1, *seeds), configuration(2, *seeds)])
    beside, *_ = rank([configuration(1, *seeds), configuration(2, *seeds), configuration(3, 0.1, 0.3, 0.2)])
    assert alone.metric == beside.metric


def test_seeds_that_agree_by_luck_are_not_taken_at_their_word() -> None:
    equal, *_ = rank([configuration(1, 0.95, 0.95), configuration(2, 0.93, 0.95), configuration(3, 0.90, 0.93)])
    assert (equal.trial, equal.own_deviation) == (1, 0.0)
    assert equal.metric.deviation == pytest.approx(0.02 / math.sqrt(2))


def test_interval_holds_the_true_mean_even_where_seeds_differ_by_no_more_than_an_image() -> None:
    """Of 240 images; the seeds often agree exactly, and a standard deviation of 0 would claim certainty."""
    chance = np.random.default_rng(0)
    for seeds, deviation in ((2, 0.1), (2, 4.0), (3, 0.3), (5, 0.1), (5, 1.0)):
        latent = 228 + chance.uniform(-0.5, 0.5, 1000)
        right = np.round(latent + deviation * chance.normal(size=(2000, 1000))).clip(0, 240)
        true, drawn = right.mean(0) / 240, right[:seeds].T / 240
        estimates = [accuracy_estimate(values.tolist(), 240) for values in drawn]
        held = [one.low <= mean <= one.high for one, mean in zip(estimates, true, strict=True)]
        assert np.mean(held) >= 0.94


def test_seeds_that_agree_exactly_claim_no_certainty() -> None:
    alike = replace(configuration(1, 0.95, 0.95), validation_images=240)
    assert alike.metric.high - alike.metric.low == pytest.approx(2 * 6.353 / 240, rel=1e-3)
    assert configuration(1, 1.0, 1.0).metric.has_interval is False  # a record that holds no number of images
    trainings = {0: losses_of(0.25), 1: losses_of(0.25)}
    losses = [measure(trial, POINT, 0.3, trainings, **LOSS) for trial in (1, 2)]
    final = Final(
        trial=1, epochs=1, seed=9, training_images=9, test_images=9, test_accuracy=0.5, test_loss=1, seconds=1
    )
    expected, *_ = describe_result(Confirmation(configurations=losses, confirmed=losses[0], final=final))
    assert "(all seeds gave the same value, so the influence of the seed could not be measured)" in expected
    worse = replace(losses[1], values=[0.5, 0.5])
    told = difference(losses[0], worse)
    assert told is not None
    assert not told.is_clear
    assert told.sentence.startswith("Trial 1 was better than trial 2 by 0.25 nats from each of 2 seeds, so the infl")


def losses_of(value: float) -> list[EpochMetrics]:
    return [replace(metrics(1, 0.5), val_loss=value)]


@pytest.mark.parametrize(("right", "images"), [(0, 10), (7, 10), (10, 10), (8892, 10_000)])
def test_interval_of_the_test_accuracy_is_wilsons(right: int, images: int) -> None:
    known = stats.binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert [*accuracy_interval(right / images, images)] == pytest.approx([known.low, known.high], abs=1e-9)


def test_epoch_is_chosen_by_the_mean_and_not_by_each_seed() -> None:
    assert best_mean_epoch([[0.5, 0.9, 0.8], [0.5, 0.6, 0.8]]) == 3
    assert best_mean_epoch([[0.5, 0.9, 0.8], [0.5, 0.6, 0.8]], lowest=True) == 1
    assert best_mean_epoch([[0.5, 0.5]]) == 1
    one = measure(4, POINT, 0.9, {7: curve(0.5, 0.9, 0.8), 8: curve(0.5, 0.6, 0.8)}, **ACCURACY)
    assert (one.epochs, one.seeds, one.values) == (3, [7, 8], [0.8, 0.8])
    assert one.test_values["test_accuracy"] == [pytest.approx(0.79)] * 2
    assert one.optimism == pytest.approx(0.1)


def test_loss_is_better_where_it_is_lower() -> None:
    one = measure(0, POINT, 0.3, {0: curve(0.7, 0.6), 1: curve(0.8, 0.6)}, **LOSS)
    other = measure(1, POINT, 0.5, {0: curve(0.5, 0.6), 1: curve(0.5, 0.6)}, **LOSS)
    assert one.epochs == 1
    assert one.metric.mean == pytest.approx(0.45)
    assert one.optimism == pytest.approx(0.15)  # the search said 0.3, which is better than 0.45
    told = difference(one, other)
    assert told is not None
    assert told.unit == "nats"
    assert told.estimate.mean == pytest.approx(0.15)
    wide, narrow = (replace(one, trial=n, values=values) for n, values in enumerate(([0.30, 0.60], [0.46, 0.47])))
    assert order([wide, narrow]) == [1, 0]


def test_winner_has_the_best_lower_end_and_not_the_best_mean() -> None:
    erratic, steady = configuration(1, 0.99, 0.85, 0.95), configuration(2, 0.91, 0.92, 0.915)
    assert erratic.metric.mean > steady.metric.mean
    assert order([erratic, steady]) == [2, 1]


def test_configuration_that_fails_from_one_seed_comes_after_those_that_never_do() -> None:
    lucky, sound = configuration(1, 0.99, 0.99, failed=1), configuration(2, 0.5, 0.6, 0.5)
    hopeless = configuration(3, 0.9, failed=2)
    assert order([hopeless, lucky, sound]) == [2, 1, 3]
    assert not hopeless.is_measured


def test_first_and_second_are_compared_seed_by_seed() -> None:
    """The difference is far smaller than what seeds do, and yet clear, because all seeds agree on it."""
    noise = (0.80, 0.90, 0.85, 0.95)
    better = configuration(1, *(value + 0.01 + 0.001 * place for place, value in enumerate(noise)))
    other = configuration(2, *noise)
    told = difference(better, other)
    assert told is not None
    assert told.is_clear
    assert told.sentence.startswith("Trial 1 is better than trial 2 by 1.15 points (95 % interval +0.94 to +1.36")
    equal = difference(configuration(1, 0.9, 0.8), configuration(2, 0.8, 0.9))
    assert equal is not None
    assert not equal.is_clear
    assert equal.sentence.startswith("2 seeds show no difference between trial 1 and trial 2 ")
    assert difference(configuration(1, 0.9, 0.8), configuration(2, 0.9, failed=1)) is None


def test_accuracies_are_not_expected_beyond_1() -> None:
    assert configuration(1, 1.0, 0.9).metric.high == 1.0


def test_best_configurations_are_the_best_whether_or_not_they_ran_in_full(tmp_path: Path) -> None:
    study = HandDrivenStudy(tmp_path)
    study.run_one_of_each()  # trial 0 0.6, 1 0.9, 2 stopped with 0.4, 6 cut off with 0.55
    assert [trial.number for trial in best_configurations(study.record.trials, 3)] == [1, 0, 6]
    assert [trial.number for trial in best_configurations(study.record.trials, 9)] == [1, 0, 6, 2]
    study.record.trials[0].hyperparameters = dict(study.record.trials[1].hyperparameters)
    assert [trial.number for trial in best_configurations(study.record.trials, 2)] == [1, 6]


def test_seeds_are_those_of_no_trial(tmp_path: Path) -> None:
    study = HandDrivenStudy(tmp_path)
    study.run_one_of_each()
    assert fresh_seeds(study.record, 3) == [7, 8, 9]
    study.record.trials[0].known_seed = 2**32 - 1
    assert fresh_seeds(study.record, 2) == [0, 7]


def test_same_configuration_is_proposed_from_every_seed(tmp_path: Path) -> None:
    """In a space of one point, too, and without a question to the sampler."""
    plan = Plan(study="a", top=1, trials=[3], values=[0.9], seeds=[11, 12], winner_seeds=[13, 14], final_seed=15)
    record = StudyRecord.create(tmp_path, replace(metadata(), plan=plan))
    for seed in plan.seeds:
        record.enqueue(POINT, seed)
    searcher = search(record, plan.choosing_trainings)
    searcher._num_points = 1
    proposals = [searcher.suggest("one"), searcher.suggest("two")]
    assert [proposal["seed"] for proposal in proposals if isinstance(proposal, dict)] == [11, 12]
    assert all(proposal["hyperparameters"] == POINT for proposal in proposals if isinstance(proposal, dict))
    assert searcher.suggest("three") is None
    record.close()
    again = StudyRecord.open(tmp_path)
    assert [trial.seed for trial in again.trials] == [11, 12]
    assert again.metadata.plan is not None


def begun_by_hand(folder: Path) -> tuple[StudyRecord, StudyRecord, SearchAlgorithm]:
    """A study of two configurations, and its confirmation from two seeds, of which nothing has been trained yet."""
    for name in ("study", "confirm"):
        (folder / name).mkdir()
    parent = HandDrivenStudy(folder / "study")
    parent.run_trial(0.5, 0.6, 0.6)
    parent.run_trial(0.5, 0.9, 0.9)
    plan = Plan(
        study="study", top=2, trials=[1, 0], values=[0.9, 0.6], seeds=[11, 12], winner_seeds=[13, 14], final_seed=15
    )
    record = StudyRecord.create(folder / "confirm", replace(metadata(), plan=plan))
    enqueue_repetition(record, Repetition(parent.record, plan))
    return parent.record, record, search(record, plan.choosing_trainings)


def measuring(record: StudyRecord, parent: StudyRecord) -> SearchAlgorithm:
    """What proposes the trainings that measure the winner, which has been chosen."""
    assert confirm_study._enqueue_winner(record, parent)
    assert record.metadata.plan is not None
    return search(record, record.metadata.plan.all_trainings)


def train_by_hand(searcher: SearchAlgorithm, record: StudyRecord, trial_id: str, *accuracies: float) -> TrialRecord:
    """One training that is proposed and reports these; it fails if there are none."""
    assert isinstance(searcher.suggest(trial_id), dict)
    for epoch, accuracy in enumerate(accuracies, start=1):
        record.add_epoch(trial_id, metrics(epoch, accuracy))
    if not accuracies:
        record.add_failure(trial_id, Failure("exception", "ValueError: boom"))
    return record.finish(trial_id)


def test_winner_is_measured_from_further_seeds_when_it_has_been_chosen(tmp_path: Path) -> None:
    parent, record, searcher = begun_by_hand(tmp_path)
    choosing = [(0.5, 0.70, 0.60), (0.5, 0.80, 0.70), (0.5, 0.71, 0.60)]
    trials = [train_by_hand(searcher, record, f"ray{n}", *curve) for n, curve in enumerate(choosing)]
    assert isinstance(searcher.suggest("last"), dict)
    assert searcher.suggest("early") is None
    assert not confirm_study._enqueue_winner(record, parent)  # the winner is not known yet
    for epoch, accuracy in enumerate((0.5, 0.81, 0.70), start=1):
        record.add_epoch("last", metrics(epoch, accuracy))
    record.finish("last")
    assert searcher.suggest("chosen") == "FINISHED"
    again = StudyRecord.open(tmp_path / "confirm")
    again.requeue_interrupted()  # killed meanwhile
    searcher = measuring(again, parent)
    more = [train_by_hand(searcher, again, f"more{n}", 0.9, 0.6, 0.9) for n in range(2)]
    assert [trial.seed for trial in more] == [13, 14]
    assert {tuple(trial.hyperparameters.items()) for trial in more} == {tuple(trials[1].hyperparameters.items())}
    assert searcher.suggest("over") == "FINISHED"
    winner, other = confirm_study._ranked(again, parent)
    assert (winner.trial, winner.epochs, winner.values) == (0, 2, [0.80, 0.81])
    assert (other.trial, other.values) == (1, [0.70, 0.71])
    confirmed = confirm_study._confirmed(again, winner)
    assert (confirmed.epochs, confirmed.seeds, confirmed.values) == (2, [13, 14], [0.6, 0.6])
    assert confirmed.metric.deviation == winner.usual_deviation > confirmed.own_deviation
    assert confirmed.optimism == pytest.approx(0.0)


def test_nothing_is_measured_where_nobody_won(tmp_path: Path) -> None:
    parent, record, searcher = begun_by_hand(tmp_path)
    for number in range(4):
        train_by_hand(searcher, record, f"ray{number}")
    assert searcher.suggest("over") == "FINISHED"
    assert not confirm_study._enqueue_winner(record, parent)
    assert record.metadata.winner is None


def test_winner_that_fails_from_further_seeds_is_not_confirmed(tmp_path: Path) -> None:
    parent, record, searcher = begun_by_hand(tmp_path)
    for number in range(4):
        train_by_hand(searcher, record, f"ray{number}", 0.5, 0.6, 0.7)
    searcher = measuring(record, parent)
    train_by_hand(searcher, record, "more", 0.5, 0.6, 0.7)
    train_by_hand(searcher, record, "fails")
    winner, *_ = confirm_study._ranked(record, parent)
    confirmed = confirm_study._confirmed(record, winner)
    assert winner.is_measured
    assert (confirmed.is_measured, confirmed.failed) == (False, 1)


def run(script: str, *options: str) -> CompletedRun:
    return run_command(f"search/{script}", "--no-dashboard", *options)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def finished(results: Path) -> CompletedRun:
    """A study of four trials that was confirmed at once."""
    options = ["--dataset", "digits", "--num-samples", "4", "--epochs", "2", "--scheduler", "none", "--name", "study"]
    return run("run.py", *options, "--results-dir", str(results), "--confirm", "2x2")


@pytest.fixture(scope="module")
def all_digits() -> ImageData:
    """The bundled digits without a validation split."""
    return load_data(DataConfig(dataset="digits", val_fraction=0.0), split_seed=0)[0]


def test_study_is_confirmed_at_once(finished: CompletedRun, results: Path) -> None:
    assert finished.status == 0, finished.stdout + finished.stderr
    assert finished.stderr == ""
    assert "Confirming study study" in finished.stdout
    table = pd.read_csv(results / "study" / "confirm.csv")
    assert table.columns.tolist() == [
        *("rank", "trial_number", "learning_rate", "batch_size", "optimizer", "epochs", "seeds", "failed", "metric"),
        *("mean", "standard_deviation", "low", "high", "search_value", "optimism"),
        *("test_accuracy_mean", "test_accuracy_low", "test_accuracy_high"),
        *("test_loss_mean", "test_loss_low", "test_loss_high"),
        *("confirmed_seeds", "confirmed_failed", "confirmed_mean", "confirmed_standard_deviation"),
        *("confirmed_low", "confirmed_high", "confirmed_optimism"),
        *("final_test_accuracy", "final_test_accuracy_low", "final_test_accuracy_high"),
    ]
    assert table["rank"].tolist() == [1, 2]
    assert table["low"][0] >= table["low"][1]
    trials = pd.read_csv(results / "study" / "trials.csv").set_index("trial_number")
    assert set(table["trial_number"]) == set(trials.index[:2])
    assert table["search_value"].tolist() == [trials["val_accuracy"][number] for number in table["trial_number"]]
    assert (results / "latest").resolve() == results / "study"
    final = table["final_test_accuracy"]
    printed = " ".join(finished.stdout.split())  # without the ends of its lines
    assert f"all 1,438 training images: test_accuracy {final[0]:.4f} (95 % interval" in printed
    assert math.isnan(final[1])
    mean, low, high = (table[f"confirmed_{name}"][0] for name in ("mean", "low", "high"))
    interval = f"(95 % interval {low:.4f} to {high:.4f})"
    assert f"Expect val_accuracy {mean:.4f} from this configuration {interval}." in printed
    assert math.isnan(table["confirmed_mean"][1])


def test_table_fits_the_terminal(finished: object, results: Path) -> None:
    for columns, said in ((40, "test_accuracy, search, epochs, seeds;"), (60, "test_accuracy, search;"), (80, "")):
        shown = run_command("search/report.py", str(results / "study"), COLUMNS=str(columns)).stdout
        lines = shown.partition("How it was chosen:")[2].partition("Predict:")[0].splitlines()
        assert max(map(len, lines)) <= columns
        assert f"The lines are too short for {said}" in " ".join(shown.split()) if said else "too short" not in shown


def test_configurations_have_the_same_fresh_seeds(finished: object, results: Path) -> None:
    trainings = pd.read_csv(results / "study" / "confirm" / "trials.csv")
    assert sorted(trainings["seed"]) == [4, 4, 5, 5, 6, 7]
    assert trainings.groupby("seed")["learning_rate"].nunique().size == 4
    assert (trainings["epochs"] == 2).all()
    study = json.loads((results / "study" / "study.json").read_text())
    assert [one["seeds"] for one in study["confirmation"]["configurations"]] == [[4, 5], [4, 5]]
    assert study["confirmation"]["confirmed"]["seeds"] == [6, 7]


def test_means_are_those_of_trainings_done_alone(finished: object, results: Path, digits: ImageData) -> None:
    record = StudyRecord.open(results / "study")
    confirmation = record.metadata.confirmation
    assert confirmation is not None
    winner, confirmed = confirmation.winner, confirmation.confirmed
    config = record.metadata.trial_config(record.trials[winner.trial])
    trainings = [list(train(replace(config, seed=seed), digits)) for seed in winner.seeds]
    means = np.mean([[record.objective.value(metrics) for metrics in training] for training in trainings], axis=0)
    assert winner.epochs == int(means.argmax()) + 1
    assert winner.metric.mean == pytest.approx(means.max())
    assert winner.test_values["test_accuracy"] == [training[winner.epochs - 1].test_accuracy for training in trainings]
    further = [list(train(replace(config, seed=seed), digits)) for seed in confirmed.seeds]
    assert (confirmed.trial, confirmed.epochs) == (winner.trial, winner.epochs)
    assert confirmed.values == [record.objective.value(training[winner.epochs - 1]) for training in further]
    assert confirmed.metric.deviation == max(confirmed.own_deviation, winner.usual_deviation)
    assert confirmed.validation_images == record.metadata.images.validation_images


def test_result_is_of_one_training_on_all_images(finished: object, results: Path, all_digits: ImageData) -> None:
    record = StudyRecord.open(results / "study")
    confirmation = record.metadata.confirmation
    assert confirmation is not None
    final = confirmation.final
    assert final is not None
    assert (final.training_images, final.test_images, final.seed) == (1438, 359, 8)
    config = replace(record.metadata.trial_config(record.trials[final.trial]), seed=final.seed)
    alone = list(train(config, all_digits))[final.epochs - 1]
    assert final.test_accuracy == alone.test_accuracy
    assert final.test_loss == pytest.approx(alone.test_loss)
    seen = load_model(results / "study" / "model").predict(all_digits.test.images).argmax(1)
    assert (seen == all_digits.test.labels).double().mean().item() == pytest.approx(final.test_accuracy)


def test_report_shows_it(finished: object, results: Path) -> None:
    page = (results / "study" / "report.html").read_text()
    assert "<h2>Confirmation</h2>" in page
    table = pd.read_csv(results / "study" / "confirm.csv")
    assert f"<td>{table['low'][0]:.4f} to {table['high'][0]:.4f}</td>" in page
    confirmed = f"<dt>expected val_accuracy</dt><dd>{table['confirmed_mean'][0]:.4f}</dd>"
    assert confirmed in page
    assert page.count("<dt>best configuration</dt>") == 1
    assert "<dt>val_accuracy</dt>" not in page  # that of the search is history


def test_same_command_tells_the_result_again_and_trains_nothing(finished: CompletedRun, results: Path) -> None:
    kept = {
        file: file.read_bytes()
        for file in (results / "study" / "confirm" / "study.db", results / "study" / "confirm.csv")
    }
    again = run("confirm.py", "study", "--results-dir", str(results), "--top", "2", "--seeds", "2")
    assert again.status == 0, again.stderr
    assert "Ended trials" not in again.stdout
    told = finished.stdout[finished.stdout.index("Confirmed: ") :]
    assert again.stdout.strip() == told.strip()
    assert all(file.read_bytes() == content for file, content in kept.items())


def test_other_size_and_other_trials_are_refused(
    finished: object, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is confirmed with --top 2 --seeds 2" in refused(monkeypatch, capsys, "study", results)
    confirm_itself = refused(monkeypatch, capsys, str(results / "study" / "confirm"), results)
    assert "is the confirmation of study study: name study instead" in confirm_itself
    resumed = run("run.py", "--resume", str(results / "study" / "confirm"))
    assert resumed.status == 2
    assert re.search(r"to continue it: python search/confirm.py \S*/study\n", resumed.stderr)


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], study: str, results: Path, *words: str
) -> str:
    """The one sentence with which a command is refused."""
    line = ["search/confirm.py", study, "--results-dir", str(results), "--no-dashboard", *words]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as exit_:
        command.main()
    output = capsys.readouterr()
    assert exit_.value.code == 2
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


@pytest.fixture
def by_hand(tmp_path: Path) -> HandDrivenStudy:
    (tmp_path / "hand").mkdir()
    return HandDrivenStudy(tmp_path / "hand")


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--top", "0"], "top must be >= 1, got 0"),
        (["--seeds", "1"], "seeds must be >= 2, because one number has no standard deviation, got 1"),
        (["--top", "1000", "--seeds", "1000"], "at most 10000"),
        (["--time-budget", "soon"], "time_budget must be a time like"),
    ],
)
def test_bad_sizes_are_refused_with_the_rule(
    words: list[str], rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rule in refused(monkeypatch, capsys, "missing", tmp_path, *words)


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        ("--confirm=3", "confirm must be two numbers, configurations x seeds, for example 3x5, got 3"),
        ("--confirm=1x1000000", "top x seeds must be at most 10000, got 1000000 trainings"),
        ("--confirm=0x5", "top must be >= 1, got 0"),
        ("--confirm=3x1", "seeds must be >= 2"),
        ("--confirm=3x5 --val-fraction=0", "confirm needs a metric of validation data, got test_accuracy"),
    ],
)
def test_bad_sizes_are_refused_before_a_study(option: str, rule: str, tmp_path: Path) -> None:
    study = run("run.py", *option.split(), "--results-dir", str(tmp_path))
    assert (study.status, study.stdout) == (2, "")
    assert rule in study.stderr


def test_study_with_nothing_to_confirm_is_refused(
    by_hand: HandDrivenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_hand.run_trial(failure=Failure("exception", "ValueError: boom", "Traceback"))
    sentence = refused(monkeypatch, capsys, "hand", tmp_path)
    assert "study hand has nothing to confirm: none of its trials has valid metrics" in sentence
    assert "there is no study missing" in refused(monkeypatch, capsys, "missing", tmp_path)


def test_running_study_is_refused(
    by_hand: HandDrivenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_hand.run_trial(0.5, 0.6, 0.6)
    with FileLock(tmp_path / "hand" / ".lock"):
        assert "study hand is being run by" in refused(monkeypatch, capsys, "hand", tmp_path)


def test_study_on_other_images_is_refused_and_nothing_is_made(
    by_hand: HandDrivenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_hand.run_trial(0.5, 0.6, 0.6)
    monkeypatch.setattr("search.engine.local_ray.LocalRay.begin", lambda *_: None)
    monkeypatch.setattr("search.engine.local_ray.LocalRay.wait", lambda *_: None)
    assert "study hand was run on other images than those of digits" in refused(monkeypatch, capsys, "hand", tmp_path)
    assert not (tmp_path / "hand" / "confirm").exists()


def test_study_without_validation_images_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "by-test").mkdir()
    by_test = metadata("test_accuracy", val_fraction=0.0)
    by_test = replace(by_test, dataset=replace(by_test.images, validation_images=0))
    StudyRecord.create(tmp_path / "by-test", by_test).close()
    sentence = refused(monkeypatch, capsys, "by-test", tmp_path)
    assert "study by-test was searched by test_accuracy: the test data would choose the winner" in sentence


def test_study_in_the_way_is_refused(
    by_hand: HandDrivenStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_hand.run_trial(0.5, 0.6, 0.6)
    (tmp_path / "hand" / "confirm").mkdir()
    StudyRecord.create(tmp_path / "hand" / "confirm", metadata()).close()
    assert "holds a study that is not a confirmation" in refused(monkeypatch, capsys, "hand", tmp_path)


def test_damaged_confirmation_in_a_record_is_refused(by_hand: HandDrivenStudy, tmp_path: Path) -> None:
    by_hand.run_trial(0.5, 0.6, 0.6)
    by_hand.record.study.set_user_attr("confirmation", {"configurations": [], "final": {}})
    with pytest.raises(ValueError, match="the record of study hand is damaged"):
        StudyRecord.open(tmp_path / "hand")


EPOCHS = 9


def wait_for(happened: Any) -> None:
    deadline = time.monotonic() + 90
    while not happened():
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.02)


def epochs_recorded(folder: Path) -> int:
    """Epochs in a record, as another process sees them."""
    if not (folder / "study.db").exists():
        return 0
    with closing(sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True)) as database:
        query = "SELECT count(*) FROM trial_user_attributes WHERE key LIKE 'epoch %'"
        try:
            return int(database.execute(query).fetchone()[0])
        except sqlite3.OperationalError:  # not made yet, or being written
            return 0


def final_epoch(folder: Path) -> int:
    file = folder / "final.pt"
    states = torch.load(file, weights_only=True)["states"] if file.exists() else {"progress": {"epoch": 0}}
    return int(states["progress"]["epoch"]) if "progress" in states else EPOCHS


def test_killed_confirmation_goes_on_and_repeats_nothing(
    tmp_path: Path, digits: ImageData, all_digits: ImageData
) -> None:
    """Killed while the winner is chosen, and while it is measured; stopped by Ctrl-C while it is trained at last."""
    options = ["--dataset", "digits", "--num-samples", "2", "--epochs", str(EPOCHS), "--scheduler", "none"]
    study = run("run.py", *options, "--name", "study", "--results-dir", str(tmp_path))
    assert study.status == 0, study.stderr
    words = ["study", "--results-dir", str(tmp_path), "--top", "2", "--seeds", "2", "--max-concurrent", "1"]
    line = ["search/confirm.py", "--no-dashboard", *words]
    folder = tmp_path / "study" / "confirm"
    with StartedRun(*line) as killed:
        wait_for(lambda: epochs_recorded(folder) > EPOCHS + 2)
        killed.send(signal.SIGKILL)
        assert killed.end()[0] == -signal.SIGKILL
    before = epochs_recorded(folder)
    with StartedRun(*line) as killed:
        wait_for(lambda: epochs_recorded(folder) > 4 * EPOCHS + 2)
        killed.send(signal.SIGKILL)
    with StartedRun(*line) as interrupted:
        wait_for(lambda: final_epoch(folder) > 0)
        interrupted.send(signal.SIGINT)
        status, output = interrupted.end()
    assert "4 ended trials; 2 to run, 1 of them continues after the last epoch" in output
    if status == 130:  # else it was faster than the signal
        assert output.rstrip().endswith(f"To continue: python search/confirm.py --no-dashboard {' '.join(words)}")
    assert before < epochs_recorded(folder) == 6 * EPOCHS
    done = run("confirm.py", *words)
    assert done.status == 0, done.stdout + done.stderr
    assert "Expect val_accuracy" in done.stdout
    epochs = pd.read_csv(folder / "epochs.csv")
    assert epochs.groupby("trial_number").size().tolist() == [EPOCHS] * 6
    trainings = pd.read_csv(folder / "trials.csv").set_index("trial_number")
    for number in (0, 1):
        row: Any = trainings.loc[number]
        config = TrialConfig(optimizer=row["optimizer"], epochs=EPOCHS, seed=int(row["seed"]))
        alone = pd.DataFrame([asdict(metrics) for metrics in train(config, digits)])[NUMBERS]
        recorded = epochs.loc[epochs["trial_number"] == number, NUMBERS].reset_index(drop=True)
        pd.testing.assert_frame_equal(recorded, alone, rtol=1e-12)
    record = StudyRecord.open(tmp_path / "study")
    confirmation = record.metadata.confirmation
    assert confirmation is not None
    final = confirmation.final
    assert final is not None
    training = Training(replace(record.metadata.trial_config(record.trials[final.trial]), seed=final.seed), all_digits)
    while training.epoch < final.epochs:
        list(training.train_epoch())
    assert training.measure_epoch().test_loss == pytest.approx(final.test_loss, rel=1e-12)
    assert training.measure_epoch().test_accuracy == final.test_accuracy


def test_confirmation_in_which_nothing_completes_has_no_result(
    without_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from search.engine.study import prepare_study
    from search.run import run_study
    from search.settings import StudySettings

    settings = StudySettings(dataset="digits", num_samples=2, epochs=1, results_dir=tmp_path, dashboard=False)
    study = prepare_study(settings)
    assert run_study(study) == 0
    monkeypatch.setattr(tuner, "trainable", faulty.always_raises)
    options = ConfirmSettings(study=study.record.folder.name, top=1, seeds=2, dashboard=False)
    capfd.readouterr()
    run = confirm_study.prepare_confirmation(study.record.folder, options, time.monotonic())
    status = confirm_study.confirm(run, command="the command")
    output = capfd.readouterr().out
    assert status == 1
    assert re.search(
        r"There is no result: no configuration completed its training from at least 2 seeds \(.+\)", output
    )
    assert not (study.record.folder / "confirm.csv").exists()


def test_model_that_is_not_there_is_not_named(tmp_path: Path) -> None:
    """The weights of the study that is kept are not."""
    shutil.copytree(PROJECT / "results" / "fashion-mnist-cnn", tmp_path / "cnn", ignore=lambda *_: ["model"])
    shown = run_command("search/report.py", "cnn", "--results-dir", str(tmp_path))
    assert shown.status == 0, shown.stderr
    assert "Expect val_accuracy 0.9244" in shown.stdout
    assert "Model:" not in shown.stdout
