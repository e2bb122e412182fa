"""Renders the report of a study: one self-contained HTML file with charts, sentences about them, and tables."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pandas as pd
from optuna.distributions import CategoricalDistribution

from search.analysis.equal_budget import ENOUGH_TRIALS, EqualBudget
from search.analysis.findings import Findings
from search.analysis.fixing import FEWEST_TRIALS
from search.analysis.gain import baseline_name, gain_over_start
from search.analysis.importance import EVALUATOR, RESAMPLES
from search.analysis.recommendations import describe_fixing, describe_stopped
from search.analysis.time_accounting import PART_NAMES, time_accounting, wall_seconds, worker_trials
from search.outputs import charts
from search.outputs.best_model import read_exported
from search.outputs.chart_layout import has_scale
from search.outputs.confirmation_text import (
    MEANS,
    configuration_rows,
    describe_choice,
    describe_epochs,
    describe_estimate,
    describe_interval,
    describe_result,
    describe_stale,
)
from search.outputs.error_analysis import ErrorAnalysis
from search.outputs.html_page import CaptionedImage, Section, render_page
from search.outputs.sampled_trials import MOST_SHOWN, describe_drawn, drawn, drawn_of
from search.outputs.summary import describe_epoch, duration
from search.outputs.tables import trial_table
from search.record.columns import metric_columns
from search.record.confirmation import Confirmation
from search.record.file_names import MODEL, REPORT
from search.record.lookup import project_path, shown_settings
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
from search.record.trial import FAILED, Metrics, TrialRecord
from search.space.distributions import values_of
from search.space.search_space import describe, describe_hyperparameter, starting_points
from training.config import NETWORKS, is_passed_function
from training.console.terminal import counted, format_metric, format_share, format_value, printable
from training.metrics import CONFIDENCE, accuracy_interval, may_be_chance
from training.model.model_metadata import CustomModelMetadata
from training.typed_command import portable_line

ERRORS_TITLE = "Errors of the best model"


def render(record: StudyRecord, findings: Findings, errors: ErrorAnalysis | str) -> str:
    """Render the page as HTML.

    Args:
        record: The study.
        findings: Its importances and recommendations.
        errors: How the best model classifies the test images, or why that is not known.
    """
    table, metrics = trial_table(record), {*metric_columns(record).values()}
    if record.metadata.origin:
        without = [] if record.metadata.has_curves else ["epochs", "best_epoch"]
        table = table.dropna(axis="columns", how="all").drop(columns=without, errors="ignore")
    of_search = " of the search" if record.metadata.confirmation else ""
    return render_page(
        REPORT,
        [*_sections(record, findings, errors)],
        name=record.folder.name,
        state=_state(record),
        remarks=[*(record.metadata.origin.remarks if record.metadata.origin else []), *describe_drawn(record)],
        headline=_headline(record),
        certainty=_certainty(record),
        recommendations=findings.recommendations,
        without_recommendation=_without_recommendation(record),
        failures=_failures(record),
        has_error_texts=record.metadata.origin is None,
        columns=list(map(printable, table.columns)),
        rows=[
            [_cell(value, is_metric=name in metrics) for name, value in zip(table.columns, row, strict=True)]
            for row in table.head(MOST_SHOWN).itertuples(index=False)
        ],
        best=_best_number(record),
        order=f"The best trial{of_search} comes first; metrics are of each trial's {record.objective.counted} epoch",
        provenance=_provenance(record),
    )


def _without_recommendation(record: StudyRecord) -> str:
    """Say why there is no recommendation."""
    if not valid_trials(record.trials):
        return f"Nothing can be recommended, because no trial has a valid {record.metric}."
    return "The trials of this study give no clear evidence for a recommendation."


def _state(record: StudyRecord) -> str:
    """Describe how far a study is that is not complete."""
    num_samples, ended = record.metadata.settings.num_samples, len(ended_trials(record.trials))
    if ended >= num_samples:
        return ""
    unfinished = len(record.trials) - ended
    if record.metadata.origin:
        return f"{counted(unfinished, 'trial')} had not ended when the study was imported."
    return f"{ended} of {counted(num_samples, 'trial')} have ended" + (
        f"; {counted(unfinished, 'interrupted trial')} can continue." if unfinished else "."
    )


def _headline(record: StudyRecord) -> list[tuple[str, str, str]]:
    """Build the cards at the top: the title, the figure and a remark of each."""
    best = best_trial(record.trials)
    metrics = best.best_epoch if best else None
    if best is None or metrics is None:
        return [("trials", str(len(ended_trials(record.trials))), "no trial has valid metrics")]
    if confirmation := record.metadata.confirmation:
        cards = [*_confirmed_cards(confirmation)]
    else:
        values = _listed(best.hyperparameters)
        cards = [("best configuration", values, describe_epoch(record, best))]
        cards += _metric_cards(record, best, metrics)
    counts = Counter(trial.status for trial in record.trials)
    listed = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.most_common())
    cards.append(("trials", str(len(record.trials)), listed))
    if saved := epochs_saved(record.trials, record.epoch_limit):
        total = saved + epochs_run(record.trials)
        cards.append(("epochs saved", f"{saved / total:.0%}", f"{saved} of {total}, by stopping weak trials early"))
    if record.metadata.origin:
        seconds = [trial.seconds for trial in record.trials if trial.seconds is not None]
        return [*cards, ("time of all trials", duration(sum(seconds)), "one after the other")] if seconds else cards
    sessions = record.metadata.sessions
    machine = f"{counted(sessions[-1].cpus, 'core')}, {sessions[-1].machine.processor}" if sessions else ""
    return [*cards, ("time", duration(wall_seconds(record)), machine)]


def _confirmed_cards(confirmation: Confirmation) -> Iterator[tuple[str, str, str]]:
    """Build the cards of a confirmed study: its best configuration, what to expect of it, and the model."""
    confirmed, final, best = confirmation.confirmed, confirmation.final, confirmation.best
    remark = f"trial {confirmed.trial} after {describe_epochs(confirmed.epochs)}, confirmed from new seeds"
    yield "best configuration", _listed(confirmed.hyperparameters), remark
    expected = confirmed.metric
    seeds = f"mean over {len(confirmed.seeds)} new seeds that chose nothing"
    remark = f"{seeds}, {describe_estimate(expected)}"
    yield f"expected {confirmed.metric_name}", format_metric(expected.mean), remark
    if final:
        remark = f"trained once, on all training images; {describe_interval(*final.interval)}"
        yield "test_accuracy of the model", f"{final.test_accuracy:.4f}", remark
    if best:
        remark = f"of all trainings of this configuration, epoch {best.epoch} with seed {best.seed}, so optimistic"
        yield f"{confirmed.metric_name} of the best training", format_metric(best.value), remark


def _listed(hyperparameters: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {format_value(value)}" for name, value in hyperparameters.items())


def _best_number(record: StudyRecord) -> int | None:
    """The trial whose row is marked in the table: the confirmed one, if there is one."""
    if confirmation := record.metadata.confirmation:
        return confirmation.confirmed.trial
    best = best_trial(record.trials)
    return best.number if best else None


def _metric_cards(record: StudyRecord, best: TrialRecord, metrics: Metrics) -> Iterator[tuple[str, str, str]]:
    """Build the cards of the best trial's metrics, and of its gain over the settings with which the study started."""
    gain = gain_over_start(record, best)
    if record.metadata.dataset is None:
        extreme, value = "lowest" if record.mode == "min" else "highest", record.objective.value(metrics)
        yield record.metric, format_metric(value), f"the {extreme} of all trials, so slightly optimistic"
        if gain:
            reference = record.objective.value(gain.reference_metrics)
            yield (
                f"gain over the {gain.over}",
                gain.difference(record, record.metric),
                f"these settings reached {record.metric} {format_metric(reference)}",
            )
        return
    if metrics.val_accuracy is not None:
        yield "val_accuracy", f"{metrics.val_accuracy:.4f}", "this metric chose the trial, so it is slightly optimistic"
    images = record.metadata.images.test_images
    low, high = accuracy_interval(metrics.test_accuracy, images)
    interval = f"{CONFIDENCE} % interval {low:.4f} to {high:.4f}, {images:,} images"
    by_test = record.metric.startswith("test_")
    yield (
        "test_accuracy",
        f"{metrics.test_accuracy:.4f}",
        "this metric chose the trial, so it is optimistic" if by_test else interval,
    )
    if gain:
        remark = f"these settings reached test_accuracy {gain.reference_metrics.test_accuracy:.4f}"
        if gain.reference.is_baseline:
            remark += _other_starting_points(record)
        yield f"gain over the {gain.over}", gain.difference(record, "test_accuracy").partition(" of ")[0], remark


