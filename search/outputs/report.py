"""Writes the outputs of a study when its trials have run: the exported model, the report and the static charts."""

from search.analysis.findings import Findings, analyse
from search.outputs import report_page, static_charts
from search.outputs.error_analysis import ErrorAnalysis, analyse_errors
from search.outputs.model_export import export_model
from search.outputs.sampled_trials import drawn
from search.record.file_names import PLOTS, REPORT
from search.record.ranking import best_trial
from search.record.study_record import StudyRecord
from search.settings import StudySettings
from training.atomic_file import write_atomically
from training.config import DATASETS
from training.console.terminal import show_event
from training.images.image_data import ImageData, is_at_hand, load_data
from training.typed_command import command_name

NO_IMAGES = "there are no images"


def write_outputs(record: StudyRecord, data: ImageData | str | None) -> Findings:
    """Export the best model and write the report; a failure to write one of them is printed.

    Args:
        record: The study.
        data: Its images, or why they are not available; None where a training function brings its own data.

    Returns:
        The importances and the recommendations.
    """
    findings = analyse(record)
    command = command_name("search/report.py")
    try:
        export_model(record)
    except (ValueError, OSError) as error:
        show_event(f"the best model cannot be exported ({error}); {command} can try it again later")
    try:
        write_report(record, findings, data or NO_IMAGES)
    except OSError as error:
        show_event(f"the report cannot be written ({error.strerror}); {command} can write it later")
    return findings


def write_report(record: StudyRecord, findings: Findings, data: ImageData | str) -> None:
    """Write `report.html` and the static charts in `plots/`.

    Args:
        record: The study.
        findings: Its importances and recommendations.
        data: Its images, on which the errors of the best model are shown; or why there are no images.

    Raises:
        OSError: A file cannot be written.
    """
    page = report_page.render(record, findings, _error_analysis(record, data))
    write_atomically(record.folder / REPORT, page)
    plots = record.folder / PLOTS
    if plots.is_symlink():
        plots.unlink()  # a link in a folder that was sent leads nowhere
    plots.mkdir(exist_ok=True)
    if best_trial(record.trials):
        if record.metadata.has_curves:
            write_atomically(plots / "learning-curves.png", static_charts.learning_curves(drawn(record)))
        write_atomically(plots / "history.png", static_charts.optimisation_history(record))
    if findings.compared and findings.importances:
        chart = static_charts.importance_bars(record, findings.compared, findings.importances)
        write_atomically(plots / "importance.png", chart)


def images_of(settings: StudySettings, record: StudyRecord) -> ImageData | str:
    """Load the images of a study from the data folder, or say why they cannot be used; nothing is downloaded."""
    if record.metadata.dataset is None:
        return NO_IMAGES
    name = record.metadata.task.name
    if settings.dataset in DATASETS and not is_at_hand(name, settings.data_dir):
        return f"{name} is not in the data folder"
    try:
        return same_images(settings, record)
    except (ValueError, OSError) as error:
        return str(error)


def same_images(settings: StudySettings, record: StudyRecord) -> ImageData:
    """Load the images of a study again.

    Raises:
        ValueError: The images cannot be loaded, or are not those on which the study was run.
        OSError: A file cannot be read.
    """
    data, _ = load_data(settings, settings.seed)
    if data.sha256 != record.metadata.images.sha256:
        raise ValueError(f"the images of {data.name} are not those on which the study was run")
    return data


def _error_analysis(record: StudyRecord, data: ImageData | str) -> ErrorAnalysis | str:
    if isinstance(data, str):
        return data
    try:
        return analyse_errors(record, data)
    except ValueError as error:
        return str(error)
