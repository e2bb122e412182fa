"""Describes a confirmation in sentences and tables, for the terminal, the report and confirm.csv."""

import pandas as pd

from search.outputs.tables import as_cell
from search.record.confirmation import Configuration, Confirmation
from search.record.file_names import MODEL
from search.record.ranking import best_configurations
from search.record.study_record import StudyRecord
from training.console.terminal import format_value, short_path
from training.metrics import CONFIDENCE


def confirmation_table(record: StudyRecord, confirmation: Confirmation) -> pd.DataFrame:
    """Build `confirm.csv`: one row for each configuration, the winner first; means of too few trainings are empty."""
    rows = []
    for rank, one in enumerate(confirmation.configurations, start=1):
        row: dict[str, object] = {"rank": rank, "trial_number": one.trial}
        row |= {name: one.hyperparameters.get(name) for name in record.space}
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
    print(f"\nConfirmed: trial {confirmed.trial} after {describe_configuration(confirmed)}")
    print("  " + ", ".join(f"{name} {format_value(value)}" for name, value in confirmed.hyperparameters.items()))
    print(f"  {describe_optimism(confirmed)}")
    seeds = len(confirmation.winner.seeds)
    print(f"  {seeds} other seeds chose this trial; the bad end of its interval is the best:")
    lines = configuration_rows(confirmation)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    if difference := confirmation.first_two:
        print(f"  {difference.sentence}")
    if stale := describe_stale(record, confirmation):
        print(f"  {stale}")
    number, *how = describe_result(confirmation)
    print(f"Result: {number}\n  {'; '.join(how)}")
    print(f"Model: {short_path(record.folder / MODEL)}")


def describe_configuration(one: Configuration) -> str:
    """Describe the mean of the metric of a configuration over its seeds, with the interval."""
    estimate = one.metric
    failed = f"; from {one.failed} more seeds it failed" if one.failed else ""
    return (
        f"{describe_epochs(one.epochs)}: {one.metric_name} {estimate.mean:.4f} "
        f"({CONFIDENCE} % interval {estimate.low:.4f} to {estimate.high:.4f}, {len(one.seeds)} fresh seeds{failed})"
    )


def describe_result(confirmation: Confirmation) -> tuple[str, str, str]:
    """Describe the result of a study with its interval, how it was measured, and the role of the test images."""
    final = confirmation.final
    low, high = final.interval
    return (
        f"test_accuracy {final.test_accuracy:.4f} ({CONFIDENCE} % interval {low:.4f} to {high:.4f}, "
        f"{final.test_images:,} images)",
        f"the model was trained once on all {final.training_images:,} training images for "
        f"{describe_epochs(final.epochs)} with seed {final.seed}",
        "the test images chose nothing",
    )


def configuration_rows(confirmation: Confirmation) -> list[list[str]]:
    """Build the rows of the configurations from which the winner was chosen; the first row names the columns."""
    metric = confirmation.winner.metric_name
    header = ["trial", "epochs", "seeds", metric, f"{CONFIDENCE} % interval", "search value", "test_accuracy"]
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
    """Describe by how much the value in the search was better than the mean over fresh seeds."""
    size, unit = (100 * one.optimism, "points") if one.metric_name.endswith("accuracy") else (one.optimism, "nats")
    comparison = (
        f"{abs(size):.2f} {unit} {'better' if size > 0 else 'worse'} than" if round(abs(size), 2) else "equal to"
    )
    return f"its value in the search was {one.search_value:.4f}, {comparison} this mean"


def describe_stale(record: StudyRecord, confirmation: Confirmation) -> str | None:
    """Warn that other trials are the best by now; None if the confirmed trials are still the best."""
    now = [trial.number for trial in best_configurations(record.trials, len(confirmation.configurations))]
    if {*now} == {one.trial for one in confirmation.configurations}:
        return None
    return f"the study has gone on since: its best trials are {', '.join(map(str, now))} now, which are not confirmed"


def describe_epochs(number: int) -> str:
    """Write a number of epochs."""
    return f"{number} epoch{'s' * (number > 1)}"
