"""Reads an experiment of Ray Tune from its folder: the JSON and CSV files of its trials; pickles are left alone."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.importing.csv_file import read_rows
from search.importing.foreign_study import LARGEST_FILE, MOST_TRIALS, MOST_VALUES, ForeignStudy, ForeignTrial
from search.importing.names import flattened
from search.record.trial import Status
from training.console.terminal import counted

PARAMS, RESULTS, PROGRESS, ERROR = "params.json", "result.json", "progress.csv", "error.txt"
DEEPEST = 4
"""Folders of trials lie at most so deep in that of the experiment."""
STEP = "training_iteration"
OF_RAY = {
    *("timestamp", "checkpoint_dir_name", "should_checkpoint", "done", STEP, "trial_id", "date", "time_this_iter_s"),
    *("time_total_s", "pid", "hostname", "node_ip", "time_since_restore", "iterations_since_restore", "warmup_time"),
    *("timesteps_total", "episodes_total", "experiment_id", "experiment_tag", "timesteps_since_restore", "logdir"),
    *("trial_name", "status", "num_healthy_workers", "agent_timesteps_total", "timesteps_this_iter"),
}
"""What Ray itself adds to the metrics of a trial."""


def is_experiment(folder: Path) -> bool:
    """Whether a folder holds trials of Ray Tune."""
    return next(_trial_folders(folder), None) is not None


def read_experiment(folder: Path) -> ForeignStudy:
    """Read an experiment; a ValueError or an OSError says which file is damaged or too large."""
    folders = sorted(_trial_folders(folder), key=lambda one: str(one.relative_to(folder)))
    if len(folders) > MOST_TRIALS:
        raise ValueError(f"it has {len(folders):,} trials, and at most {MOST_TRIALS:,} are imported")
    states = _states(folder)
    trials, unreadable, values = [], 0, 0
    for one in folders:
        results, lost = _results(one)
        unreadable += lost
        values += len(results)
        if values > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} results, which are too many to import")
        trials.append(_trial(one, results, states))
    longest = max((len(trial.steps) for trial in trials), default=0)
    for trial in trials:
        if trial.status == "stopped_early" and len(trial.steps) >= longest:
            trial.status = "completed"  # the limit of the experiment stopped it
    remarks = ["A trial counts with its last value, as in Ray Tune."]
    if unreadable:
        remarks.append(f"Left out: {counted(unreadable, 'line')} of results that cannot be read.")
    return ForeignStudy(program="Ray Tune", name=folder.resolve().name, trials=trials, counted="last", remarks=remarks)


def _trial_folders(folder: Path) -> Iterator[Path]:
    """The folders below one that hold the configuration of a trial."""
    base = len(folder.parts)
    for path, folders, files in os.walk(folder):
        if PARAMS in files:
            yield Path(path)
        if PARAMS in files or len(Path(path).parts) - base >= DEEPEST:
            folders.clear()


def _trial(folder: Path, results: list[dict[str, Any]], states: Mapping[str, str]) -> ForeignTrial:
    config = flattened(_read_object(folder / PARAMS))
    steps, seconds = {}, {}
    for number, result in enumerate(results, start=1):
        step = _number(result.get(STEP)) or number
        steps[step] = {
            name: value
            for name, raw in result.items()
            if name not in OF_RAY and not name.startswith("config/") and (value := _number(raw)) is not None
        }
        if (time := _number(result.get("time_this_iter_s"))) is not None:
            seconds[step] = time
    last = results[-1] if results else {}
    label = str(last.get("trial_id") or folder.name)
    return ForeignTrial(
        label=label,
        status=_status(folder, label, last, states),
        hyperparameters={name: value for name, value in config.items() if value is not None and value != {}},
        steps=steps,
        step_seconds=seconds,
        error=_error(folder / ERROR),
    )


def _status(folder: Path, label: str, last: Mapping[str, Any], states: Mapping[str, str]) -> Status:
    """The status of a trial; one that Ray stopped has a last result that says so, which a function cannot report."""
    if (folder / ERROR).is_file():
        return "failed"
    state = next((state for name, state in states.items() if name == label or f"_{name}_" in folder.name), "")
    is_stopped = str(last.get("done")).lower() == "true"
    if state in ("", "TERMINATED") and is_stopped:
        return "stopped_early"
    return "completed" if state == "TERMINATED" else "interrupted"


def _states(folder: Path) -> dict[str, str]:
    """The state of each trial in the newest state of the experiment, whose pickled parts are not read."""
    files = sorted(folder.glob("experiment_state-*.json"))
    if not files:
        return {}
    state = _read_object(files[-1])
    stored = [one[0] if isinstance(one, list) and one else one for one in state.get("trial_data", [])]
    states = {}
    for text in [*stored, *state.get("checkpoints", [])]:
        trial = _load(text, files[-1]) if isinstance(text, str) else text
        if isinstance(trial, dict) and "trial_id" in trial:
            states[str(trial["trial_id"])] = str(trial.get("status", ""))
    return states


def _results(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """The results of a trial, and the number of lines that are damaged."""
    file = folder / RESULTS
    if not file.is_file():
        rows = read_rows(folder / PROGRESS) if (folder / PROGRESS).is_file() else []
        return [dict(zip(rows[0], row, strict=False)) for row in rows[1:]], 0
    results, lost = [], 0
    for line in _text(file).splitlines():
        try:
            result = json.loads(line)
        except (ValueError, RecursionError):
            lost += 1
            continue
        if isinstance(result, dict):
            results.append(flattened({name: value for name, value in result.items() if name != "config"}))
    return results, lost


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.inf if isinstance(value, int) else None


def _error(file: Path) -> str:
    """The last line of an error, which has its type and its text."""
    lines = [line.strip() for line in _text(file).splitlines() if line.strip()] if file.is_file() else []
    return lines[-1] if lines else ""


def _read_object(file: Path) -> dict[str, Any]:
    content = _load(_text(file), file)
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} in {file.parent.name} is not an object in JSON")
    return content


def _load(text: str, file: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} in {file.parent.name} is damaged: {error}") from None


def _text(file: Path) -> str:
    if file.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{file.name} in {file.parent.name} has more than {LARGEST_FILE >> 20} MiB")
    return file.read_text("utf-8", errors="replace")
