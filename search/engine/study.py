"""Prepares and runs a study: from checked settings to a record, files and a summary."""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

import optuna

from search.algorithms.search_algorithm import NextRound, no_next_round
from search.algorithms.stopping import Ending
from search.analysis.findings import Findings, find
from search.engine import cluster
from search.engine.cluster import Cluster
from search.engine.concurrency import room_for_trials
from search.engine.local_ray import RaySession
from search.engine.running_studies import Neighbour, announced, find_neighbours
from search.engine.tuner import run_trials
from search.engine.write_retry import Patience
from search.monitoring import terminal
from search.monitoring.loggers import Loggers, check_packages
from search.monitoring.terminal import PlainView, View
from search.outputs.files import StudyFiles
from search.outputs.summary import show_summary
from search.record import folder as study_folder
from search.record import provenance
from search.record.database import FILE_NAME, RecordUnwritableError
from search.record.folder import StudyFolder
from search.record.lookup import find_study
from search.record.metadata import check_comparable, check_evidence, collect_facts
from search.record.postgresql import ServerStorage, open_server
from search.record.study_record import StudyRecord
from search.settings import StudySettings
from search.space.search_space import SearchSpace
from search.space.toml_file import space_in_force
from training.config import dataset_name, whereabouts
from training.console.progress_bar import progress_bar, shows_more_than_lines
from training.images import mnist
from training.images.image_data import ImageData, load_data
from training.networks.network_config import config_type
from training.networks.networks import build_network

OWN_NAME = "own"
"""What the name of a study begins with, in place of the data set, if a training function brings its own data."""
EXIT_OK, EXIT_NOTHING_COMPLETED = 0, 1
Begin = Callable[[StudyRecord], None]
"""Puts into a new record what the study begins with."""


@dataclass(frozen=True)
class Study:
    """A study that is ready to run: everything checked, data loaded, record open, folder locked."""

    settings: StudySettings
    space: SearchSpace
    data: ImageData | None
    """None where a training function brings its own."""
    record: StudyRecord
    folder: StudyFolder
    trials_at_once: int
    neighbours: list[Neighbour]
    """Other studies that this machine runs."""
    began: float
    """When the command did, by `time.monotonic`."""
    ray: RaySession
    """Ray on this machine, where the trials run if there is no cluster."""
    cluster: Cluster | None = None
    """Where the trials run, if not on this machine alone."""
    next_round: NextRound = no_next_round

    @property
    def trials_to_run(self) -> int:
        """Trials of the wanted total that have not ended yet."""
        return self.settings.num_samples - len(self.record.ended())


Conclude = Callable[[Study, Loggers, Ending], int]
"""What is done when the trials of a study have run; returns the exit status."""


def prepare_study(
    settings: StudySettings,
    space: SearchSpace | None = None,
    began: float | None = None,
    *,
    at_once: bool = False,
    begin: Begin | None = None,
    next_round: NextRound = no_next_round,
) -> Study:
    """Check what only the machine can tell, load the data, and make or take up the record, in this order.

    Args:
        settings: Of the study.
        space: What is searched; by default what the settings say.
        began: When the command began, by `time.monotonic`; None for now.
        at_once: Whether the study is going to be run at once: then Ray starts while the data are loaded.
        begin: What a new study begins with, if not with the starting points of its space or with evidence; may refuse.
        next_round: What enqueues more trials when those have ended.

    Raises:
        ValueError: The settings ask for more than there is, the data set is damaged or not that of the study, or
            another process runs the study; nothing was written.
        OSError: A folder cannot be read or written.
    """
    began = time.monotonic() if began is None else began
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # absolute, because the working folder changes for a moment while Ray starts
    settings = replace(settings, data_dir=settings.data_dir.absolute(), dataset=whereabouts(settings.dataset))
    check_packages(settings)
    joined = cluster.join(settings.address) if settings.address else None
    neighbours = [] if joined else find_neighbours()
    trials_at_once = room_for_trials(settings, joined, neighbours)
    existing = study_folder.check_writable(settings.results_dir)
    if joined:
        joined.check(existing)
    # what is in the way is told before the data are loaded
    server = open_server(settings.storage) if settings.storage is not None else None
    if settings.resume:
        _check_free(Path(settings.resume), server)
    evidence = _evidence(settings, server) if settings.warm_start else None
    if space is None and not settings.resume:
        space = space_in_force(settings, evidence.space if evidence and settings.fork else None)
    ray = RaySession(dashboard=settings.dashboard)
    name = _name_known(settings)
    if name and at_once and not joined:
        ray.job_name = name
        ray.begin()
    data, warning = _load(settings)
    ray.job_name = name = name or study_folder.new_name(settings, data.name if data else OWN_NAME)
    if at_once and not joined:
        with progress_bar("Starting Ray"):
            ray.wait()
    if warning:
        print(f"WARNING: {warning}\n", flush=True)
    if settings.resume:
        folder, record = _old_record(Path(settings.resume), settings, space, data, server, is_planned=begin is not None)
    else:
        assert space is not None, "only a resumed study has one already"
        facts = collect_facts(settings, space, data)
        if evidence:
            check_evidence(evidence.folder.name, evidence.facts, facts)
        folder = StudyFolder(_make_study(settings, name, space, facts, evidence=evidence, server=server, begin=begin))
        record = StudyRecord.open(folder.path, server)
    start = provenance.collect() | ({"cluster": joined.facts()} if joined else {})
    start |= {"trials_at_once": trials_at_once, "cpus_per_trial": settings.cpus_per_trial}
    record.set_facts({"starts": [*record.facts.get("starts", []), start]})
    return Study(
        settings, record.space, data, record, folder, trials_at_once, neighbours, began, ray, joined, next_round
    )