def _other_starting_points(record: StudyRecord) -> str:
    """Describe the best starting point with another optimizer: its accuracy takes no search."""
    baseline = baseline_trial(record.trials)
    others = starting_points(record.space, baseline.hyperparameters)[1:] if baseline else []
    best = next((trial for trial in ranked(record.trials) if trial.hyperparameters in others), None)
    metrics = best.best_epoch if best else None
    return (
        f"; the same with optimizer {best.hyperparameters['optimizer']}: {metrics.test_accuracy:.4f}"
        if best and metrics
        else ""
    )


def _certainty(record: StudyRecord) -> list[str]:
    """Describe which trials the validation images cannot distinguish from the best one."""
    best = best_trial(record.trials)
    if best is None or record.metric != "val_accuracy" or record.metadata.dataset is None:
        return []
    images = record.metadata.images.validation_images
    _, *others = sorted(valid_trials(record.trials), key=lambda trial: trial.best_value, reverse=True)
    # the further from the best, the less it may be chance
    significant = bisect_left(
        others, True, key=lambda trial: not may_be_chance(best.best_value, trial.best_value, images)
    )
    rivals = others[:significant]
    if not rivals:
        alone = (
            f"The best trial is significantly better than all others: with {images:,} validation images, chance alone "
            "does not explain the differences."
        )
        return [alone, *_best_of_each_choice(record)]
    rivals.insert(0, best)
    numbers = ", ".join(str(trial.number) for trial in rivals[:8]) + (" …" if len(rivals) > 8 else "")
    sentences = [
        f"{len(rivals)} trials ({numbers}; {record.metric} {rivals[-1].best_value:.4f} to {best.best_value:.4f}) "
        f"are not significantly different: with {images:,} validation images, chance alone can explain the differences."
    ]
    return sentences + _choices_among(record, rivals) + _best_of_each_choice(record)


