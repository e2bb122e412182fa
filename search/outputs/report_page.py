"""Renders the report of a study: one self-contained HTML file with charts, sentences about them, and tables."""

from collections import defaultdict
from datetime import datetime
from typing import Any

import pandas as pd

from search.analysis.findings import Findings
from search.outputs.error_analysis import ErrorAnalysis
from search.outputs.html_page import render_page
from search.outputs.report_certainty import certainty
from search.outputs.report_headline import headline
from search.outputs.report_sections import sections
from search.outputs.sampled_trials import MOST_SHOWN, describe_drawn
from search.outputs.tables import trial_table
from search.record.columns import metric_columns
from search.record.file_names import REPORT
from search.record.lookup import shown_settings
from search.record.ranking import baseline_trial, best_trial, ended_trials, valid_trials
from search.record.study_record import StudyRecord
from search.record.warm_start import describe_warm_start
from search.space.search_space import describe, describe_hyperparameter
from training.console.terminal import counted, format_metric, format_value, printable


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
        [*sections(record, findings, errors)],
        name=record.folder.name,
        state=_state(record),
        remarks=[*(record.metadata.origin.remarks if record.metadata.origin else []), *describe_drawn(record)],
        headline=headline(record),
        certainty=certainty(record),
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


def _best_number(record: StudyRecord) -> int | None:
    """The trial whose row is marked in the table: the confirmed one, if there is one."""
    if confirmation := record.metadata.confirmation:
        return confirmation.confirmed.trial
    best = best_trial(record.trials)
    return best.number if best else None


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
    lines += [("warm start", describe_warm_start(warm_start)) for warm_start in metadata.warm_start]
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
