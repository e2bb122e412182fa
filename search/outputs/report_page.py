"""The report of a study: one HTML file that needs nothing else, with its charts, what they show, and the tables."""

import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from optuna.distributions import CategoricalDistribution

from search.analysis.equal_budget import ENOUGH_TRIALS, EqualBudget
from search.analysis.findings import Findings
from search.analysis.gain import baseline_name
from search.analysis.importance import EVALUATOR, RESAMPLES
from search.analysis.time_accounting import PART_NAMES, time_accounting, wall_seconds, worker_trials
from search.outputs import charts
from search.outputs.confirmation_text import (
    describe_configuration,
    describe_optimism,
    describe_result,
    describe_stale,
    shown_table,
)
from search.outputs.error_analysis import ErrorAnalysis
from search.outputs.html_page import CaptionedImage, Section, render_page
from search.outputs.summary import duration
from search.outputs.tables import trial_table
from search.record.file_names import MODEL, REPORT
from search.record.lookup import project_path, settings_to_json
from search.record.ranking import (
    baseline_trial,
    best_trial,
    ended_trials,
    epochs_run,
    epochs_saved,
    ranked,
    valid_trials,
)
from search.record.study_record import StudyRecord
from search.record.trial import Metrics, TrialRecord
from search.space.distributions import values_of
from search.space.search_space import describe, describe_hyperparameter, starting_points
from training.config import NETWORKS
from training.console.terminal import format_value
from training.metrics import CONFIDENCE
from training.model.model_folder import read_metadata

Z_95 = 1.96
"""Half the width of a 95 % interval, in standard errors."""


def render(record: StudyRecord, findings: Findings, model: ErrorAnalysis | str) -> str:
    """The page as HTML.

    Args:
        record: The study.
        findings: What was computed from the record.
        model: How the best model classifies the test images, or why that is not known.
    """
    table = trial_table(record)
    return render_page(
        REPORT,
        [*_sections(record, findings, model)],
        name=record.folder.name,
        state=_state(record),
        headline=_headline(record),
        certainty=_certainty(record),
        recommendations=findings.recommendations,
        failures=_failures(record),
        columns=list(table.columns),
        rows=[[_cell(value) for value in row] for row in table.itertuples(index=False)],
        best=getattr(best_trial(record.trials), "number", None),
        provenance=_provenance(record),
    )


def _state(record: StudyRecord) -> str:
    """Whether the study is over, when it is not."""
    going_on = sum(not trial.has_ended for trial in record.trials)
    wanted = record.metadata.settings.num_samples
    ended = len(ended_trials(record.trials))
    if ended >= wanted:
        return ""
    more = f"; {going_on} can go on from their last epoch" if going_on else ""
    return f"{ended} of {wanted} trials have ended{more}."


def _headline(record: StudyRecord) -> list[tuple[str, str, str]]:
    """Name, figure and remark of what counts most."""
    best = best_trial(record.trials)
    metrics = best.best_epoch if best else None
    if best is None or metrics is None:
        return [("trials", str(len(ended_trials(record.trials))), "none measured anything that stands")]
    chosen = ", ".join(f"{name} {format_value(value)}" for name, value in best.hyperparameters.items())
    cards = [("best configuration", chosen, f"trial {best.number}, epoch {metrics.epoch}")]
    if confirmation := record.metadata.confirmation:
        final = confirmation.final
        low, high = final.interval
        told = f"test accuracy of trial {final.trial}, trained on all images; 95 % interval {low:.4f} to {high:.4f}"
        cards.append(("result", f"{final.test_accuracy:.4f}", told))
    cards += _measured_cards(record, best, metrics)
    counts = Counter(trial.status for trial in record.trials)
    listed = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.most_common())
    cards.append(("trials", str(len(record.trials)), listed))
    if saved := epochs_saved(record.trials, record.epochs):
        whole = saved + epochs_run(record.trials)
        cards.append(("epochs saved", f"{saved / whole:.0%}", f"{saved} of {whole}, by stopping weak trials early"))
    cards.append(("time", duration(wall_seconds(record)), _where(record)))
    return cards


