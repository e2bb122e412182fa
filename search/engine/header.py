"""The header of a study: what is searched, on which data, where it runs and where the results go."""

from search.engine.study import Study
from search.record.provenance import available_cpus
from search.record.ranking import ended_trials
from training.config import TrialConfig
from training.console.terminal import printable


def header_lines(study: Study) -> list[str]:
    """The lines that are shown before the first trial."""
    settings, record, data = study.settings, study.record, study.data
    plan, warm_start = record.metadata.plan, record.metadata.warm_start
    stops = settings.scheduler != "none"
    stopping = f"{settings.scheduler}, which ends weak trials early" if stops else "none: all epochs are run"
    lines = [
        f"Confirming study {plan.study}" if plan else f"Study {record.folder.name}",
        f"  data     {data.name}: {len(data.train):,} training, {len(data.val):,} validation, "
        f"{len(data.test):,} test images"
        if data
        else f"  training {record.metadata.task.train_function}",
    ]
    if settings.network != TrialConfig.network:
        lines.append(f"  network  {settings.network}")
    lines += [_trials_line(study), f"  stopping {stopping}", _place_line(study), f"  results  {record.folder}"]
    if record.address:
        lines.append(f"  record   {record.address}")
    if settings.log:
        lines.append(f"  log      {', '.join(settings.log)}; docs/dashboards.md says how to look at it")
    lines += [
        f"  beside   study {printable(running.study)}, which uses {running.cpus} cores"
        for running in study.running_studies
    ]
    if warm_start:
        lines.append(f"  warm     {warm_start.trials} of {warm_start.of} trials of study {warm_start.study} are known")
    if record.trials:
        lines.append(f"  resumed  {len(ended_trials(record.trials))} trials have ended; {_trials_left(study)}")
    return lines


def _trials_line(study: Study) -> str:
    settings, plan = study.settings, study.record.metadata.plan
    if plan:
        return (
            f"  again    trials {', '.join(map(str, plan.trials))} from {len(plan.seeds)} fresh seeds each, the best "
            f"from {len(plan.winner_seeds)} more"
        )
    direction = "highest" if settings.direction == "max" else "lowest"
    return (
        f"  search   {settings.num_samples} trials of {settings.epochs} epochs for the {direction} "
        f"{settings.metric_name}, proposed by {settings.sampler}"
    )


def _place_line(study: Study) -> str:
    place, cpus, nodes = "machine", available_cpus(), ""
    if study.cluster:
        size = study.cluster.size()
        place, cpus, nodes = "cluster", size.cpus, f", {size.nodes} node{'s' * (size.nodes > 1)}"
    return (
        f"  {place}  {study.max_concurrent_trials} at once, {study.settings.cpus_per_trial} of {cpus} cores each{nodes}"
    )


def _trials_left(study: Study) -> str:
    if study.trials_to_run <= 0:
        return "nothing to run" + ("; --num-samples +20 adds twenty" if study.record.metadata.plan is None else "")
    interrupted = sum(trial.status == "interrupted" for trial in study.record.trials)
    return f"{study.trials_to_run} to run" + (f", {interrupted} of them from their last epoch" if interrupted else "")
