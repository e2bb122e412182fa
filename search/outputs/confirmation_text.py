"""A confirmation in words and tables: for the terminal, for the report, and as confirm.csv."""

import pandas as pd

from search.outputs.tables import as_cell
from search.record.confirmation import Configuration, Confirmation
from search.record.ranking import best_configurations
from search.record.study_record import StudyRecord
from search.space.search_space import SearchSpace
from training.console.terminal import format_value, short_path
from training.metrics import CONFIDENCE

_MEASURED = [
    *("mean", "standard_deviation", "low", "high", "search_value", "optimism"),
    *("test_accuracy_mean", "test_accuracy_low", "test_accuracy_high", "test_loss_mean"),
    *("confirmed_seeds", "confirmed_failed", "confirmed_mean", "confirmed_standard_deviation"),
    *("confirmed_low", "confirmed_high", "confirmed_optimism"),
    *("final_test_accuracy", "final_test_accuracy_low", "final_test_accuracy_high"),
]


def confirmation_table(confirmation: Confirmation, space: SearchSpace) -> pd.DataFrame:
    """One row for each configuration, the winner first; what too few trainings measured is left empty."""
    rows = []
    for place, one in enumerate(confirmation.configurations, start=1):
        row: dict[str, object] = {"rank": place, "trial_number": one.trial, **one.hyperparameters}
        row |= {"epochs": one.epochs or None, "seeds": len(one.seeds), "failed": one.failed}
        row |= {"metric": one.metric_name, "search_value": one.search_value}
        if one.is_measured:
            estimate, test = one.metric, one.test_accuracy
            row |= {"mean": estimate.mean, "standard_deviation": one.own_deviation}
            row |= {"low": estimate.low, "high": estimate.high, "optimism": one.optimism}
            row |= {"test_accuracy_mean": test.mean, "test_accuracy_low": test.low, "test_accuracy_high": test.high}
            row |= {"test_loss_mean": one.test_loss.mean}
        if place == 1:
            confirmed, estimate = confirmation.confirmed, confirmation.confirmed.metric
            row |= {"confirmed_seeds": len(confirmed.seeds), "confirmed_failed": confirmed.failed}
            row |= {"confirmed_mean": estimate.mean, "confirmed_standard_deviation": confirmed.own_deviation}
            row |= {"confirmed_low": estimate.low, "confirmed_high": estimate.high}
            row |= {"confirmed_optimism": confirmed.optimism}
            low, high = confirmation.final.interval
            row |= {"final_test_accuracy": confirmation.final.test_accuracy}
            row |= {"final_test_accuracy_low": low, "final_test_accuracy_high": high}
        rows.append(row)
    columns = ["rank", "trial_number", *space, "epochs", "seeds", "failed", "metric", *_MEASURED]
    whole = dict.fromkeys(("epochs", "confirmed_seeds", "confirmed_failed"), "Int64")
    return pd.DataFrame(rows, columns=columns).map(as_cell).astype(whole)


def show_confirmation(record: StudyRecord) -> None:
    """Print the result of a study that was confirmed, and what stands behind it."""
    confirmation = record.metadata.confirmation
    if confirmation is None:
        return
    confirmed = confirmation.confirmed
    print(f"\nConfirmed: trial {confirmed.trial}, {describe_configuration(confirmed)}")
    print("  " + ", ".join(f"{name} {format_value(value)}" for name, value in confirmed.hyperparameters.items()))
    print(f"  the search said {confirmed.search_value:.4f}, {describe_optimism(confirmed)}")
    print(f"  chosen by {len(confirmation.winner.seeds)} other seeds, the best lower end of an interval first:")
    lines = shown_table(confirmation)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    if told := confirmation.first_two:
        print(f"  {told.sentence}")
    if stale := describe_stale(record, confirmation):
        print(f"  {stale}")
    number, *how = describe_result(confirmation)
    print(f"Result: {number}\n  {'; '.join(how)}")
    print(f"Model: {short_path(record.folder / 'model')}")


def describe_configuration(one: Configuration) -> str:
    """What a configuration keeps, with its interval."""
    estimate = one.metric
    failed = f"; from {one.failed} more it failed" if one.failed else ""
    return (
        f"{describe_epochs(one.epochs)}: {one.metric_name} {estimate.mean:.4f} "
        f"({CONFIDENCE} % interval {estimate.low:.4f} to {estimate.high:.4f}, {len(one.seeds)} fresh seeds{failed})"
    )


def describe_result(confirmation: Confirmation) -> tuple[str, str, str]:
    """The study's result, with its interval; how it came about; and what it did not decide."""
    final = confirmation.final
    low, high = final.interval
    return (
        f"test_accuracy {final.test_accuracy:.4f} ({CONFIDENCE} % interval {low:.4f} to {high:.4f}, "
        f"{final.test_images:,} images)",
        f"trained once on all {final.training_images:,} training images for {describe_epochs(final.epochs)}, "
        f"seed {final.seed}",
        "the test images chose nothing",
    )


def shown_table(confirmation: Confirmation) -> list[list[str]]:
    """What people are shown of the trainings that chose, the names of the columns first."""
    metric = confirmation.winner.metric_name
    header = ["trial", "epochs", "seeds", metric, f"{CONFIDENCE} % interval", "search said", "test_accuracy"]
    return [header, *map(_row, confirmation.configurations)]


def _row(one: Configuration) -> list[str]:
    seeds = str(len(one.seeds)) + (f" ({one.failed} failed)" if one.failed else "")
    if not one.is_measured:
        return [str(one.trial), "", seeds, "", "", f"{one.search_value:.4f}", ""]
    estimate = one.metric
    interval = f"{estimate.low:.4f} to {estimate.high:.4f}"
    numbers = [f"{estimate.mean:.4f}", interval, f"{one.search_value:.4f}"]
    return [str(one.trial), str(one.epochs), seeds, *numbers, f"{one.test_accuracy.mean:.4f}"]


def describe_optimism(one: Configuration) -> str:
    """By how much the search's own number was better than what fresh seeds keep."""
    size, unit = (100 * one.optimism, "points") if one.metric_name.endswith("accuracy") else (one.optimism, "nats")
    if round(abs(size), 2) == 0:
        return "which fresh seeds keep"
    return f"{abs(size):.2f} {unit} {'more' if size > 0 else 'less'} than fresh seeds keep"


def describe_stale(record: StudyRecord, confirmation: Confirmation) -> str | None:
    """That the best trials are others by now, if they are."""
    now = [trial.number for trial in best_configurations(record.trials, len(confirmation.configurations))]
    if {*now} == {one.trial for one in confirmation.configurations}:
        return None
    return f"the study has gone on since: its best trials are {', '.join(map(str, now))} now, which are not confirmed"


def describe_epochs(number: int) -> str:
    """So many epochs."""
    return f"{number} epoch{'s' * (number > 1)}"
