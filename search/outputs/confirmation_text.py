"""Describes a confirmation in sentences and tables, for the terminal, the report and confirm.csv."""

import math

import pandas as pd

from search.outputs.best_model import describe_missing
from search.outputs.tables import as_cell
from search.record.columns import distinct_columns
from search.record.configuration import UNMEASURED, Configuration, format_difference
from search.record.confirmation import Confirmation
from search.record.estimate import Estimate
from search.record.ranking import best_configurations
from search.record.study_record import StudyRecord
from training.console.terminal import counted, format_metric, format_value, text_width, wrapped
from training.metrics import CONFIDENCE

COLUMNS = (
    *("rank", "trial_number", "epochs", "seeds", "failed", "metric", "mean", "standard_deviation", "low", "high"),
    *("search_value", "optimism", "confirmed_seeds", "confirmed_failed", "confirmed_mean"),
    *("confirmed_standard_deviation", "confirmed_low", "confirmed_high", "confirmed_optimism"),
    *("final_test_accuracy", "final_test_accuracy_low", "final_test_accuracy_high"),
)
"""Our own columns of `confirm.csv`, besides those of the test metrics."""


MEANS = "means over the seeds that chose the winner, and the value that the search had measured"
"""What the rows of `configuration_rows` show."""


def confirmation_table(record: StudyRecord, confirmation: Confirmation) -> pd.DataFrame:
    """Build `confirm.csv`: one row for each configuration, the winner first; means of too few trainings are empty."""
    tested = [f"{name}_{part}" for name in confirmation.winner.test_metrics for part in ("mean", "low", "high")]
    columns, rows = distinct_columns("hyperparameter", record.space, (*COLUMNS, *tested)), []
    for rank, one in enumerate(confirmation.configurations, start=1):
        row: dict[str, object] = {"rank": rank, "trial_number": one.trial}
        row |= {column: one.hyperparameters.get(name) for name, column in columns.items()}
        row |= {"epochs": one.epochs or None, "seeds": len(one.seeds), "failed": one.failed, "metric": one.metric_name}
        row |= dict.fromkeys(("mean", "standard_deviation", "low", "high"))
        row |= {"search_value": one.search_value}
        if one.is_measured:
            estimate = one.metric
            row |= {"mean": estimate.mean, "standard_deviation": one.own_deviation}
            row |= _bounds("", estimate) | {"optimism": one.optimism}
            for name, test in one.test_metrics.items():
                row |= {f"{name}_mean": test.mean} | _bounds(f"{name}_", test)
        if rank == 1:
            confirmed, estimate = confirmation.confirmed, confirmation.confirmed.metric
            row |= {"confirmed_seeds": len(confirmed.seeds), "confirmed_failed": confirmed.failed}
            row |= {"confirmed_mean": estimate.mean, "confirmed_standard_deviation": confirmed.own_deviation}
            row |= _bounds("confirmed_", estimate) | {"confirmed_optimism": confirmed.optimism}
            if final := confirmation.final:
                low, high = final.interval
                row |= {"final_test_accuracy": final.test_accuracy}
                row |= {"final_test_accuracy_low": low, "final_test_accuracy_high": high}
        rows.append(row)
    integers = dict.fromkeys(("epochs", "confirmed_seeds", "confirmed_failed"), "Int64")
    return pd.DataFrame(rows).map(as_cell).astype(integers)


def _bounds(prefix: str, estimate: Estimate) -> dict[str, object]:
    """The bounds of an interval by column; empty without an interval."""
    bounds = (estimate.low, estimate.high) if estimate.has_interval else (None, None)
    return {f"{prefix}{name}": bound for name, bound in zip(("low", "high"), bounds, strict=True)}


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
    for number, step in enumerate(describe_choice(record, confirmation), start=1):
        print(wrapped(f"{number}. {step}", indent="  ", hanging="     "))
    print(wrapped(f"M{MEANS[1:]}:", indent="  "))
    _show_configurations(confirmation)


def _show_configurations(confirmation: Confirmation) -> None:
    """Print the table of the configurations, with the columns for which the terminal is wide enough."""
    columns = [*zip(*configuration_rows(confirmation), strict=True)]
    aligned = [[cell.rjust(max(map(len, column))) for cell in column] for column in columns]
    least_needed = [*range(len(columns) - 1, 4, -1), 1, 2]  # test metric and value in the search; then epochs and seeds
    for number in range(len(least_needed) + 1):
        hidden = least_needed[:number]
        shown = [column for place, column in enumerate(aligned) if place not in hidden]
        lines = ["  " + "  ".join(line) for line in zip(*shown, strict=True)]
        if len(lines[0]) <= text_width():
            break
    print("\n".join(lines))
    if hidden:
        names = ", ".join(columns[place][0] for place in hidden)
        print(wrapped(f"The lines are too short for {names}; confirm.csv has all columns.", indent="  "))


