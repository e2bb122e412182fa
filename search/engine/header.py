"""Builds the header of a study: what is searched, on which data, where it runs and where the results go."""

from collections.abc import Iterator

import torch

from search.engine.study import Study
from search.monitoring.terminal import header_line
from search.record.provenance import available_cpus
from search.record.ranking import ended_trials
from search.record.warm_start import describe_warm_start
from training.config import TrialConfig, is_passed_function
from training.console.terminal import counted, printable, short_path

_EFFECTS = {"none": "every trial runs in full", "promotion": "which pauses weak trials"}
"""What schedulers do that do not stop trials."""


def header_lines(study: Study) -> list[str]:
    """Build the lines that are shown before the first trial."""
    title = (
        f"Confirming study {plan.study}"
        if (plan := study.record.metadata.plan)
        else f"Study {study.record.folder.name}"
    )
    return [title, *(header_line(label, text) for label, text in _lines(study))]


def _lines(study: Study) -> Iterator[tuple[str, str]]:
    settings, record, data = study.settings, study.record, study.data
    if data:
        images = f"{len(data.train):,} training, {len(data.val):,} validation, {len(data.test):,} test images"
        yield "data", f"{data.name}: {images}"
    else:
        yield "training", record.metadata.task.description
    if settings.network != TrialConfig.network:
        yield "network", _describe_code(settings.network, "network")
    if plan := record.metadata.plan:
        trials = f"trial{'s' * (len(plan.trials) > 1)} {', '.join(map(str, plan.trials))}"
        seeds = f"from {len(plan.seeds)} new seeds each, then the winner from {len(plan.winner_seeds)} more"
        yield "retrain", f"{trials} {seeds}"
    else:
        extreme = "highest" if settings.direction == "max" else "lowest"
        limit = f" of {counted(settings.epochs, 'epoch')}" if settings.epochs else ""
        trials = f"{counted(settings.num_samples, 'trial')}{limit}"
        yield "search", f"{trials} for the {extreme} {settings.metric_name}, sampler {settings.sampler}"
    yield "scheduler", f"{settings.scheduler}, {_EFFECTS.get(settings.scheduler, 'which stops weak trials early')}"
    yield _machine(study)
    yield "results", str(short_path(record.folder))
    if record.checkpoints.store:
        yield "store", str(record.checkpoints.store)
    if record.address:
        yield "record", record.address
    if settings.log:
        yield "log", f"{', '.join(settings.log)}; docs/dashboards.md says how to view it"
    for running in study.machines.running_studies:
        taken = _joined([counted(running.cpus, "core"), *_share_of_gpus(running.gpus)])
        yield "also runs", f"{printable(running.study)}, on {taken} of this machine"
    for warm_start in record.metadata.warm_start:
        yield "warm start", describe_warm_start(warm_start)
    if record.trials:
        yield "resumed", f"{counted(len(ended_trials(record.trials)), 'ended trial')}; {_trials_left(study)}"


def _machine(study: Study) -> tuple[str, str]:
    """What the study runs on, and what each trial has of it."""
    settings = study.settings
    if study.machines.cluster:
        size = study.machines.cluster.size()
        machine, cpus, gpus, nodes = "cluster", size.cpus, size.gpus, f" on {counted(size.nodes, 'node')}"
    else:
        machine, cpus, gpus, nodes = "machine", available_cpus(), torch.cuda.device_count(), ""
    there = _joined([counted(cpus, "core"), *([counted(gpus, "GPU")] if gpus else [])])
    trials = f"{counted(study.machines.max_concurrent_trials, 'trial')} at a time"
    of_gpus = _share_of_gpus(settings.gpus_per_trial)
    needed = [counted(settings.cpus_per_trial, "core"), *of_gpus, *filter(None, [settings.memory_per_trial])]
    hint = f"; --gpus-per-trial shares out the GPU{'s' * (gpus > 1)}" if gpus and not of_gpus else ""
    return machine, f"{there}{nodes}; {trials}, {_joined(needed)} each{hint}"


def _share_of_gpus(gpus: float) -> list[str]:
    return [f"{gpus:g} GPU{'s' * (gpus > 1)}"] if gpus else []


def _joined(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _describe_code(path: str, kind: str) -> str:
    """The import path of code, or the name of what a Python program passed."""
    return f"{path.rpartition(':')[2]}, a {kind} of this program" if is_passed_function(path) else path


def _trials_left(study: Study) -> str:
    if study.trials_to_run <= 0:
        return "nothing to run" + ("; --num-samples +20 adds 20 trials" if study.record.metadata.plan is None else "")
    record = study.record
    interrupted = sum(
        trial.status == "interrupted" and record.checkpoints.is_there(trial.number) for trial in record.trials
    )
    continued = (
        f", {interrupted} of them continue{'s' * (interrupted == 1)} after the last epoch" if interrupted else ""
    )
    return f"{study.trials_to_run} to run{continued}"