def _choices_among(record: StudyRecord, rivals: list[TrialRecord]) -> list[str]:
    """Describe the hyperparameters of the trials that may be the best."""
    sentences = []
    for name, distribution in record.space.items():
        values = [trial.hyperparameters[name] for trial in rivals if name in trial.hyperparameters]
        if not values:
            continue
        if isinstance(distribution, CategoricalDistribution):
            tried = Counter(trial.hyperparameters[name] for trial in record.trials if name in trial.hyperparameters)
            counts = Counter(values)
            listed = ", ".join(f"{value} ({number})" for value, number in counts.most_common())
            missing = [value for value in tried if value not in counts]
            others = counted(sum(tried[value] for value in missing), "trial")
            none = f"; none has {' or '.join(map(str, missing))} ({others} of the study)" if missing else ""
            sentences.append(f"These trials have {name} {listed}{none}.")
        else:
            low, high = min(values, key=float), max(values, key=float)
            limits = format_value(low) if low == high else f"from {format_value(low)} to {format_value(high)}"
            sentences.append(f"These trials have {name} {limits}.")
    return sentences


def _best_of_each_choice(record: StudyRecord) -> list[str]:
    """Describe the best value of each category, and how many of its trials ran in full."""
    measured = sorted(valid_trials(record.trials), key=lambda trial: trial.best_value, reverse=True)
    sentences = []
    for name, distribution in record.space.items():
        groups: dict[object, list[TrialRecord]] = defaultdict(list)
        for trial in measured:
            if name in trial.hyperparameters and isinstance(distribution, CategoricalDistribution):
                groups[trial.hyperparameters[name]].append(trial)
        bests = []
        for choice, trials in groups.items():
            full = sum(trial.status == "completed" for trial in trials)
            best = format_metric(trials[0].best_value)
            bests.append(f"{choice} {best} ({full} of {counted(len(trials), 'trial')} ran in full)")
        if bests:
            sentences.append(f"Best {record.metric} by {name}: {', '.join(bests)}.")
    return sentences