def describe_result(confirmation: Confirmation) -> list[str]:
    """Describe what to expect of the confirmed configuration, and what the model reached."""
    confirmed, final, best = confirmation.confirmed, confirmation.final, confirmation.best
    expected = confirmed.metric
    sentences = [
        f"Expect {confirmed.metric_name} {format_metric(expected.mean)} from this configuration "
        f"({describe_estimate(expected)})."
    ]
    if bounds := confirmed.cut_off_at:
        ends = " and ".join(f"{bound:g}" for bound in bounds)
        sentences.append(
            f"The interval is cut off at {ends}: by its name and by all values that were measured, "
            f"{confirmed.metric_name} lies between 0 and {confirmed.largest_values[confirmed.metric_name]:g}."
        )
    if not confirmation.varies:
        sentences.append(
            "From all seeds the trainings of a configuration measured the same: the training does not depend on its "
            "seed, or sets a seed of its own."
        )
    if final:
        low, high = final.interval
        sentences.append(
            f"The model was trained once, on all {final.training_images:,} training images: test_accuracy "
            f"{final.test_accuracy:.4f} ({describe_interval(low, high)}, {final.test_images:,} images)."
        )
    if best:
        for name, test in confirmed.test_metrics.items():
            measured = f"{name} {format_metric(test.mean)} ({describe_estimate(test)})"
            sentences.append(f"The same trainings measured {measured}.")
        is_better = not math.isclose(best.value, expected.mean)  # where all seeds gave the same value, it is not
        sentences.append(
            f"The best of all its trainings, epoch {best.epoch} with seed {best.seed}, measured "
            f"{confirmed.metric_name} {format_metric(best.value)}{', which is optimistic' if is_better else ''}."
        )
    return sentences


def describe_interval(low: float, high: float) -> str:
    """Write the bounds of an interval."""
    return f"{CONFIDENCE} % interval {format_metric(low)} to {format_metric(high)}"


def describe_estimate(estimate: Estimate) -> str:
    """Write the interval of a mean over seeds, or why there is none."""
    if estimate.has_interval:
        return describe_interval(estimate.low, estimate.high)
    return f"all seeds gave the same value, {UNMEASURED}"


def describe_choice(record: StudyRecord, confirmation: Confirmation) -> list[str]:
    """Describe in steps how the confirmed configuration was chosen and measured."""
    confirmed, winner = confirmation.confirmed, confirmation.winner
    number = len(confirmation.configurations)
    if number > 1:
        trained = f"The {number} best configurations of the search were trained again, all from the same new seeds."
        bound = ("lower", "highest") if winner.mode == "max" else ("upper", "lowest")
        chosen = f"Trial {winner.trial} was chosen, because the {bound[0]} bound of its interval is the {bound[1]}."
        comparison = f" {difference.sentence}" if (difference := confirmation.first_two) else ""
        choice = f"{trained} {chosen}{comparison}"
    else:
        choice = "The best configuration of the search was trained again from new seeds."
    if not confirmation.takes_seed:
        choice += " The function takes no seed: the generators of Python, NumPy and torch were seeded before it ran."
    failed = f" ({counted(confirmed.failed, 'more training')} failed)" if confirmed.failed else ""
    return [
        choice,
        f"It was then trained from {len(confirmed.seeds)} further seeds, which chose nothing{failed}. Their mean is "
        f"the value to expect. {describe_optimism(confirmed)}",
        _describe_model(record, confirmation),
    ]


def _describe_model(record: StudyRecord, confirmation: Confirmation) -> str:
    """Describe from which training the model comes."""
    if final := confirmation.final:
        return (
            f"The model comes from one more training, for {describe_epochs(final.epochs)} with seed {final.seed}. The "
            "test images chose nothing."
        )
    tested = ", ".join(confirmation.confirmed.test_values)
    nothing = f" Metrics of test data ({tested}) chose nothing." if tested else ""
    if missing := describe_missing(record):
        return f"There is no model, because {missing}.{nothing}"
    return f"The model is what the best of all its trainings saved.{nothing}"


def configuration_rows(confirmation: Confirmation) -> list[list[str]]:
    """Build the rows of the configurations from which the winner was chosen; the first row names the columns."""
    tested = [*confirmation.winner.test_metrics][:1]  # confirm.csv has all of them
    header = ["trial", "epochs", "seeds", confirmation.winner.metric_name, f"{CONFIDENCE} % interval", "search"]
    return [[*header, *tested], *(_row(one, tested) for one in confirmation.configurations)]


def _row(one: Configuration, tested: list[str]) -> list[str]:
    seeds = f"{len(one.seeds)} of {len(one.seeds) + one.failed}" if one.failed else str(len(one.seeds))
    search_value = format_metric(one.search_value)
    if not one.is_measured:
        return [str(one.trial), "", seeds, "", "", search_value, *("" for _ in tested)]
    estimate, tests = one.metric, one.test_metrics
    bounds = f"{format_metric(estimate.low)} to {format_metric(estimate.high)}"
    interval = bounds if estimate.has_interval else "all equal"
    means = [format_metric(tests[name].mean) if name in tests else "" for name in tested]
    return [str(one.trial), str(one.epochs), seeds, format_metric(estimate.mean), interval, search_value, *means]


def describe_optimism(one: Configuration) -> str:
    """Describe by how much the value in the search was better than the mean over new seeds."""
    size = abs(one.optimism) * (100 if one.is_accuracy else 1)
    written = format_difference(size, one.unit)
    direction = "optimistic" if one.optimism > 0 else "pessimistic"
    comparison = f"{written} {one.unit} too {direction}" if float(written) else "the same"
    return f"The search had measured {format_metric(one.search_value)}, which was {comparison}."


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