def _measured_cards(record: StudyRecord, best: TrialRecord, metrics: Metrics) -> Iterator[tuple[str, str, str]]:
    """What the best trial measured, and its gain over the baseline."""
    baseline = baseline_trial(record.trials)
    start = baseline.best_epoch if baseline else None
    gain_card = f"gain over the {baseline_name(record.metadata)}"
    if not record.metadata.task.has_images:
        which = "lowest" if record.mode == "min" else "highest"
        yield (
            record.metric,
            f"{record.objective.value(metrics):.4g}",
            f"the {which} of all trials, so slightly optimistic",
        )
        if start and baseline is not best:
            yield (
                gain_card,
                f"{record.objective.value(metrics) - record.objective.value(start):+.4g}",
                f"it had {record.objective.value(start):.4g}",
            )
        return
    if metrics.val_accuracy is not None:
        yield "validation accuracy", f"{metrics.val_accuracy:.4f}", "chosen by it, so slightly optimistic"
    images = record.metadata.images.test_images
    spread = Z_95 * math.sqrt(metrics.test_accuracy * (1 - metrics.test_accuracy) / images)
    by_test = record.metric.startswith("test_")
    remark = "chosen by it, so optimistic" if by_test else f"± {spread:.4f} (95 %, {images:,} images)"
    yield "test accuracy", f"{metrics.test_accuracy:.4f}", remark
    if start and baseline is not best:
        gain = 100 * (metrics.test_accuracy - start.test_accuracy)
        remark = f"of test accuracy; it had {start.test_accuracy:.4f}{_other_starting_points(record)}"
        yield gain_card, f"{gain:+.1f} points", remark


def _other_starting_points(record: StudyRecord) -> str:
    """What the tutorial's settings with another optimizer reached: that much takes no search."""
    baseline = baseline_trial(record.trials)
    others = starting_points(record.space, baseline.hyperparameters)[1:] if baseline else []
    best = next((trial for trial in ranked(record.trials) if trial.hyperparameters in others), None)
    metrics = best.best_epoch if best else None
    return f", with {best.hyperparameters['optimizer']} {metrics.test_accuracy:.4f}" if best and metrics else ""


def _where(record: StudyRecord) -> str:
    if not record.metadata.sessions:
        return ""
    last = record.metadata.sessions[-1]
    return f"{last.cpus} cores, {last.machine.processor}"


def _certainty(record: StudyRecord) -> list[str]:
    """Which trials, and which choices, cannot be told from the best on so many validation images."""
    best = best_trial(record.trials)
    if best is None or record.metric != "val_accuracy" or not record.metadata.task.has_images:
        return []
    images = record.metadata.images.validation_images
    top = best.best_value
    rivals = [
        trial
        for trial in sorted(valid_trials(record.trials), key=lambda trial: trial.best_value, reverse=True)
        if top - trial.best_value <= _resolution(top, trial.best_value, images)
    ]
    if len(rivals) == 1:
        alone = f"No other trial comes within what {images:,} validation images can tell apart."
        return [alone, *_best_of_each_choice(record)]
    numbers = ", ".join(str(trial.number) for trial in rivals[:8]) + (" …" if len(rivals) > 8 else "")
    worst = min(trial.best_value for trial in rivals)
    sentences = [
        f"{len(rivals)} trials ({numbers}; {record.metric} {worst:.4f} to {top:.4f}) cannot be told apart on "
        f"{images:,} validation images: differences below about {_resolution(top, worst, images):.4f} can be chance."
    ]
    return sentences + _choices_among(record, rivals) + _best_of_each_choice(record)