def _sections(record: StudyRecord, findings: Findings, errors: ErrorAnalysis | str) -> Iterator[Section]:
    best = best_trial(record.trials)
    yield from _confirmed(record)
    if best:
        yield from _trials(drawn(record), best)
    yield from _contours(record, findings.compared)
    yield from _importances(record, findings)
    yield from _cost(record)
    if isinstance(errors, ErrorAnalysis):
        yield _confusion(errors, record.metadata.images.classes)
    elif best and record.metadata.dataset:
        yield Section(ERRORS_TITLE, f"The errors cannot be shown, because {errors}.")
    yield from _exported_model(record)


def _trials(record: StudyRecord, best: TrialRecord) -> Iterator[Section]:
    """Show what each trial reached, and with which hyperparameters."""
    metric, measured = record.metric, valid_trials(record.trials)
    of_search = " of the search" if record.metadata.confirmation else ""
    stopped = sum(trial.status in ("stopped_early", "paused") for trial in measured)
    lines = "line of the trial that was" if stopped == 1 else f"lines of the {stopped} trials that were"
    early = f" The {lines} stopped early end{'s' * (stopped == 1)} before the last epoch." if stopped else ""
    failed = any(trial.status in FAILED for trial in record.trials)
    crosses = f" Crosses are trials that diverged or failed, which have no valid {metric}." if failed else ""
    left_out = " Trials that diverged or failed are left out." if failed else ""
    scale = " The scale is wider near 1, where small differences matter." if record.metadata.is_accuracy else ""
    baseline = f" The dashed line shows the {baseline_name(record.metadata)}." if baseline_trial(record.trials) else ""
    if record.metadata.has_curves:
        yield Section(
            "Learning curves",
            f"Each line shows the {metric} of a trial after each epoch; the orange line is the best trial{of_search}, "
            f"{best.number}.{baseline}{early}{scale}",
            [charts.learning_curves(record)],
        )
    yield Section(
        "Optimisation history",
        f"Each point is the best {metric} of a trial, in the order in which the trials were proposed. Trial "
        f"{best.number} is the best one{of_search}. Hollow points are trials that were stopped early and might have "
        f"improved.{crosses}",
        [charts.optimisation_history(record)],
    )
    yield Section(
        "Parallel coordinates",
        f"Each line is a trial: its hyperparameters and its best {metric}. Bright lines are the best trials; where "
        f"they run together, these values work well.{left_out}",
        [charts.parallel_coordinates(record)],
    )
    yield Section(
        "One hyperparameter at a time",
        f"Each chart shows the best {metric} of each trial against one hyperparameter. The star is the best trial"
        f"{of_search}. "
        "Hollow points are trials that were stopped early; only filled points show what a value reaches in full."
        f"{crosses}",
        [
            charts.slice_plot(record, name)
            for name in record.space
            if any(name in trial.hyperparameters for trial in measured)
        ],
        side_by_side=True,
    )


def _cost(record: StudyRecord) -> Iterator[Section]:
    """Show when the workers were busy, and what the time was spent on."""
    runs = worker_trials(record)
    if runs:
        workers = len({run.worker for run in runs})
        runs.sort(key=lambda run: run.began)
        newest = f" These are the newest {MOST_SHOWN:,} of {len(runs):,} bars." if len(runs) > MOST_SHOWN else ""
        yield Section(
            "Workers",
            f"Each row is a worker process ({workers} in all), and each bar is a trial, with its number where there "
            f"is room. Gaps are time in which the worker was idle or its work was lost.{newest}",
            [charts.timeline(runs[-MOST_SHOWN:])],
        )
    seconds = time_accounting(record)
    if seconds["whole"]:
        useful = (seconds["training"] + seconds["evaluation"]) / seconds["whole"]
        largest = max((part for part in PART_NAMES if part not in ("training", "evaluation")), key=seconds.__getitem__)
        yield Section(
            "Time",
            f"Training and evaluation took {format_share(useful)} of all core seconds. The largest other part is "
            f"{PART_NAMES[largest]}, {format_share(seconds[largest] / seconds['whole'])}.",
            [charts.time_bar(seconds)],
        )