def _load(settings: StudySettings) -> tuple[ImageData | None, str | None]:
    """The images and a warning, after a look at whether the network can take them; no images for other trainings."""
    if settings.train_function is not None:
        return None, None
    data, warning = load_data(settings, settings.seed)
    build_network(config_type(settings.network)(network=settings.network), data.image_shape, len(data.classes))
    return data, warning


def report_study(study: Study, loggers: Loggers, ending: Ending) -> int:
    """Write the report of a study whose trials have run, and print its summary.

    Returns:
        The exit status.
    """
    settings, record = study.settings, study.record
    findings = find(record, study.space)
    _write_report(study, findings)
    loggers.close()
    show_summary(settings, record, study.space, findings)
    if study.trials_to_run > 0:
        terminal.show_early_end(ending.reason, record, settings, can_go_on=not ending.exhausted)
    completed = any(trial.status == "completed" for trial in record.trials)
    return ending.exit_status(EXIT_OK if completed else EXIT_NOTHING_COMPLETED)


def run_study(study: Study, conclude: Conclude = report_study) -> int:
    """Run the trials of a study that have not ended; write its files as they end and print what happens.

    Args:
        study: From `prepare_study`.
        conclude: What is done when the trials have run; Ctrl-C still ends it in order.

    Returns:
        The exit status: 0 if a trial completed, 1 if none did or every trial raised the same error, 128 and the signal
        after SIGINT or SIGTERM.
    """
    ending = Ending(study.settings.time_budget_seconds)
    with closing(study.ray):
        status = _run_and_conclude(study, ending, conclude)
        if study.settings.dashboard_linger and ending.signal is None and study.cluster is None:
            _linger(study.settings, study.ray.wait())
    return status