def _choices_among(record: StudyRecord, rivals: list[TrialRecord]) -> list[str]:
    """What the trials that may be the best have in common."""
    sentences = []
    for name, distribution in record.space.items():
        values = [trial.hyperparameters[name] for trial in rivals if name in trial.hyperparameters]
        if not values:
            continue
        if isinstance(distribution, CategoricalDistribution):
            tried = Counter(trial.hyperparameters[name] for trial in record.trials if name in trial.hyperparameters)
            among = Counter(values)
            listed = ", ".join(f"{count} with {value}" for value, count in among.most_common())
            without = [str(value) for value in tried if value not in among]
            none = (
                f", none of the {sum(tried[value] for value in without)} with {' or '.join(without)}" if without else ""
            )
            sentences.append(f"{name}: {listed}{none}.")
        else:
            low, high = min(values, key=float), max(values, key=float)
            reach = format_value(low) if low == high else f"{format_value(low)} to {format_value(high)}"
            sentences.append(f"{name}: {reach}.")
    return sentences


def _best_of_each_choice(record: StudyRecord) -> list[str]:
    """What each choice has reached, and how often it was given all epochs."""
    measured = sorted(valid_trials(record.trials), key=lambda trial: trial.best_value, reverse=True)
    sentences = []
    for name, distribution in record.space.items():
        told = []
        chosen = [trial for trial in measured if name in trial.hyperparameters]
        is_choice = isinstance(distribution, CategoricalDistribution)
        for choice in dict.fromkeys(trial.hyperparameters[name] for trial in chosen if is_choice):
            alike = [trial for trial in chosen if trial.hyperparameters[name] == choice]
            full = sum(trial.status == "completed" for trial in alike)
            told.append(f"{choice} {alike[0].best_value:.4f} ({full} of {len(alike)} trials ran in full)")
        if told:
            sentences.append(f"Best with each {name}: {', '.join(told)}.")
    return sentences


def _resolution(one: float, other: float, images: int) -> float:
    """The least difference of two accuracies that so many images can tell apart, as if measured on different ones."""
    return Z_95 * math.sqrt((one * (1 - one) + other * (1 - other)) / images)


def _sections(record: StudyRecord, findings: Findings, model: ErrorAnalysis | str) -> Iterator[Section]:
    best, metric = best_trial(record.trials), record.metric
    measured = valid_trials(record.trials)
    yield from _confirmed(record)
    if best:
        stopped = sum(trial.status == "stopped_early" for trial in measured)
        ending = f" {stopped} lines end where their trials were stopped early." if stopped else ""
        scale = (
            " The scale is stretched towards 1, where the differences matter." if record.metadata.is_accuracy else ""
        )
        dashed = f" Dashed: the {baseline_name(record.metadata)}." if baseline_trial(record.trials) else ""
        yield Section(
            "Learning curves",
            f"{metric} of every trial after each epoch; trial {best.number}, in orange, is the best."
            f"{dashed}{ending}{scale}",
            [charts.learning_curves(record)],
        )
        yield Section(
            "Optimisation history",
            f"The best {metric} of each trial in the order in which they were proposed. The last gain came with trial "
            f"{best.number}. Hollow points were stopped early and might have gone further.",
            [charts.optimisation_history(record)],
        )
        yield Section(
            "Parallel coordinates",
            f"Each line is a trial: its hyperparameters and the best {metric} it reached. Bright lines are the best; "
            "where they run together, the search has found what works.",
            [charts.parallel_coordinates(record)],
        )
        yield Section(
            "One hyperparameter at a time",
            f"The best {metric} of each trial over each hyperparameter. The star is the best trial; hollow points were "
            "stopped early, so that only the filled ones show what a value is good for.",
            [
                charts.slice_of(record, name)
                for name in record.space
                if any(name in trial.hyperparameters for trial in valid_trials(record.trials))
            ],
            side_by_side=True,
        )
    yield from _contours(record, findings.compared)
    yield from _importances(findings)
    runs = worker_trials(record)
    if runs:
        workers = len({run.worker for run in runs})
        yield Section(
            "Workers",
            f"What ran where and when, by number of the trial, on {workers} worker processes. Gaps are idle or lost "
            "time.",
            [charts.timeline(runs)],
        )
    seconds = time_accounting(record)
    if seconds["whole"]:
        useful = (seconds["training"] + seconds["evaluation"]) / seconds["whole"]
        largest = max((part for part in PART_NAMES if part not in ("training", "evaluation")), key=seconds.__getitem__)
        yield Section(
            "Time",
            f"{useful:.0%} of all core seconds went to training and evaluation. The largest other part is "
            f"{PART_NAMES[largest]}, {seconds[largest] / seconds['whole']:.0%}.",
            [charts.time_bar(seconds)],
        )
    if isinstance(model, ErrorAnalysis):
        yield _confusion(model, record.metadata.images.classes)
    elif best and record.metadata.task.has_images:
        yield Section("What the best model mistakes", f"Not shown: {model}.")
    yield from _exported_model(record)