def _confirmed(record: StudyRecord) -> Iterator[Section]:
    """Describe the best configurations, trained from new seeds, if the study was confirmed."""
    confirmation = record.metadata.confirmation
    if confirmation is None:
        return
    stale = describe_stale(record, confirmation)
    steps = [f"({number}) {step}" for number, step in enumerate(describe_choice(record, confirmation), start=1)]
    sentences = [*describe_result(confirmation), *([stale] if stale else []), "How it was chosen:", *steps]
    text = " ".join([*sentences, f"The table has these numbers: {MEANS}."])
    figure = charts.confirmation(confirmation)
    yield Section("Confirmation", text, [figure], table=configuration_rows(confirmation))


def _contours(record: StudyRecord, compared: EqualBudget | None) -> Iterator[Section]:
    plane, space = ("learning_rate", "batch_size"), record.space
    if compared is None or not all(name in space and has_scale(space[name]) for name in plane):
        return
    optimizer = space.get("optimizer")
    optimizers = values_of(optimizer) if isinstance(optimizer, CategoricalDistribution) else None
    shown = drawn_of(compared, drawn(record))
    figures = [charts.contour(record, shown, plane, name) for name in optimizers or (None,)]
    yield Section(
        "Learning rate and batch size",
        f"The colour is the {record.metric} {compared.phrase}; there is a chart for each optimizer. Values between the "
        "trials are interpolated; where there was no trial, nothing is shown.",
        [figure for figure in figures if figure],
        side_by_side=True,
    )


def _importances(record: StudyRecord, findings: Findings) -> Iterator[Section]:
    title, compared, importances = "Hyperparameter importance", findings.compared, findings.importances
    if not valid_trials(record.trials):
        yield Section(title, f"Importances are not known, because no trial has a valid {record.metric}.")
        return
    if compared is None:
        yield Section(title, f"Importances are not shown: fewer than {ENOUGH_TRIALS} trials have valid metrics.")
        return
    if not importances:
        yield Section(title, "Importances are not shown: all trials have the same value.")
        return
    full = (
        ""
        if compared.is_full
        else f" Fewer than {ENOUGH_TRIALS} trials ran in full, so importances over all epochs may be different."
    )
    yield Section(
        title,
        f"Each bar shows how much a hyperparameter decides whether a trial is among the best ({record.metric} "
        f"{compared.phrase}); all bars together are 100 %. The thin lines are {CONFIDENCE} % bootstrap intervals over "
        f"the trials, from {RESAMPLES} resamples.{full} The evaluator is {EVALUATOR}. "
        f"{' '.join(_describe_fixings(record, findings))}",
        [charts.importance_bars(importances)],
    )


def _describe_fixings(record: StudyRecord, findings: Findings) -> list[str]:
    """Describe which hyperparameters matter and which can stay fixed, or why that is not known."""
    if findings.fixings:
        return [describe_fixing(record, fixing) for fixing in findings.fixings]
    stopped, full = (
        describe_stopped(record),
        sum(trial.is_valid and trial.reached(record.epochs) for trial in record.trials),
    )
    if stopped or full >= FEWEST_TRIALS:
        return [stopped]
    return [
        f"It is not known which hyperparameters can stay fixed: at least {FEWEST_TRIALS} trials must run in full, and "
        f"{full} did."
    ]


