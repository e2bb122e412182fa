"""The tasks on which ways to search are compared, their tables, and the replay of ways to search."""

import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import policy_quality
import pytest
import record_curves
from curve_tasks import CONFIGURATIONS, TASKS
from policy_replay import Policy, Study
from task_tables import TaskTable

from search.space.search_space import contains, describe

HALVES = tomllib.loads((Path(record_curves.__file__).parent / "tables" / "halves.toml").read_text())


def test_each_task_chooses_or_judges() -> None:
    assert sorted(HALVES["choose"] + HALVES["judge"]) == sorted(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_configurations_of_a_task_lie_in_its_space(name: str) -> None:
    task = TASKS[name]
    points = task.configurations()
    assert len(points) == CONFIGURATIONS + 3
    assert all(contains(task.space, point) for point in points)
    assert points == task.configurations()


@pytest.mark.parametrize("name", ["autoencoder", "regression"])
def test_training_is_measured_inside_its_first_epoch_and_gives_the_same_numbers_again(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, name, replace(TASKS[name], epochs=2))
    (training, *_) = record_curves.trainings(TASKS[name], seeds=1)
    _, rows = record_curves.record(training)
    assert [row["epoch"] for row in rows] == [0.125, 0.25, 0.5, 1, 2]
    assert [row["test"] is None for row in rows] == [True, True, True, False, False]
    again = record_curves.record(training)[1]
    assert [row["val"] for row in rows] == [row["val"] for row in again]
    monkeypatch.setattr(record_curves, "PARTS", ())
    whole = record_curves.record(training)[1]
    assert [row["val"] for row in whole] == [rows[-2]["val"], rows[-1]["val"]], "a measurement changes no number"


def test_training_with_a_schedule_is_recorded_for_fewer_epochs_too() -> None:
    task = TASKS["autoencoder"]
    with_schedule = [point["lr_schedule"] != "none" for point in task.configurations()]
    assert sum(1 for _ in record_curves.trainings(task, seeds=1)) == len(with_schedule) + 2 * sum(with_schedule)


EPOCHS = 9


@pytest.fixture
def table(tmp_path: Path) -> TaskTable:
    """A table of 60 configurations whose accuracy in each epoch is known; number 7 diverges in its second epoch."""
    task = TASKS["digits"]
    points = [*task.starting_points(), *task.configurations()[-57:]]
    rows: list[dict[str, Any]] = []
    for number in range(len(points)):
        for seed in range(2):
            for epoch in (0.125, 0.25, 0.5, *range(1, EPOCHS + 1)):
                whole = epoch >= 1
                diverged = number == 7 and epoch >= 2
                value = math.nan if diverged else (0.3 + 0.01 * number) * (1 - 0.5 ** (epoch + 1))
                row = {"configuration": number, "seed": seed, "made_for": EPOCHS, "epoch": epoch, "val": value}
                row |= {"test": value if whole else math.nan, "seconds": 0.125 if epoch < 1 else 1.0}
                rows.append(row | {"val_seconds": 0.1, "test_seconds": 0.1 if whole else math.nan})
                if diverged:
                    break
    pd.DataFrame(rows).to_csv(tmp_path / "small.csv.gz", index=False)
    facts = {"epochs": EPOCHS, "mode": "max", "starting_points": 3}
    facts |= {"space": describe(task.space), "configurations": points}
    (tmp_path / "small.json").write_text(json.dumps(facts))
    return TaskTable("small", tmp_path)


def test_only_seeds_from_which_all_configurations_were_trained_count(table: TaskTable, tmp_path: Path) -> None:
    rows = pd.read_csv(tmp_path / "small.csv.gz")
    is_last = (rows["configuration"] == len(table.points) - 1) & (rows["seed"] == 1)
    rows[~is_last].to_csv(tmp_path / "small.csv.gz", index=False)
    assert (table.seeds, TaskTable("small", tmp_path).seeds) == (2, 1)
    rows[rows["configuration"] < 10].to_csv(tmp_path / "small.csv.gz", index=False)
    with pytest.raises(ValueError, match="small: 10 of 60 configurations were recorded"):
        TaskTable("small", tmp_path)


def test_curve_costs_only_the_evaluations_that_are_asked_for(table: TaskTable) -> None:
    whole, parts = table.curve(3, 0), table.curve(3, 0, (0.25,))
    assert [step.epoch for step in whole] == list(range(1, EPOCHS + 1))
    assert [step.epoch for step in parts] == [0.25, *range(1, EPOCHS + 1)]
    assert sum(step.seconds for step in parts) == pytest.approx(sum(step.seconds for step in whole) + 0.1)
    assert whole[0].cost == pytest.approx(-0.33 * 0.75)
    assert [step.cost for step in table.curve(7, 0)][1:] == [math.inf]


def test_regret_is_what_a_shipped_training_loses_against_the_best(table: TaskTable) -> None:
    assert table.regret(59, EPOCHS) == 0
    assert table.regret(58, EPOCHS) == pytest.approx(1.0, abs=0.01)
    assert table.regret(7, EPOCHS) == 100


@pytest.mark.parametrize("sampler", ["random", "tpe", "optuna"])
@pytest.mark.parametrize("scheduler", ["none", "stop", "promote", "median", "first"])
def test_replay_stays_within_its_budget_and_ships_what_it_has_seen(
    table: TaskTable, sampler: Any, scheduler: Any
) -> None:
    study = Study(table, Policy(sampler, scheduler, samples=12), seed=0)
    shipped = list(study.run(budget=60.0))
    assert shipped
    assert all(one.seconds <= 60 for one in shipped)
    assert len({trial.configuration for trial in study.trials}) == len(study.trials) <= 12
    assert [trial.configuration for trial in study.trials[:3]] == [0, 1, 2]
    regrets = [table.regret(one.configuration, one.epoch) for one in shipped]
    assert regrets == sorted(regrets, reverse=True), "without noise, a better value is better"


def test_promotion_trains_the_best_and_lets_the_others_wait(table: TaskTable) -> None:
    study = Study(table, Policy("random", "promote", starts=False, grace=1, reduction=3, samples=27), seed=0)
    list(study.run(budget=27 * 1.2 + 9 * 3 * 1.2))
    trained = {trial.configuration: trial.seen[-1].epoch for trial in study.trials if trial.seen}
    best = sorted(trained)[-3:]
    assert all(trained[number] >= 3 for number in best)
    assert sum(epoch > 1 for epoch in trained.values()) <= 1 + len(trained) / 2


def test_first_rung_may_lie_inside_the_first_epoch(table: TaskTable) -> None:
    policy = Policy("random", "stop", starts=False, grace=0.25, reduction=2, samples=20)
    assert policy.rungs(EPOCHS) == [0.25, 0.5, 1, 2, 4, 8]
    study = Study(table, policy, seed=1)
    list(study.run(budget=1e6))
    assert any(trial.seen[-1].epoch == 0.25 for trial in study.trials)
    assert any(trial.seen[-1].epoch == EPOCHS for trial in study.trials)


@pytest.fixture
def replayed(table: TaskTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays take the small table for that of any task."""
    monkeypatch.setattr(policy_quality, "table_of", lambda _: table)


@pytest.mark.usefixtures("replayed")
def test_regret_at_a_budget_is_that_of_what_the_study_would_ship_then() -> None:
    rows = policy_quality.replay_budget(("small", "random", 0))
    regrets = [row["regret"] for row in rows if "budget" in row]
    assert len(regrets) == len(policy_quality.BUDGETS)
    assert regrets == sorted(regrets, reverse=True)
    reached = {row["goal"]: row["reached"] for row in rows if "goal" in row}
    assert reached[1.0] <= reached[0.5] <= reached[0.2]


@pytest.mark.usefixtures("replayed")
def test_study_of_so_many_trials_ends_by_itself() -> None:
    (stops,) = policy_quality.replay_samples(12, ("small", "today", 0))
    (pauses,) = policy_quality.replay_samples(12, ("small", "promote", 0))
    assert 0 < pauses["used"] < stops["used"] < 12


@pytest.mark.usefixtures("replayed")
def test_every_run_on_the_tasks_that_judge_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_quality, "JUDGED", tmp_path / "judged.csv")
    rows = [row for number in (0, 1) for row in policy_quality.replay_budget(("small", "random", number))]
    for _ in range(2):
        policy_quality.log(pd.DataFrame(rows))
    judged = pd.read_csv(tmp_path / "judged.csv")
    assert list(judged["budget"]) == [*policy_quality.BUDGETS] * 2
    assert set(judged["studies"]) == {2}


def test_tasks_that_judge_compare_no_other_policies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(HALVES["policies"]) <= set(policy_quality.POLICIES)
    monkeypatch.setattr("sys.argv", ["policy_quality.py", "--judge", "--policies", "today"])
    with pytest.raises(SystemExit) as end:
        policy_quality.main()
    assert end.value.code == 2
    assert "the policies that tables/halves.toml names" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["policy_quality.py", "--tasks", HALVES["judge"][0]])
    with pytest.raises(SystemExit):
        policy_quality.main()