def _confirmed(record: StudyRecord) -> Iterator[Section]:
    """What the best configurations measured from fresh seeds, if the study was confirmed."""
    confirmation = record.metadata.confirmation
    if confirmation is None:
        return
    confirmed = confirmation.confirmed
    number, *how = describe_result(confirmation)
    sentences = [
        f"Trained again from seeds that the search did not use, trial {confirmed.trial} is the winner: the bad end of "
        "its interval is the best (the table). From further seeds, which chose nothing, "
        f"{describe_configuration(confirmed)}; the search said {confirmed.search_value:.4f}, "
        f"{describe_optimism(confirmed)}",
        *([told.sentence] if (told := confirmation.first_two) else []),
        *([stale] if (stale := describe_stale(record, confirmation)) else []),
        f"the result: {number}, {'; '.join(how)}",
    ]
    text = " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
    figure = charts.confirmation(confirmation)
    yield Section("Confirmed", text, [figure], table=shown_table(confirmation))


def _contours(record: StudyRecord, compared: EqualBudget | None) -> Iterator[Section]:
    if compared is None or not {"learning_rate", "batch_size"} <= record.space.keys():
        return
    optimizers = (values_of(record.space["optimizer"]) or ()) if "optimizer" in record.space else (None,)
    figures = [
        charts.contour(record, compared, ("learning_rate", "batch_size"), None if name is None else str(name))
        for name in optimizers
    ]
    yield Section(
        "Learning rate and batch size",
        f"{record.metric} {compared.phrase}, for each optimizer. Between the trials it is interpolated; where no trial "
        "was, nothing is shown.",
        [figure for figure in figures if figure],
        side_by_side=True,
    )


def _importances(findings: Findings) -> Iterator[Section]:
    compared, found = findings.compared, findings.importances
    if compared is None:
        sentence = f"Not shown: fewer than {ENOUGH_TRIALS} trials measured anything."
        yield Section("Hyperparameter importance", sentence)
        return
    if not found:
        yield Section("Hyperparameter importance", "Not shown: all trials have the same value.")
        return
    full = "" if compared.is_full else f" Fewer than {ENOUGH_TRIALS} ran in full, where the picture may be another."
    sure = [importance.name for importance in found if not importance.is_noise]
    told = f"Told from noise: {', '.join(sure)}." if sure else "None can be told from noise."
    yield Section(
        "Hyperparameter importance",
        f"How much of the differences in the metric each explains, {compared.phrase}. {told} For grey ones "
        f"0 lies in the interval.{full} Evaluator: {EVALUATOR}; lines are {CONFIDENCE} % bootstrap intervals over "
        f"the trials, {RESAMPLES} resamples.",
        [charts.importance_bars(found)],
    )