def _confusion(errors: ErrorAnalysis, classes: list[str]) -> Section:
    total = sum(map(sum, errors.confusion))
    confusions = [
        (count, classes[row], classes[column])
        for row, line in enumerate(errors.confusion)
        for column, count in enumerate(line)
        if row != column
    ]
    number = sum(count for count, _, _ in confusions)
    sentence = (
        f"The best model (trial {errors.trial}, epoch {errors.epoch}) misclassifies {number:,} of "
        f"{counted(total, 'test image')}."
    )
    if number:
        most, true_class, predicted_class = max(confusions)
        often = counted(most, "image")
        sentence += f" The most frequent error is {true_class}, predicted as {predicted_class} ({often})."
    if errors.wrong_images:
        sentence += " The images below the table are the errors with the highest predicted probability."
    images = [
        CaptionedImage(
            wrong.png, f"{wrong.true_class}, predicted as {wrong.predicted_class} ({100 * wrong.probability:.1f} %)"
        )
        for wrong in errors.wrong_images
    ]
    return Section(ERRORS_TITLE, sentence, [charts.confusion(errors.confusion, classes)], images=images)


def _exported_model(record: StudyRecord) -> Iterator[Section]:
    """Describe the exported model in `model/`, and how to use it."""
    folder = record.folder / MODEL
    try:
        model = read_exported(folder)
    except ValueError:
        return
    path = project_path(folder)
    if isinstance(model, CustomModelMetadata):
        content = f"what the {model.training} saved, its configuration"
        commands = [f"from search.api import load_best; best = load_best({path!r})"]
    elif is_passed_function(model.network):
        content = "the weights and the hyperparameters of the network, which a Python program defines,"
        commands = [f"from search.api import load_best; best = load_best({path!r})"]
    else:
        content = "the weights, everything that rebuilds the network"
        trust = [] if model.network in NETWORKS else ["--trust-network"]
        commands = [
            portable_line("training/predict.py", path, "IMAGE", *trust),
            portable_line("training/export.py", path, "--onnx", "model.onnx", *trust),
        ]
    yield Section(
        "Exported model",
        f"The folder {MODEL}/ in the folder of this study holds {content}, and a model card. It works without the "
        f"study. {model.selection}",
        commands=commands,
    )


def _failures(record: StudyRecord) -> list[dict[str, Any]]:
    """Group the trials that diverged or failed by kind and error."""
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
        (
            "searched" if name in record.space else "fixed",
            f"{name}: {describe_hyperparameter(described)}"
            + (" (guessed from the trials)" if name in metadata.guessed_ranges else ""),
        )
        for name, described in describe(metadata.space).items()
    ]
    shown = shown_settings(metadata.settings, has_baseline=baseline_trial(record.trials) is not None)
    settings = {name: value for name, value in shown.items() if value is not None}
    lines.append(("settings", ", ".join(f"{name} {format_value(value)}" for name, value in settings.items())))
    if origin := metadata.origin:
        lines += [
            ("imported from", f"{origin.program}: study {origin.study} in {origin.file}"),
            ("imported", origin.time),
        ]
    if warm_start := metadata.warm_start:
        lines.append(
            ("warm start", f"{warm_start.trials} of {counted(warm_start.of, 'trial')} of study {warm_start.study}")
        )
    for number, session in enumerate(metadata.sessions, start=1):
        machine = session.machine
        gpus = f", {', '.join(machine.gpus)}" if machine.gpus else ""
        lines += [
            (f"session {number}" if len(metadata.sessions) > 1 else "session", session.time),
            ("command", session.command),
            ("commit", session.git_commit or "unknown"),
            ("machine", f"{machine.processor}, {counted(machine.cpus, 'core')}, {machine.memory_gib} GiB{gpus}"),
            ("versions", ", ".join(f"{name} {version}" for name, version in session.versions.items())),
        ]
    for answered in metadata.requests:
        request = answered.request
        lines.append(("asked", f"{request.time}, {request.origin}: {request.text}; {answered.answer}"))
    return [*lines, ("report written", datetime.now().astimezone().isoformat(timespec="seconds"))]


def _cell(value: Any, *, is_metric: bool) -> dict[str, Any]:
    """Build the text of a cell of the table, and the key by which its column is sorted."""
    if pd.isna(value):
        return {"text": "", "key": ""}
    text = format_metric(value) if is_metric else format_value(value)
    return {"text": text, "key": value if isinstance(value, int | float) else str(value)}
