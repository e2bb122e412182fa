"""Writes what a study leaves when its trials have run: the exported model, the report and the static charts."""

from search.analysis.findings import Findings, analyse
from search.outputs import report_page, static_charts
from search.outputs.error_analysis import ErrorAnalysis, analyse_errors
from search.outputs.model_export import export_model
from search.record.file_names import PLOTS, REPORT
from search.record.folder import write_atomically
from search.record.ranking import best_trial
from search.record.study_record import StudyRecord
from search.settings import StudySettings
from training.config import DATASETS
from training.console.terminal import show_event
from training.images.image_data import ImageData, is_at_hand, load_data

NO_IMAGES = "there are no images"


def write_outputs(settings: StudySettings, record: StudyRecord, data: ImageData | str | None) -> Findings:
    """Export the best model and write the report; what cannot be written is printed.

    Args:
        settings: Of the study.
        record: The study.
        data: Its images, or why they are not at hand; None where a training function brought its own data.

    Returns:
        What was computed from the record.
    """
    findings = analyse(record)
    try:
        export_model(settings, record)
    except (ValueError, OSError) as error:
        show_event(f"the best model cannot be exported ({error}); search/report.py tries again")
    try:
        write_report(record, findings, data or NO_IMAGES)
    except OSError as error:
        show_event(f"the report cannot be written ({error.strerror}); search/report.py writes it later")
    return findings


def write_report(record: StudyRecord, findings: Findings, data: ImageData | str) -> None:
    """Write `report.html` and the static charts in `plots/`.

    Args:
        record: The study.
        findings: What was computed from the record.
        data: The study's images, which show the errors of the best model; or why there are none.

    Raises:
        OSError: They cannot be written.
    """
    page = report_page.render(record, findings, _error_analysis(record, data))
    write_atomically(record.folder / REPORT, page)
    plots = record.folder / PLOTS
    if plots.is_symlink():
        plots.unlink()  # a link in a folder that was sent leads nowhere
    plots.mkdir(exist_ok=True)
    if best_trial(record.trials):
        write_atomically(plots / "learning-curves.png", static_charts.learning_curves(record))
        write_atomically(plots / "history.png", static_charts.optimisation_history(record))
    if findings.compared and findings.importances:
        chart = static_charts.importance_bars(record, findings.compared, findings.importances)
        write_atomically(plots / "importance.png", chart)


def images_of(settings: StudySettings, record: StudyRecord) -> ImageData | str:
    """The images of a study as they lie in the data folder, or why they are of no use; nothing is downloaded."""
    name = record.metadata.task.name
    if settings.dataset in DATASETS and not is_at_hand(name, settings.data_dir):
        return f"{name} is not in the data folder"
    try:
        return same_images(settings, record)
    except (ValueError, OSError) as error:
        return str(error)


def same_images(settings: StudySettings, record: StudyRecord) -> ImageData:
    """The images of a study, loaded as it did.

    Raises:
        ValueError: They cannot be loaded, or are not what it was run on.
        OSError: They cannot be read.
    """
    data, _ = load_data(settings, settings.seed)
    if data.sha256 != record.metadata.images.sha256:
        raise ValueError(f"{data.name} in the data folder is not what the study was run on")
    return data


def _error_analysis(record: StudyRecord, data: ImageData | str) -> ErrorAnalysis | str:
    if isinstance(data, str):
        return data
    try:
        return analyse_errors(record, data)
    except ValueError as error:
        return str(error)