def _confusion(model: ErrorAnalysis, classes: list[str]) -> Section:
    total = sum(map(sum, model.confusion))
    mistakes = [
        (count, classes[row], classes[column])
        for row, line in enumerate(model.confusion)
        for column, count in enumerate(line)
        if row != column
    ]
    errors = sum(count for count, _, _ in mistakes)
    sentence = (
        f"The best model (trial {model.trial}, epoch {model.epoch}) mistakes {errors:,} of {total:,} test images."
    )
    if errors:
        count, true, seen = max(mistakes)
        sentence += f" Its most frequent mistake: {true} seen as {seen}, {count} times."
    if model.most_wrong:
        sentence += " Below the table, those of which it was surest."
    images = [
        CaptionedImage(wrong.png, f"{wrong.true_class}, seen as {wrong.seen_as} ({100 * wrong.probability:.1f} %)")
        for wrong in model.most_wrong
    ]
    figure = charts.confusion(model.confusion, classes)
    return Section("What the best model mistakes", sentence, [figure], images=images)


def _exported_model(record: StudyRecord) -> Iterator[Section]:
    """What lies in `model/`, and how it is used."""
    folder = record.folder / MODEL
    try:
        model = read_metadata(folder)
    except ValueError:
        return
    place = shlex.quote(project_path(folder))
    trust = "" if model.network in NETWORKS else " --trust-network"
    yield Section(
        "The model, to use",
        f"{MODEL}/ in the folder of this study holds the weights, all that is needed to rebuild the network, and a "
        f"card with its figures and limits; it needs no study. {model.selection}",
        commands=[
            f"python training/predict.py {place} IMAGE{trust}",
            f"python training/export.py {place} --onnx model.onnx{trust}",
        ],
    )


def _failures(record: StudyRecord) -> list[dict[str, Any]]:
    """Trials that diverged or failed, by class and error."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for trial in record.trials:
        if trial.failure:
            groups[trial.failure.kind.replace("_", " "), trial.failure.error].append(trial.number)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return [{"kind": kind, "error": error, "trials": numbers} for (kind, error), numbers in ordered]


def _provenance(record: StudyRecord) -> list[tuple[str, str]]:
    metadata, lines = record.metadata, []
    if dataset := metadata.dataset:
        images = (
            f"{dataset.training_images:,} training, {dataset.validation_images:,} validation, "
            f"{dataset.test_images:,} test images"
        )
        lines += [("data", f"{dataset.name}: {images}"), ("data checksum", f"sha256 {dataset.sha256}")]
    lines += [
        ("searched" if name in record.space else "fixed", f"{name}: {describe_hyperparameter(described)}")
        for name, described in describe(metadata.space).items()
    ]
    settings = {name: value for name, value in settings_to_json(metadata.settings).items() if value is not None}
    lines.append(("settings", ", ".join(f"{name} {value}" for name, value in settings.items())))
    if warm_start := metadata.warm_start:
        lines.append(("warm start", f"{warm_start.trials} of {warm_start.of} trials of study {warm_start.study}"))
    for number, session in enumerate(metadata.sessions, start=1):
        machine = session.machine
        gpus = f", {', '.join(machine.gpus)}" if machine.gpus else ""
        lines += [
            (f"session {number}" if len(metadata.sessions) > 1 else "session", session.time),
            ("command", session.command),
            ("commit", session.git_commit or "unknown"),
            ("machine", f"{machine.processor}, {machine.cpus} cores, {machine.memory_gib} GiB{gpus}"),
            ("versions", ", ".join(f"{name} {version}" for name, version in session.versions.items())),
        ]
    return [*lines, ("report written", datetime.now().astimezone().isoformat(timespec="seconds"))]


def _cell(value: Any) -> dict[str, Any]:
    """What a cell of the table shows, and what it is sorted by."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return {"text": "", "key": ""}
    return {"text": format_value(value), "key": value if isinstance(value, int | float) else str(value)}
