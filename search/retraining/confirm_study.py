"""Confirms a study: trains its best configurations again from fresh seeds, and the winner on all training images."""

import itertools
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from search.algorithms.stopping import Ending
from search.analysis.findings import find
from search.engine.study import EXIT_NOTHING_COMPLETED, Study, prepare_study, run_study
from search.monitoring import terminal
from search.monitoring.loggers import Loggers
from search.outputs.confirmation_text import show_confirmation
from search.outputs.files import StudyFiles
from search.outputs.model_export import ship
from search.outputs.report import images_of, write_report
from search.record import folder as study_folder
from search.record.confirmation import (
    FEWEST_SEEDS,
    Configuration,
    Confirmation,
    Final,
    Plan,
    measure,
    measure_again,
    rank,
)
from search.record.database import FILE_NAME, RecordUnwritableError
from search.record.folder import StudyFolder
from search.record.lookup import stored_settings
from search.record.postgresql import open_server
from search.record.study_record import StudyRecord
from search.retraining.final_training import keep_weights_only, train_final
from search.settings import StudySettings, check_size
from search.space.search_space import Point, SearchSpace, parse
from training.config import MAX_SEED, DataConfig
from training.images.image_data import ImageData, load_data
from training.loop import EpochMetrics, TrainingDivergedError

