"""The sections of a report: charts, each with a sentence that says how to read it."""

from collections.abc import Iterator

from optuna.distributions import CategoricalDistribution

from search.analysis.equal_budget import ENOUGH_TRIALS, EqualBudget
from search.analysis.findings import Findings
from search.analysis.fixing import FEWEST_TRIALS
from search.analysis.gain import baseline_name
from search.analysis.importance import EVALUATOR, RESAMPLES
from search.analysis.recommendations import describe_fixing, describe_stopped
from search.analysis.time_accounting import PART_NAMES, time_accounting, worker_trials
from search.outputs import analysis_charts, space_charts, trial_charts
from search.outputs.best_model import read_exported
from search.outputs.chart_layout import has_scale
from search.outputs.confirmation_text import MEANS, configuration_rows, describe_choice, describe_result, describe_stale
from search.outputs.error_analysis import ErrorAnalysis
from search.outputs.html_page import CaptionedImage, Section
from search.outputs.sampled_trials import MOST_SHOWN, drawn, drawn_of
from search.record.file_names import MODEL
from search.record.lookup import project_path
from search.record.ranking import baseline_trial, best_trial, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import FAILED, TrialRecord
from search.space.distributions import values_of
from training.config import NETWORKS, is_passed_function
from training.console.terminal import counted, format_share
from training.metrics import CONFIDENCE
from training.model.model_metadata import CustomModelMetadata
from training.typed_command import portable_line

ERRORS_TITLE = "Errors of the best model"


def sections(record: StudyRecord, findings: Findings, errors: ErrorAnalysis | str) -> Iterator[Section]:
    """Build the sections in their order; of each, only what this study has.

    Args:
        record: The study.
        findings: Its importances and recommendations.
        errors: How the best model classifies the test images, or why that is not known.
    """
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
            [trial_charts.learning_curves(record)],
        )
    yield Section(
        "Optimisation history",
        f"Each point is the best {metric} of a trial, in the order in which the trials were proposed. Trial "
        f"{best.number} is the best one{of_search}. Hollow points are trials that were stopped early and might have "
        f"improved.{crosses}",
        [trial_charts.optimisation_history(record)],
    )
    yield Section(
        "Parallel coordinates",
        f"Each line is a trial: its hyperparameters and its best {metric}. Bright lines are the best trials; where "
        f"they run together, these values work well.{left_out}",
        [space_charts.parallel_coordinates(record)],
    )
    yield Section(
        "One hyperparameter at a time",
        f"Each chart shows the best {metric} of each trial against one hyperparameter. The star is the best trial"
        f"{of_search}. "
        "Hollow points are trials that were stopped early; only filled points show what a value reaches in full."
        f"{crosses}",
        [
            trial_charts.slice_plot(record, name)
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
            [analysis_charts.timeline(runs[-MOST_SHOWN:])],
        )
    seconds = time_accounting(record)
    if seconds["whole"]:
        useful = (seconds["training"] + seconds["evaluation"]) / seconds["whole"]
        largest = max((part for part in PART_NAMES if part not in ("training", "evaluation")), key=seconds.__getitem__)
        yield Section(
            "Time",
            f"Training and evaluation took {format_share(useful)} of all core seconds. The largest other part is "
            f"{PART_NAMES[largest]}, {format_share(seconds[largest] / seconds['whole'])}.",
            [analysis_charts.time_bar(seconds)],
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
    figure = analysis_charts.confirmation(confirmation)
    yield Section("Confirmation", text, [figure], table=configuration_rows(confirmation))


def _contours(record: StudyRecord, compared: EqualBudget | None) -> Iterator[Section]:
    plane, space = ("learning_rate", "batch_size"), record.space
    if compared is None or not all(name in space and has_scale(space[name]) for name in plane):
        return
    optimizer = space.get("optimizer")
    optimizers = values_of(optimizer) if isinstance(optimizer, CategoricalDistribution) else None
    shown = drawn_of(compared, drawn(record))
    figures = [space_charts.contour(record, shown, plane, name) for name in optimizers or (None,)]
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
        [analysis_charts.importance_bars(importances)],
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
    return Section(ERRORS_TITLE, sentence, [analysis_charts.confusion(errors.confusion, classes)], images=images)


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
