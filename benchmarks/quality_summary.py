"""What replayed studies add up to: medians, means and intervals for each policy, and how they are shown."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

GOAL = 0.25
"""Of the CPU that random search without a scheduler needs."""
KEYS = ["table", "sampler", "scheduler", "learning_rates", "start", "rule"]
"""The columns of the studies that tell one policy, table and rule from another."""
SHOWN = {
    "of_random": "CPU to one point of regret, of random's",
    "regret_10": "regret at the CPU of 10 full trials",
    "regret_20": "of 20",
    "test_regret": "by test accuracy",
}


def summarize(studies: pd.DataFrame) -> pd.DataFrame:
    """One row for each policy, table and rule.

    Args:
        studies: One row for each study, rule and budget.

    Returns:
        By name of a statistic its value, and with `_low` and `_high` the ends of its interval: `cpu_to_goal`, the
        median of the full trials of CPU after which the regret first was at the goal; `of_random`, the same as a part
        of what random search without a scheduler needs after the baseline (or without it, if the policy has none);
        `regret_5` and so on, the mean at a budget.
    """
    by_policy = {tuple(key): of_policy.sort_values("study") for key, of_policy in studies.groupby(KEYS, sort=False)}
    default_range = studies["learning_rates"].iloc[0]
    summary = []
    for key, of_policy in by_policy.items():
        table, _, _, _, start, rule = key
        random_start = start if start == "sampler" else "baseline"
        random = by_policy[table, "random", "none", default_range, random_start, rule]
        row: dict[str, Any] = dict(zip(KEYS, key, strict=True))
        reached = _of_each_study(of_policy, "reached")
        row |= {"studies": len(reached), "reached": float(np.isfinite(reached).mean())}
        row |= _interval("cpu_to_goal", reached, np.median)
        row |= _ratio("of_random", reached, _of_each_study(random, "reached"))
        for budget, at_budget in of_policy.groupby("budget"):
            row |= _interval(f"regret_{budget}", at_budget["regret"].to_numpy(), np.mean)
            row[f"trials_{budget}"] = float(at_budget["trials"].mean())
        row |= _interval("test_regret", _of_each_study(of_policy, "test_regret"), np.mean)
        row["replay_seconds"] = float(of_policy["replay_seconds"].mean())
        summary.append(row)
    return pd.DataFrame(summary)


def show(summary: pd.DataFrame) -> None:
    """Print what was found on one table, in markdown: every policy with the first rule, then the other rules."""
    first_rule = summary["rule"].iloc[0]
    shown = summary[(summary["rule"] == first_rule) | summary["scheduler"].isin(["none", "asha grace 1 reduction 3"])]
    for rule, of_rule in shown.groupby("rule", sort=False):
        print(f"\nThe winner is chosen by its {rule}:\n")
        print("| policy | " + " | ".join(SHOWN.values()) + " |\n" + "| --- " * (len(SHOWN) + 1) + "|")
        for row in of_rule.to_dict("records"):
            policy = ", ".join(str(row[key]) for key in KEYS[1:-1])
            print(f"| {policy} | " + " | ".join(_cell(row, name) for name in SHOWN) + " |")


def is_of(summary: pd.DataFrame, **values: object) -> "pd.Series[bool]":
    """Which rows have these values."""
    return (summary[[*values]] == pd.Series(values)).all(axis=1)


def told(row: dict[Any, Any]) -> str:
    """Whether a policy reached the goal."""
    if row["of_random_high"] <= GOAL:
        outcome = "reached"
    else:
        outcome = "not reached" if row["of_random"] > GOAL else "reached, but the interval goes beyond it"
    return f"{_cell(row, 'of_random')}, {outcome}"


def _cell(row: dict[Any, Any], name: str) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(row[name + end] for end in ("", "_low", "_high")))


def _of_each_study(of_policy: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """A value that a study has at its end."""
    last = of_policy["budget"].max()
    values: NDArray[np.float64] = of_policy.loc[of_policy["budget"] == last, name].to_numpy(dtype=float)
    return values


def _resampled(studies: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(studies, size=(2000, studies))


def _interval(name: str, values: NDArray[np.float64], statistic: Any) -> dict[str, float]:
    again = statistic(values[_resampled(len(values))], axis=1)
    low, high = np.percentile(again, [2.5, 97.5], method="nearest")
    return {name: float(statistic(values)), f"{name}_low": float(low), f"{name}_high": float(high)}


def _ratio(name: str, values: NDArray[np.float64], reference: NDArray[np.float64]) -> dict[str, float]:
    """The ratio of two medians; the studies of the two are independent."""
    ours = np.median(values[_resampled(len(values))], axis=1)
    theirs = np.median(reference[_resampled(len(reference))[:, ::-1]], axis=1)
    with np.errstate(invalid="ignore"):
        low, high = np.nanpercentile(ours / theirs, [2.5, 97.5], method="nearest")
        ratio = np.median(values) / np.median(reference)
    return {name: float(ratio), f"{name}_low": float(low), f"{name}_high": float(high)}