FOLDER = "confirm"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What one start of a confirmation is asked for; what is None is as in the study."""

    top: int
    seeds: int
    command: str
    """That goes on with it."""
    data_dir: Path | None = None
    storage: str | None = None
    address: str | None = None
    max_concurrent: int | None = None
    time_budget: str | None = None
    quiet: bool = False
    dashboard: bool = True

    def __post_init__(self) -> None:
        """Check the size."""
        check_size(self.top, self.seeds)


@dataclass(frozen=True)
class Confirming:
    """A confirmation that is ready to run: the study is locked, and nothing speaks against it."""

    parent: StudyRecord
    space: SearchSpace
    lock: StudyFolder
    settings: StudySettings
    """Of the study."""
    wanted: Wanted
    study: Study | None
    """The trainings from fresh seeds; None if all is done."""


def fresh_seeds(record: StudyRecord, number: int) -> list[int]:
    """Seeds that no trial of a study has, counted on from the largest that one has."""
    used = {trial.seed for trial in record.trials}
    after = max(used, default=-1) + 1
    unused = (seed for seed in itertools.chain(range(after, MAX_SEED + 1), range(after)) if seed not in used)
    return [*itertools.islice(unused, number)]


def prepare(folder: Path, wanted: Wanted, began: float) -> Confirming:
    """Check the study, lock it, and make or take up the record of its confirmation.

    Raises:
        ValueError: There is nothing to confirm, the study runs or has gone on, or the images are not those of it.
        OSError: A folder cannot be read or written.
    """
    server = open_server(wanted.storage) if wanted.storage is not None else None
    if server:
        server.lock(folder.name)
    study_folder.check_free(folder)
    settings = stored_settings(folder, wanted.storage)
    if wanted.data_dir is not None:
        settings = replace(settings, data_dir=wanted.data_dir)
    plan = _plan(StudyRecord.open(folder, server), wanted)
    begun = folder / FOLDER
    has_begun = (begun / FILE_NAME).exists()
    if has_begun:
        _check_same(StudyRecord.open(begun), plan, begun)
    folder.mkdir(parents=True, exist_ok=True)  # its record may be elsewhere
    lock = StudyFolder(folder)
    parent = StudyRecord.open(folder, server)  # again: another process may have gone on with it until now
    space = parse(parent.facts["space"])
    if has_begun and "final" in StudyRecord.open(begun).facts:
        return Confirming(parent, space, lock, settings, wanted, None)
    of_trainings = _settings(settings, folder, plan, wanted, has_begun=has_begun)
    ended = len(StudyRecord.open(begun).ended()) if has_begun else 0
    study = prepare_study(
        of_trainings,
        space,
        began,
        at_once=ended < of_trainings.num_samples,
        begin=lambda record: _begin(record, parent, plan),
        next_round=lambda record: _measure_winner(record, parent),
    )
    return Confirming(parent, space, lock, settings, wanted, study)


def confirm(confirming: Confirming) -> int:
    """Run what is left of a confirmation, write its result into the study and print it.

    Returns:
        The exit status: 0 with a result, 1 without, 128 and the signal after SIGINT or SIGTERM.
    """
    with closing(confirming.lock), closing(confirming.parent):
        if confirming.study is None:
            return _publish(confirming, StudyRecord.open(confirming.parent.folder / FOLDER), None)

        def conclude(study: Study, loggers: Loggers, ending: Ending) -> int:  # noqa: ARG001
            return _conclude(confirming, study, ending)

        return run_study(confirming.study, conclude)


def _plan(record: StudyRecord, wanted: Wanted) -> Plan:
    name = record.folder.name
    if record.plan:
        raise ValueError(f"{record.folder} is what confirms study {record.plan.study}, which is the study to name")
    if not record.facts["dataset"]["validation_images"]:
        raise ValueError(
            f"study {name} has no validation images (val_fraction 0): a winner chosen by the test images cannot be "
            "confirmed on them without bias; run the study with a val_fraction above 0"
        )
    chosen = record.best_configurations(wanted.top)
    if not chosen:
        raise ValueError(f"study {name} has nothing to confirm: none of its trials measured anything that stands")
    *seeds, final_seed = fresh_seeds(record, 2 * wanted.seeds + 1)
    return Plan(
        study=name,
        top=wanted.top,
        trials=[trial.number for trial in chosen],
        values=[record.best_value(trial) for trial in chosen],
        seeds=seeds[: wanted.seeds],
        winner_seeds=seeds[wanted.seeds :],
        final_seed=final_seed,
    )


def _check_same(begun: StudyRecord, plan: Plan, folder: Path) -> None:
    """Refuse to go on with a confirmation of other configurations, or of another size."""
    if begun.plan is None:
        raise ValueError(f"{folder} is in the way: it holds a study that confirms nothing")
    before = begun.plan
    if (before.top, len(before.seeds)) != (plan.top, len(plan.seeds)):
        raise ValueError(
            f"study {plan.study} is confirmed with --top {before.top} --seeds {len(before.seeds)}, and to change that "
            f"after a look at the numbers would bias them; to begin anew remove {folder}"
        )
    if before.trials != plan.trials:
        raise ValueError(
            f"study {plan.study} has gone on since: its best trials are {_listed(plan.trials)} now, and not "
            f"{_listed(before.trials)}; to confirm these remove {folder}"
        )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _settings(study: StudySettings, folder: Path, plan: Plan, wanted: Wanted, *, has_begun: bool) -> StudySettings:
    """The settings of the trainings: those of the study, but that no scheduler stops any."""
    settings = stored_settings(folder / FOLDER) if has_begun else study
    if not has_begun:
        settings = replace(
            settings,
            num_samples=plan.all_trainings,
            scheduler="none",
            baseline=False,
            name=FOLDER,
            results_dir=folder,
            resume=None,
        )
    return replace(
        settings,
        data_dir=study.data_dir,
        address=wanted.address,
        max_concurrent=wanted.max_concurrent or settings.max_concurrent,
        time_budget=wanted.time_budget,
        quiet=wanted.quiet,
        dashboard=wanted.dashboard,
    )


def _begin(record: StudyRecord, parent: StudyRecord, plan: Plan) -> None:
    """Enqueue the trainings that choose, seed by seed: at any time all configurations are as far as each other."""
    if record.facts["dataset"]["sha256"] != parent.facts["dataset"]["sha256"]:
        raise ValueError(f"study {plan.study} was run on other data than {record.facts['dataset']['name']} here")
    if parent.facts.get("code", record.facts["code"]) != record.facts["code"]:
        terminal.show_event("the training code has changed since the study, and with it may be what optimism says")
    record.set_facts({"plan": asdict(plan)})
    by_number = {trial.number: trial for trial in parent.trials}
    for seed, number in itertools.product(plan.seeds, plan.trials):
        record.enqueue(by_number[number].hyperparameters, seed)


def _measure_winner(record: StudyRecord, parent: StudyRecord) -> bool:
    """Enqueue the trainings that measure the winner, when those that choose it have ended; False if there are none."""
    winner, *_ = _ranked(record, parent)
    if "winner" in record.facts or not winner.is_measured:
        return False

    def enqueue() -> None:
        record.set_facts({"winner": winner.trial})
        for seed in _plan_of(record).winner_seeds:
            record.enqueue(winner.hyperparameters, seed)

    record.change(enqueue)
    return True


def _conclude(confirming: Confirming, study: Study, ending: Ending) -> int:
    """Train the winner on all images and publish the result, when all trainings have run."""
    try:
        finished = _finish(study, confirming.parent, ending)
    except (TrainingDivergedError, ValueError) as error:
        print(f"\nThere is no result: {error}.")
        return ending.exit_status(EXIT_NOTHING_COMPLETED)
    if not finished:
        print(f"\n{ending.reason} To go on: {confirming.wanted.command}", flush=True)
        return ending.exit_status(EXIT_NOTHING_COMPLETED)
    return ending.exit_status(_publish(confirming, study.record, study.data))


def _finish(study: Study, parent: StudyRecord, ending: Ending) -> bool:
    """Have a winner that was measured, and trained on all images; False if it ended early.

    Raises:
        TrainingDivergedError: A loss of the training on all images is not finite.
        ValueError: Too few trainings completed, or the network cannot be built any more.
    """
    record = study.record
    if len(record.ended()) < _plan_of(record).choosing:
        return False
    winner, *_ = _ranked(record, parent)
    enough = f"completed its training from {FEWEST_SEEDS} seeds or more"
    errors = "; ".join(dict.fromkeys(trial.failure.error for trial in record.trials if trial.failure))
    if not winner.is_measured:
        raise ValueError(f"no configuration {enough} ({errors})")
    if study.trials_to_run > 0:
        return False
    if not _confirmed(record, winner).is_measured:
        raise ValueError(f"the winner, trial {winner.trial}, has not {enough}, of those that chose nothing ({errors})")
    if "final" not in record.facts:
        final = _train_winner(study, parent, winner, ending)
        if final is None:
            return False
        record.set_facts({"final": asdict(final)})
    return True


def _train_winner(study: Study, parent: StudyRecord, winner: Configuration, ending: Ending) -> Final | None:
    """Train the winner on the training and the validation images, in this process; None if it ended early."""
    settings, plan = study.settings, _plan_of(study.record)
    whole = {field.name: getattr(settings, field.name) for field in fields(DataConfig)} | {"val_fraction": 0.0}
    data, _ = load_data(DataConfig(**whole), settings.seed)
    print(
        f"\nThe winner is trial {winner.trial}; it is trained on all {len(data.train):,} training images for "
        f"{winner.epochs} epochs, from seed {plan.final_seed}.",
        flush=True,
    )
    torch.set_num_threads(settings.cpus_per_trial)
    (trial,) = (trial for trial in parent.trials if trial.number == winner.trial)
    config = replace(parent.config(trial), seed=plan.final_seed)
    data = data.to("cuda" if settings.gpus_per_trial else "cpu")
    return train_final(study.record, winner.trial, config, data, ending, epochs=winner.epochs)


def _ranked(record: StudyRecord, parent: StudyRecord) -> list[Configuration]:
    """What each configuration measured in the trainings that choose, the winner first."""
    plan = _plan_of(record)
    by_number = {trial.number: trial for trial in parent.trials}
    configurations = []
    for number, value in zip(plan.trials, plan.values, strict=True):
        hyperparameters = by_number[number].hyperparameters
        trainings = _trainings(record, hyperparameters, plan.seeds)
        configurations.append(measure(number, hyperparameters, value, trainings, record.metric))
    return rank(configurations)


def _confirmed(record: StudyRecord, winner: Configuration) -> Configuration:
    """What the winner measured in the trainings that chose nothing."""
    return measure_again(winner, _trainings(record, winner.hyperparameters, _plan_of(record).winner_seeds))


def _trainings(record: StudyRecord, hyperparameters: Point, seeds: list[int]) -> dict[int, list[EpochMetrics] | None]:
    """Of one configuration, by seed; None of one that did not complete."""
    return {
        trial.seed: trial.epochs if trial.status == "completed" else None
        for trial in record.trials
        if trial.hyperparameters == hyperparameters and trial.seed in seeds
    }


def _plan_of(record: StudyRecord) -> Plan:
    assert record.plan is not None, "what confirms a study has one"
    return record.plan


def _publish(confirming: Confirming, record: StudyRecord, data: ImageData | None) -> int:
    """Write the result into the study's record, files and report, and print it; as often as one likes."""
    parent, space = confirming.parent, confirming.space
    keep_weights_only(record)
    ranked = _ranked(record, parent)
    final = Final(**record.facts["final"])
    confirmation = Confirmation(configurations=ranked, confirmed=_confirmed(record, ranked[0]), final=final)
    try:
        parent.set_facts({"confirm": confirmation.plain()})
    except RecordUnwritableError as error:
        print(f"\nStopped: {error}. The same command goes on.")
        return EXIT_NOTHING_COMPLETED
    StudyFiles(parent, space).keep_up(at_once=True)
    try:
        ship(confirming.settings, parent)
    except (ValueError, OSError) as error:
        terminal.show_event(f"the confirmed model cannot be shipped ({error}); search/report.py tries again")
    try:
        images = images_of(confirming.settings, parent) if data is None else data
        write_report(parent, space, find(parent, space), images)
    except OSError as error:
        terminal.show_event(f"the report cannot be written ({error.strerror}); search/report.py makes it later")
    show_confirmation(parent)
    print(f"Report: {terminal.as_typed(parent.folder / 'report.html')}")
    return 0
