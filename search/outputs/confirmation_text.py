"""Describes a confirmation in sentences and tables, for the terminal, the report and confirm.csv."""

import pandas as pd

from search.outputs.tables import as_cell
from search.record.columns import distinct_columns
from search.record.confirmation import Configuration, Confirmation
from search.record.file_names import MODEL
from search.record.ranking import best_configurations
from search.record.study_record import StudyRecord
from training.console.terminal import counted, format_value, short_path, wrapped
from training.metrics import CONFIDENCE

CONFIRM_COLUMNS = (
    *("rank", "trial_number", "epochs", "seeds", "failed", "metric", "mean", "standard_deviation", "low", "high"),
    *("search_value", "optimism", "test_accuracy_mean", "test_accuracy_low", "test_accuracy_high", "test_loss_mean"),
    *("confirmed_seeds", "confirmed_failed", "confirmed_mean", "confirmed_standard_deviation"),
    *("confirmed_low", "confirmed_high", "confirmed_optimism"),
    *("final_test_accuracy", "final_test_accuracy_low", "final_test_accuracy_high"),
)
"""Our own columns of `confirm.csv`."""


def confirmation_table(record: StudyRecord, confirmation: Confirmation) -> pd.DataFrame:
    """Build `confirm.csv`: one row for each configuration, the winner first; means of too few trainings are empty."""
    columns, rows = distinct_columns("hyperparameter", record.space, CONFIRM_COLUMNS), []
    for rank, one in enumerate(confirmation.configurations, start=1):
        row: dict[str, object] = {"rank": rank, "trial_number": one.trial}
        row |= {column: one.hyperparameters.get(name) for name, column in columns.items()}
        row |= {"epochs": one.epochs or None, "seeds": len(one.seeds), "failed": one.failed, "metric": one.metric_name}
        row |= dict.fromkeys(("mean", "standard_deviation", "low", "high"))
        row |= {"search_value": one.search_value}
        if one.is_measured:
            estimate, test = one.metric, one.test_accuracy
            row |= {"mean": estimate.mean, "standard_deviation": one.own_deviation}
            row |= {"low": estimate.low, "high": estimate.high, "optimism": one.optimism}
            row |= {"test_accuracy_mean": test.mean, "test_accuracy_low": test.low, "test_accuracy_high": test.high}
            row |= {"test_loss_mean": one.test_loss.mean}
        if rank == 1:
            confirmed, estimate = confirmation.confirmed, confirmation.confirmed.metric
            row |= {"confirmed_seeds": len(confirmed.seeds), "confirmed_failed": confirmed.failed}
            row |= {"confirmed_mean": estimate.mean, "confirmed_standard_deviation": confirmed.own_deviation}
            row |= {"confirmed_low": estimate.low, "confirmed_high": estimate.high}
            row |= {"confirmed_optimism": confirmed.optimism}
            low, high = confirmation.final.interval
            row |= {"final_test_accuracy": confirmation.final.test_accuracy}
            row |= {"final_test_accuracy_low": low, "final_test_accuracy_high": high}
        rows.append(row)
    integers = dict.fromkeys(("epochs", "confirmed_seeds", "confirmed_failed"), "Int64")
    return pd.DataFrame(rows).map(as_cell).astype(integers)


def show_confirmation(record: StudyRecord) -> None:
    """Print the result of a study that was confirmed, and the trainings on which it rests."""
    confirmation = record.metadata.confirmation
    if confirmation is None:
        return
    confirmed = confirmation.confirmed
    print(f"\nConfirmed: trial {confirmed.trial} after {describe_epochs(confirmed.epochs)}")
    values = ", ".join(f"{name} {format_value(value)}" for name, value in confirmed.hyperparameters.items())
    stale = describe_stale(record, confirmation)
    for sentence in (values, *describe_result(confirmation), *([stale] if stale else [])):
        print(wrapped(sentence, indent="  "))
    print("  How it was chosen:")
    for number, step in enumerate(describe_choice(confirmation), start=1):
        print(wrapped(f"{number}. {step}", indent="  ", hanging="     "))
    lines = configuration_rows(confirmation)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    if (record.folder / MODEL).is_dir():
        print(f"Model: {short_path(record.folder / MODEL)}")


