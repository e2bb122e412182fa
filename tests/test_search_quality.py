"""What the comparison of samplers and schedulers computes from replayed studies."""

import itertools
from pathlib import Path

import pandas as pd
import pytest
import tables
from quality_summary import summarize
from search_quality import BUDGETS, RULES, Incumbent, Policy, Table, study
from studies import metrics

from search.record.trial import Failure, Objective, TrialRecord


def trial(number: int, *accuracies: float) -> TrialRecord:
    objective = Objective("val_accuracy", "max")
    made = TrialRecord(number, f"ray{number}", {"learning_rate": 10.0**-number}, known_seed=0, objective=objective)
    for epoch, accuracy in enumerate(accuracies, start=1):
        made.add_epoch(metrics(epoch, accuracy), None)
    return made


@pytest.mark.parametrize(
    ("rule", "shipped"),
    [("best epoch", (0.01, 2)), ("last epoch", (1.0, 3)), ("mean of last 3", (0.1, 4)), ("best mean of 3", (0.001, 3))],
)
def test_each_rule_ships_its_winner(rule: str, shipped: tuple[float, int]) -> None:
    incumbent = Incumbent(rule)
    curves = (0.1, 0.3, 0.8), (0.1, 0.7, 0.7, 0.7), (0.1, 0.9, 0.4), (0.7, 0.75, 0.8, 0.0)
    for of_trial in itertools.starmap(trial, ((number, *curve) for number, curve in enumerate(curves))):
        incumbent.see(of_trial, of_trial.hyperparameters)
    assert incumbent.shipped == ({"learning_rate": shipped[0]}, shipped[1])


def test_trial_whose_newest_epoch_is_worse_gives_way_by_its_last_epoch_and_a_failed_one_always() -> None:
    incumbent = Incumbent("last epoch")
    incumbent.see(trial(0, 0.5), {"learning_rate": 1.0})
    assert incumbent.see(trial(1, 0.6), {"learning_rate": 0.1})
    assert incumbent.see(trial(1, 0.6, 0.4), {"learning_rate": 0.1})
    assert incumbent.shipped == ({"learning_rate": 1.0}, 1)
    failed = trial(0, 0.5, 0.5)
    failed.failure = Failure("diverged", "nan")
    assert incumbent.see(failed, {"learning_rate": 1.0})
    assert incumbent.shipped == ({"learning_rate": 0.1}, 2)


def test_regret_falls_with_the_budget_and_the_default_needs_less_than_random_search(tmp_path: Path) -> None:
    table = Table.read(tables.write(tmp_path, tables.rows(seeds=1)))
    assert table.full_trial == pytest.approx(tables.EPOCHS * 4 / 3)  # sgd takes twice as long as the two others
    policies = Policy("random", "none"), Policy("tpe 5", "asha grace 1 reduction_factor 3")
    rows = [
        {"table": "planted", **vars(policy), **row, "replay_seconds": 0.0}
        for policy in policies
        for number in range(6)
        for row in study(table, policy, number)
    ]
    assert len(rows) == 2 * 6 * len(BUDGETS) * len(RULES)
    summary = summarize(pd.DataFrame(rows))
    random, default = summary[summary["rule"] == "best epoch"].to_dict("records")
    assert default["cpu_to_goal"] < random["cpu_to_goal"]
    assert default["regret_5"] >= default["regret_10"] >= default["regret_20"]
    assert default["regret_20"] < random["regret_20"]
    assert default["trials_20"] > 1.5 * random["trials_20"]
    assert default["regret_10_low"] <= default["regret_10"] <= default["regret_10_high"]
