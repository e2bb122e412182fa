"""A confirmation in words and tables: for the terminal, for the report, and as confirm.csv."""

import pandas as pd

from search.confirmation import (
    LEVEL,
    Configuration,
    Confirmation,
    Difference,
    difference,
    optimism,
    read_confirmation,
)
from search.progress import as_typed, format_value
from search.record import StudyRecord
from search.settings import MetricName
from search.space import SearchSpace
from search.trial_table import as_cell

TABLE = "confirm.csv"
_MEASURED = [
    *("mean", "standard_deviation", "low", "high", "search_value", "optimism"),
    *("test_accuracy_mean", "test_accuracy_low", "test_accuracy_high", "test_loss_mean"),
    *("final_test_accuracy", "final_test_accuracy_low", "final_test_accuracy_high"),
]


def confirmation_of(record: StudyRecord) -> Confirmation | None:
    """What the record of a study holds of its confirmation."""
    return read_confirmation(record.facts["confirm"]) if "confirm" in record.facts else None


def confirmation_table(confirmation: Confirmation, metric: MetricName, space: SearchSpace) -> pd.DataFrame:
    """One row for each configuration, the winner first; what too few trainings measured is left empty."""
    rows = []
    for place, configuration in enumerate(confirmation.configurations, start=1):
        row: dict[str, object] = {"rank": place, "trial_number": configuration.trial, **configuration.hyperparameters}
        row |= {"epochs": configuration.epochs or None, "seeds": len(configuration.seeds)}
        row |= {"failed": configuration.failed, "metric": metric, "search_value": configuration.search_value}
        if configuration.is_measured:
            estimate, test = configuration.metric, configuration.test_accuracy
            row |= {"mean": estimate.mean, "standard_deviation": estimate.deviation}
            row |= {"low": estimate.low, "high": estimate.high, "optimism": optimism(configuration, metric)}
            row |= {"test_accuracy_mean": test.mean, "test_accuracy_low": test.low, "test_accuracy_high": test.high}
            row |= {"test_loss_mean": configuration.test_loss.mean}
        if place == 1:
            low, high = confirmation.final.interval
            row |= {"final_test_accuracy": confirmation.final.test_accuracy}
            row |= {"final_test_accuracy_low": low, "final_test_accuracy_high": high}
        rows.append(row)
    columns = ["rank", "trial_number", *space, "epochs", "seeds", "failed", "metric", *_MEASURED]
    return pd.DataFrame(rows, columns=columns).map(as_cell).astype({"epochs": "Int64"})


def show_confirmation(record: StudyRecord, confirmation: Confirmation) -> None:
    """Print the result of a study, and what stands behind it."""
    metric, winner, final = record.metric, confirmation.winner, confirmation.final
    measured = [one for one in confirmation.configurations if one.is_measured]
    print(f"\nConfirmed: {winner_sentence(confirmation, metric)}")
    print("  " + ", ".join(f"{name} {format_value(value)}" for name, value in winner.hyperparameters.items()))
    header, *rows = shown_table(confirmation, metric)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for line in (header, *rows):
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    if told := first_two(measured, metric):
        print(f"  {told.sentence}")
    print(f"Result: {result_sentence(confirmation)}")
    print(f"Model: {as_typed(record.folder / 'confirm' / 'final.pt')} (trained with seed {final.seed})")
    print(f"Table: {as_typed(record.folder / TABLE)}")


def winner_sentence(confirmation: Confirmation, metric: MetricName) -> str:
    """Which configuration won, and by how much the search's own number was too good."""
    winner = confirmation.winner
    estimate = winner.metric
    return (
        f"trial {winner.trial}, {_epochs(winner.epochs)}: {metric} {estimate.mean:.4f} on average of "
        f"{len(winner.seeds)} fresh seeds ({LEVEL} % interval {estimate.low:.4f} to {estimate.high:.4f}); "
        f"the search said {winner.search_value:.4f}, {_too_good(optimism(winner, metric), metric)}"
    )


def result_sentence(confirmation: Confirmation) -> str:
    """The study's result: what the winner, trained on all training images, reaches on the test images."""
    final = confirmation.final
    low, high = final.interval
    return (
        f"test_accuracy {final.test_accuracy:.4f} ({LEVEL} % interval {low:.4f} to {high:.4f} for "
        f"{final.test_images:,} images), trained once on all {final.training_images:,} training images for "
        f"{_epochs(final.epochs)}; the test images chose nothing"
    )


def shown_table(confirmation: Confirmation, metric: MetricName) -> list[list[str]]:
    """What people are shown of each configuration, the names of the columns first."""
    header = ["trial", "epochs", "seeds", f"{metric}, mean", f"{LEVEL} % interval", "search said", "optimism"]
    return [[*header, "test_accuracy, mean"], *(_row(one, metric) for one in confirmation.configurations)]


def _row(one: Configuration, metric: MetricName) -> list[str]:
    seeds = str(len(one.seeds)) + (f" ({one.failed} failed)" if one.failed else "")
    if not one.is_measured:
        return [str(one.trial), "", seeds, "", "", f"{one.search_value:.4f}", "", ""]
    estimate = one.metric
    interval = f"{estimate.low:.4f} to {estimate.high:.4f}"
    numbers = [f"{estimate.mean:.4f}", interval, f"{one.search_value:.4f}", f"{optimism(one, metric):+.4f}"]
    return [str(one.trial), str(one.epochs), seeds, *numbers, f"{one.test_accuracy.mean:.4f}"]


def first_two(measured: list[Configuration], metric: MetricName) -> Difference | None:
    """How much better the winner is than the next; None if there is no other."""
    return difference(measured[0], measured[1], metric) if len(measured) > 1 else None


def _too_good(amount: float, metric: MetricName) -> str:
    """In words, by how much a number was better than it should be."""
    size, unit = (100 * amount, "points") if metric.endswith("accuracy") else (amount, "nats")
    if round(abs(size), 2) == 0:
        return "which is no more than it keeps"
    return f"{abs(size):.2f} {unit} {'too much' if size > 0 else 'too little'}"


def _epochs(number: int) -> str:
    return f"{number} epoch{'s' * (number > 1)}"
