"""Writes the report of a study and its pictures from the record."""

from search.analysis.findings import Findings
from search.outputs import report_page, static_charts
from search.outputs.error_analysis import BestModel, examine_best
from search.outputs.files import write_atomically
from search.record.study_record import StudyRecord
from search.settings import StudySettings
from search.space.search_space import SearchSpace
from training.config import DATASETS
from training.images.image_data import ImageData, is_at_hand, load_data


def write_report(record: StudyRecord, space: SearchSpace, findings: Findings, data: ImageData | str) -> None:
    """Write `report.html` and the pictures in `plots/`.

    Args:
        record: The study.
        space: What was searched.
        findings: What was computed from the record.
        data: The study's images, which show what the best model mistakes; or why there are none.

    Raises:
        OSError: They cannot be written.
    """
    page = report_page.render(record, space, findings, _examine(record, data))
    write_atomically(record.folder / report_page.FILE_NAME, page)
    plots = record.folder / "plots"
    if plots.is_symlink():
        plots.unlink()  # a link in a folder that was sent leads nowhere
    plots.mkdir(exist_ok=True)
    if record.best():
        write_atomically(plots / "learning-curves.png", static_charts.learning_curves(record))
        write_atomically(plots / "history.png", static_charts.optimisation_history(record))
    if findings.compared and findings.importances:
        picture = static_charts.importance_bars(record, findings.compared, findings.importances)
        write_atomically(plots / "importance.png", picture)


def images_of(settings: StudySettings, record: StudyRecord) -> ImageData | str:
    """The images of a study as they lie in the data folder, or why they are of no use; nothing is downloaded."""
    name = record.facts["dataset"]["name"]
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
    if data.sha256 != record.facts["dataset"]["sha256"]:
        raise ValueError(f"{data.name} in the data folder is not what the study was run on")
    return data


def _examine(record: StudyRecord, data: ImageData | str) -> BestModel | str:
    if isinstance(data, str):
        return data
    try:
        return examine_best(record, data)
    except ValueError as error:
        return str(error)