def describe_result(confirmation: Confirmation) -> tuple[str, str]:
    """Describe what to expect of the confirmed configuration, and what the one trained model reached."""
    confirmed, final = confirmation.confirmed, confirmation.final
    low, high = final.interval
    return (
        f"Expect {confirmed.metric_name} {confirmed.metric.mean:.4f} from this configuration "
        f"({describe_interval(confirmed.metric.low, confirmed.metric.high)}).",
        f"The model was trained once, on all {final.training_images:,} training images: test_accuracy "
        f"{final.test_accuracy:.4f} ({describe_interval(low, high)}, {final.test_images:,} images).",
    )


def describe_interval(low: float, high: float) -> str:
    """Write the bounds of an interval."""
    return f"{CONFIDENCE} % interval {low:.4f} to {high:.4f}"


def describe_choice(confirmation: Confirmation) -> list[str]:
    """Describe in steps how the confirmed configuration was chosen and measured."""
    confirmed, winner, final = confirmation.confirmed, confirmation.winner, confirmation.final
    number = len(confirmation.configurations)
    if number > 1:
        trained = f"The {number} best configurations of the search were trained again, all from the same new seeds."
        bound = (
            "lower bound of its interval is the highest"
            if winner.metric_name.endswith("accuracy")
            else ("upper bound of its interval is the lowest")
        )
        chosen = f"Trial {winner.trial} was chosen, because the {bound}."
        comparison = f" {difference.sentence}" if (difference := confirmation.first_two) else ""
        choice = f"{trained} {chosen}{comparison}"
    else:
        choice = "The best configuration of the search was trained again from new seeds."
    failed = f" ({counted(confirmed.failed, 'more training')} failed)" if confirmed.failed else ""
    return [
        choice,
        f"It was then trained from {len(confirmed.seeds)} further seeds, which chose nothing{failed}. Their mean is "
        f"the value to expect. {describe_optimism(confirmed)}",
        f"The model comes from one more training, for {describe_epochs(final.epochs)} with seed {final.seed}. The test "
        "images chose nothing.",
    ]


def configuration_rows(confirmation: Confirmation) -> list[list[str]]:
    """Build the rows of the configurations from which the winner was chosen; the first row names the columns."""
    metric = confirmation.winner.metric_name
    header = ["trial", "epochs", "seeds", metric, f"{CONFIDENCE} % interval", "search", "test_accuracy"]
    return [header, *map(_row, confirmation.configurations)]


def _row(one: Configuration) -> list[str]:
    seeds = f"{len(one.seeds)} of {len(one.seeds) + one.failed}" if one.failed else str(len(one.seeds))
    if not one.is_measured:
        return [str(one.trial), "", seeds, "", "", f"{one.search_value:.4f}", ""]
    estimate = one.metric
    interval = f"{estimate.low:.4f} to {estimate.high:.4f}"
    numbers = [f"{estimate.mean:.4f}", interval, f"{one.search_value:.4f}"]
    return [str(one.trial), str(one.epochs), seeds, *numbers, f"{one.test_accuracy.mean:.4f}"]


def describe_optimism(one: Configuration) -> str:
    """Describe by how much the value in the search was better than the mean over new seeds."""
    size, unit = (100 * one.optimism, "points") if one.metric_name.endswith("accuracy") else (one.optimism, "nats")
    direction = "optimistic" if size > 0 else "pessimistic"
    comparison = f"{abs(size):.2f} {unit} too {direction}" if round(abs(size), 2) else "the same"
    return f"The search had measured {one.search_value:.4f}, which was {comparison}."


def describe_stale(record: StudyRecord, confirmation: Confirmation) -> str | None:
    """Warn that other trials are the best by now; None if the confirmed trials are still the best."""
    now = [trial.number for trial in best_configurations(record.trials, len(confirmation.configurations))]
    if {*now} == {one.trial for one in confirmation.configurations}:
        return None
    listed = ", ".join(map(str, now))
    return f"The study has continued since then. Its best trials are now {listed}, and these were not all confirmed."


def describe_epochs(number: int) -> str:
    """Write a number of epochs."""
    return counted(number, "epoch")
