"""The report: every part of it, from real records; a browser looks at it in test_dashboards.py."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects
import pytest
from optuna.distributions import IntDistribution
from PIL import Image
from serial_ray import run_command
from studies import SESSION, HandDrivenStudy, planted_study, reported
from test_recommendations import hill, rises_to

from search.analysis.equal_budget import equal_budget
from search.analysis.findings import analyse
from search.outputs import report_page, space_charts, trial_charts
from search.outputs.chart_layout import hyperparameter_axis, round_ticks
from search.outputs.error_analysis import ErrorAnalysis, analyse_errors
from search.outputs.report import images_of, write_report
from search.record.ranking import best_trial
from search.record.study_record import StudyRecord
from search.record.trial import Failure
from search.settings import StudySettings
from training.checkpoint import Checkpoint, best_files
from training.config import PROJECT
from training.images.image_data import ImageData
from training.loop import train
from training.metrics import accuracy_interval

REFERENCE = PROJECT / "results" / "fashion-mnist-reference"
TITLES = [
    "Certainty of the best trial",
    "Recommendations",
    "Learning curves",
    "Optimisation history",
    "Parallel coordinates",
    "One hyperparameter at a time",
    "Learning rate and batch size",
    "Hyperparameter importance",
    "Workers",
    "Time",
    "Errors of the best model",
    "All trials",
    "Provenance",
]


def page_of(record: StudyRecord, errors: ErrorAnalysis | str = "no images") -> str:
    return report_page.render(record, analyse(record), errors)


def without_plotly(page: str) -> str:
    """The page without the library, which is four fifths of it."""
    return re.sub(r'<script nonce="[^"]*">/\*\*.*?</script>', "", page, count=1, flags=re.DOTALL)


def figures_of(page: str) -> list[list[dict[str, Any]]]:
    (data,) = re.findall(r'id="figures">(.*?)</script>', page)
    figures: list[list[dict[str, Any]]] = json.loads(data)
    return figures


@pytest.fixture(scope="module")
def reference_page() -> str:
    return page_of(StudyRecord.open(REFERENCE))


def test_reference_study_has_all_parts_in_order(reference_page: str) -> None:
    found = re.findall(r"<h2>(.*?)</h2>", reference_page)
    assert [title for title in found if title != "Exported model"] == TITLES  # its model is not kept in git


def test_headline_agrees_with_the_tables(reference_page: str) -> None:
    record = StudyRecord.open(REFERENCE)
    best = best_trial(record.trials)
    assert best is not None
    metrics = best.best_epoch
    assert metrics is not None
    text = re.sub(r"<[^>]+>", " ", without_plotly(reference_page).partition("</header>")[0])
    assert f"val_accuracy {metrics.val_accuracy:.4f}" in re.sub(r"\s+", " ", text)
    low, high = accuracy_interval(metrics.test_accuracy, 10_000)
    card = f"test_accuracy {metrics.test_accuracy:.4f} 95 % interval {low:.4f} to {high:.4f}, 10,000 images"
    assert card in re.sub(r"\s+", " ", text)


def test_accuracy_of_one_has_an_interval_too(tmp_path: Path) -> None:
    """On 359 images that are all right, and on 240 validation images, of which one is wrong in another trial."""
    accuracies = iter([1.0, 239 / 240, 200 / 240])
    record = planted_study(tmp_path, lambda _: [next(accuracies)], trials=3, epochs=1)
    record.trials[0].epochs[0] = record.trials[0].best_epoch = replace(record.trials[0].epochs[0], test_accuracy=1.0)
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", without_plotly(page_of(record))))
    assert "test_accuracy 1.0000 95 % interval 0.9894 to 1.0000, 359 images" in page
    assert "2 trials (0, 1; val_accuracy 0.9958 to 1.0000) are not significantly different" in page


def test_plotly_knows_every_attribute_of_every_chart(reference_page: str) -> None:
    figures = [figure for of_section in figures_of(reference_page) for figure in of_section]
    assert len(figures) == 12
    for figure in figures:
        plotly.graph_objects.Figure(figure)  # refuses attributes that there are not


def test_page_needs_nothing_from_outside(reference_page: str) -> None:
    class Links(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    Links().feed(without_plotly(reference_page))
    assert [link for link in Links.found if not link.startswith("data:image/png;base64,")] == []
    assert "default-src 'none'" in reference_page


def test_everything_that_a_user_or_an_error_named_is_escaped(tmp_path: Path) -> None:
    record = planted_study(tmp_path / "<img src=x onerror=alert(1)>", lambda point: rises_to(hill(point)))
    evil = "</script><script>alert(2)</script>"
    machine = replace(SESSION.machine, processor=evil)
    session = replace(SESSION, command=f"search/run.py --name '{evil}'", versions={"python": evil}, machine=machine)
    record.metadata = replace(record.metadata, sessions=[session])
    record.trials[3].failure = Failure("exception", evil)
    page = without_plotly(page_of(record))
    assert "<img src=x" not in page
    assert "alert(2)</script>" not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(2)" in page


@pytest.mark.parametrize(
    ("full", "stopped", "told"),
    [
        (12, 0, "at least 20 trials must run in full, and 12 did."),
        (12, 13, "The scheduler stopped 13 of 25 trials early because of their values, so it is not known which"),
        (20, 0, "batch_size: the trials do not show whether it can stay fixed."),
    ],
)
def test_report_says_why_nothing_is_known_to_stay_fixed(tmp_path: Path, full: int, stopped: int, told: str) -> None:
    numbers, random = iter(range(full + stopped)), np.random.default_rng(0)

    def curve(_: dict[str, Any]) -> list[float]:
        return [0.7 + float(random.normal(0, 0.03))] * (10 if next(numbers) < full else 2)

    assert told in page_of(planted_study(tmp_path, curve, trials=full + stopped))


def test_thousand_trials_stay_small(tmp_path: Path) -> None:
    record = planted_study(tmp_path, lambda point: rises_to(hill(point)), trials=1000)
    page = page_of(record)
    assert len(page.encode()) < 15e6
    assert max(len(figure["data"]) for of_section in figures_of(page) for figure in of_section) <= 10


def test_study_of_every_kind_of_end_is_reported(tmp_path: Path) -> None:
    study = HandDrivenStudy(tmp_path)
    study.run_one_of_each()
    page = without_plotly(page_of(study.record))
    assert "<h2>Failures</h2>" in page
    assert "ValueError: boom" in page
    assert "1 interrupted trial can continue" in page
    for figure in (figure for of_section in figures_of(page) for figure in of_section):
        plotly.graph_objects.Figure(figure)


def test_study_that_measured_nothing_is_reported(tmp_path: Path) -> None:
    page = without_plotly(page_of(HandDrivenStudy(tmp_path).record))
    assert "no trial has valid metrics" in page


def trained_study(folder: Path, data: ImageData, epochs: int = 3, network: str = "mlp") -> StudyRecord:
    """A study of one trial whose model was kept."""
    record = planted_study(folder, lambda _: rises_to(0.5), trials=1, epochs=epochs)
    record.metadata = replace(record.metadata, settings=replace(record.metadata.settings, network=network))
    (trial,) = record.trials
    trial.epochs, trial.best_epoch = [], None
    trial.hyperparameters = {"learning_rate": 0.01, "batch_size": 32, "optimizer": "adam"}
    checkpoint = Checkpoint(record.checkpoints.file(trial.number))
    training = train(record.metadata.trial_config(trial), data, checkpoint)
    for metrics in reported(training, checkpoint, record.objective):
        trial.add_epoch(metrics, None)
    return record


def test_best_model_is_the_one_that_was_measured(tmp_path: Path, digits: ImageData) -> None:
    record = trained_study(tmp_path, digits)
    model = analyse_errors(record, digits)
    best = record.trials[0].best_epoch
    assert best is not None
    right = sum(line[row] for row, line in enumerate(model.confusion))
    assert sum(map(sum, model.confusion)) == len(digits.test)
    assert right / len(digits.test) == pytest.approx(best.test_accuracy)
    assert [sum(line) for line in model.confusion] == digits.test.labels.bincount().tolist()
    probabilities = [image.probability for image in model.wrong_images]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(image.true_class != image.predicted_class for image in model.wrong_images)
    page = without_plotly(page_of(record, model))
    assert page.count("data:image/png;base64,") == len(model.wrong_images) > 0


def test_model_that_is_not_the_measured_one_is_not_shown(tmp_path: Path, digits: ImageData) -> None:
    record = trained_study(tmp_path, digits)
    (trial,) = record.trials
    best = trial.epochs.index(trial.best_epoch)
    trial.epochs[best] = trial.best_epoch = replace(trial.epochs[best], test_accuracy=0.999)
    with pytest.raises(ValueError, match=r"have test_accuracy 0\.\d{4}, but the study measured 0\.9990"):
        analyse_errors(record, digits)


def test_damaged_or_missing_model_is_told(tmp_path: Path, digits: ImageData) -> None:
    record = trained_study(tmp_path, digits)
    (file,) = best_files(record.checkpoints.file(record.trials[0].number))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged"):
        analyse_errors(record, digits)
    file.unlink()
    with pytest.raises(ValueError, match="are missing"):
        analyse_errors(record, digits)


@pytest.mark.usefixtures("drawn_charts")
def test_pictures_are_written(tmp_path: Path) -> None:
    record = planted_study(tmp_path, lambda point: rises_to(hill(point)))
    write_report(record, analyse(record), "no images")
    pictures = sorted((tmp_path / "plots").iterdir())
    assert [file.name for file in pictures] == ["history.png", "importance.png", "learning-curves.png"]
    for file in pictures:
        with Image.open(file) as picture:
            assert picture.size == (1080, 600)


def test_axis_of_whole_numbers_has_no_other_ticks() -> None:
    assert hyperparameter_axis("layers", IntDistribution(1, 3))["tickvals"] == [1, 2, 3]
    assert hyperparameter_axis("units", IntDistribution(10, 100))["tickvals"] == [50, 100]


@pytest.mark.parametrize(
    ("low", "high", "log", "ticks"),
    [
        (1e-4, 1.0, True, [1e-4, 1e-3, 1e-2, 0.1, 1.0]),
        (2e-3, 5e-3, True, [2e-3, 5e-3]),
        (8, 64, False, [20, 40, 60]),
        (0.0, 0.5, False, [0.0, 0.2, 0.4]),
        (0.69, 2.3, False, [1.0, 1.5, 2.0]),
        (0.3, 0.3, False, [0.3, 0.3]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, log: bool, ticks: list[float]) -> None:
    assert round_ticks(low, high, log=log) == ticks


def test_accuracies_of_the_table_have_four_decimals(reference_page: str) -> None:
    table = reference_page.partition('<table id="trials">')[2].partition("</table>")[0]
    assert re.findall(r">(0\.8\d*)</td>", table)
    assert {len(accuracy) for accuracy in re.findall(r">(0\.8\d*)</td>", table)} == {6}


def test_link_in_the_place_of_the_pictures_leads_nowhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "plots").symlink_to(elsewhere)
    record = planted_study(folder, lambda point: rises_to(hill(point)))
    write_report(record, analyse(record), "no images")
    assert list(elsewhere.iterdir()) == []


def test_running_study_is_reported_too(tmp_path: Path) -> None:
    """The process that runs it keeps its lock; the report is written beside it."""
    folder = tmp_path / "study"
    folder.mkdir()
    study = HandDrivenStudy(folder)
    study.run_trial(0.5, 0.6, 0.6)
    study.suggest("running")
    holder = "import sys, time; from search.record.folder import StudyFolder; from pathlib import Path; "
    holder += "f = StudyFolder(Path(sys.argv[1])); print('locked', flush=True); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", holder, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        done = run_command("search/report.py", "study", "--results-dir", str(tmp_path))
        process.kill()
    assert done.status == 0, done.stderr
    assert "The files of the study are not written again: study study is being run by process" in done.stdout
    assert "1 interrupted trial can continue" in (folder / "report.html").read_text()


def test_images_are_those_of_the_study_or_none(tmp_path: Path, digits: ImageData) -> None:
    record = planted_study(tmp_path, lambda point: rises_to(hill(point)), trials=1)
    settings = StudySettings(dataset="digits")
    assert images_of(settings, record) == "the images of digits are not those on which the study was run"
    record.metadata = replace(record.metadata, dataset=replace(record.metadata.images, sha256=digits.sha256))
    assert isinstance(images_of(settings, record), ImageData)
    record.metadata = replace(record.metadata, dataset=replace(record.metadata.images, name="kmnist"))
    assert images_of(replace(settings, data_dir=tmp_path), record) == "kmnist is not in the data folder"


def test_failed_trials_are_in_the_history_and_the_slices_and_contours_share_their_axes(tmp_path: Path) -> None:
    study = HandDrivenStudy(tmp_path)
    study.run_one_of_each()
    names = {trace["name"]: trace["x"] for trace in trial_charts.optimisation_history(study.record)["data"]}
    assert names["diverged"] == [3]
    assert names["failed"] == [4, 5]
    names = {trace["name"]: trace["x"] for trace in trial_charts.slice_plot(study.record, "batch_size")["data"]}
    assert names["diverged"] == [study.record.trials[3].hyperparameters["batch_size"]]
    assert len(names["failed"]) == 2
    planted = planted_study(tmp_path / "planted", lambda _: [0.5, 0.6], trials=30, epochs=2)
    compared = equal_budget(planted)
    assert compared is not None
    figures = [
        space_charts.contour(planted, compared, ("learning_rate", "batch_size"), name) for name in ("sgd", "adam")
    ]
    axes = [[figure["layout"][f"{axis}axis"]["range"] for axis in "xy"] for figure in figures if figure]
    assert len(axes) == 2
    assert axes[0] == axes[1]