def _linger(settings: StudySettings, dashboard_url: str | None) -> None:
    """Keep Ray, and with it the dashboard, until the time is up or somebody presses Ctrl-C."""
    if dashboard_url is None:
        print("\nThere is no dashboard to keep open.")
        return
    print(
        f"\nThe dashboard stays at http://{dashboard_url} for {settings.dashboard_linger}; Ctrl-C ends it.", flush=True
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background begins deaf to it
    with suppress(KeyboardInterrupt):
        time.sleep(settings.dashboard_linger_seconds)


def _run_and_conclude(study: Study, ending: Ending, conclude: Conclude) -> int:
    record = study.record
    files, loggers = StudyFiles(record, study.space), Loggers(study.settings, record)
    with closing(study.folder), closing(record), closing(loggers), ending.on_signals():
        try:
            with _view(study) as view:
                _run_to_the_end(study, files, loggers, ending, view)
        except RecordUnwritableError as error:
            print(f"\nStopped: {error}. What was recorded before is safe.")
            return ending.exit_status(EXIT_NOTHING_COMPLETED)
        files.keep_up(at_once=True)
        return conclude(study, loggers, ending)


def _run_to_the_end(study: Study, files: StudyFiles, loggers: Loggers, ending: Ending, view: View) -> None:
    """Run the trials, and record how long that took."""
    record = study.record
    if record.address is None:
        study.folder.keep(record.folder / FILE_NAME)
    record.be_patient(Patience(study.folder, ending))
    files.keep_up(at_once=True)
    if record.plan is None:
        _point_latest_to(record.folder)
    if study.trials_to_run > 0:
        _run_trials(study, files, loggers, ending, view)
    record.interrupt_running()
    *earlier, this = record.facts["starts"]
    seconds = round(time.monotonic() - study.began, 3)
    record.set_facts({"starts": [*earlier, this | {"seconds": seconds}]})


def _import_report() -> None:
    """Import what the report needs: seconds, which nobody notices while the trials train."""
    import sklearn.ensemble  # noqa: F401

    import search.outputs.model_export
    import search.outputs.report  # noqa: F401


def _write_report(study: Study, findings: Findings) -> None:
    from search.outputs.model_export import ship
    from search.outputs.report import write_report

    try:
        ship(study.settings, study.record)
    except (ValueError, OSError) as error:
        terminal.show_event(f"the best model cannot be shipped ({error}); search/report.py tries again")
    try:
        write_report(study.record, study.space, findings, study.data or "there are no images")
    except OSError as error:
        terminal.show_event(f"the report cannot be written ({error.strerror}); search/report.py makes it later")


def _point_latest_to(folder: Path) -> None:
    try:
        study_folder.point_latest_to(folder)
    except OSError as error:
        terminal.show_event(f"results/latest does not point to this study ({error.strerror})")


def _check_free(path: Path, server: ServerStorage | None) -> None:
    """Refuse a study that another process runs, here or on any machine that uses the same server."""
    if server:
        server.lock(path.name)
    study_folder.check_free(path)


def _evidence(settings: StudySettings, server: ServerStorage | None) -> StudyRecord:
    """The earlier study to learn from, from its folder's `study.db` or else from the server."""
    folder = find_study(str(settings.warm_start), settings.results_dir, settings.storage)
    return StudyRecord.open(folder, None if (folder / FILE_NAME).exists() else server)


def _name_known(settings: StudySettings) -> str | None:
    """The name of the study; None if it depends on whether the default data set can be had."""
    if settings.resume:
        return Path(settings.resume).name
    if settings.train_function is not None:
        return study_folder.new_name(settings, OWN_NAME)
    if settings.name is None and settings.dataset == "auto":
        present = mnist.is_present("fashion-mnist", settings.data_dir)
        return study_folder.new_name(settings, "fashion-mnist") if present else None
    return study_folder.new_name(settings, dataset_name(settings.dataset))


def _make_study(
    settings: StudySettings,
    name: str,
    space: SearchSpace,
    facts: dict[str, Any],
    *,
    evidence: StudyRecord | None,
    server: ServerStorage | None,
    begin: Begin | None,
) -> Path:
    """Make the folder of a new study with a record in it, or on the server; returns the folder."""

    def fill(record: StudyRecord) -> None:
        if evidence:
            taken = record.take_evidence(evidence, space)
            record.set_facts({"evidence": {"study": evidence.folder.name, "trials": taken, "of": len(evidence.trials)}})
        if settings.baseline:
            record.enqueue_starting_points(space, most=1 if evidence else settings.num_samples)

    def make(folder: Path, name: str) -> None:
        StudyRecord.create(folder, settings.direction, facts, name=name, server=server, fill=begin or fill).close()

    return study_folder.make_folder(settings, name, make, server)


def _old_record(
    path: Path,
    settings: StudySettings,
    space: SearchSpace | None,
    data: ImageData | None,
    server: ServerStorage | None,
    *,
    is_planned: bool,
) -> tuple[StudyFolder, StudyRecord]:
    """The folder and the record of a study that goes on; one that cannot stays as it is."""
    old = StudyRecord.open(path, server)
    if old.plan and not is_planned:
        raise ValueError(
            f"{path} belongs to study {old.plan.study}; to go on: python search/confirm.py {old.plan.study}"
        )
    new = collect_facts(settings, space or space_in_force(settings, old.space), data)
    check_comparable(path.name, old.facts, new)
    if server:
        path.mkdir(parents=True, exist_ok=True)  # its record is elsewhere
    folder = StudyFolder(path)
    record = StudyRecord.open(path, server)  # again: another process may have gone on with it until now
    record.take_up()
    record.set_facts(new)
    return folder, record


def _view(study: Study) -> View:
    """A live view if somebody looks at a terminal that can show one."""
    if study.settings.quiet or not shows_more_than_lines():
        return PlainView(study)
    from search.monitoring.live_view import LiveView  # rich: a fifth of a second

    return LiveView(study)


def _run_trials(study: Study, files: StudyFiles, loggers: Loggers, ending: Ending, view: View) -> None:
    settings = study.settings
    with ExitStack() as stack:
        cpus_taken = min(study.trials_at_once * settings.cpus_per_trial, provenance.available_cpus())
        stack.enter_context(announced(study.record.folder.name, cpus_taken))
        if study.cluster:
            stack.callback(study.cluster.leave)
            dashboard_url = study.cluster.dashboard_url
        else:
            dashboard_url = study.ray.wait()
            if not settings.dashboard_linger:
                stack.callback(study.ray.close)  # at once: it would go on to tell what became of workers
        ending.handle_signals()
        if settings.dashboard:
            view.show_dashboard(dashboard_url)
        Thread(target=_import_report, daemon=True).start()
        run_trials(study, files, loggers, ending, view)
