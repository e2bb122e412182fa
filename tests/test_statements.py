"""What commands and reports say of a study of a training of the user's own is true of such a study."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from serial_ray import CompletedRun, run_command

from search.engine.header import header_lines
from search.engine.running_studies import RunningStudy
from search.engine.study import prepare_study
from search.outputs.space_charts import parallel_coordinates
from search.record.configuration import Configuration, largest_value
from search.record.lookup import shown_settings
from search.record.study_record import StudyRecord
from search.settings import StudySettings

TRAINING = """
def train(rate, layers, kind, seed):
    for epoch in (1, 2):
        yield {"accuracy": 99.5 - (seed % 2) - rate, "test_accuracy": 0.5, "epochs seen": epoch}

def without_number(rate):
    raise ValueError(f"boom {rate}")
    yield {}
"""
SPACE = """
[rate]
low = 0.0
high = 0.1
[kind]
choices = ["a", "b"]
[layers]
low = 1
high = 3
when = { kind = "a" }
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    training = TRAINING.replace("layers, kind, seed", "kind, seed, layers=2")
    (folder / "own.py").write_text(training)
    (folder / "space.toml").write_text(SPACE)
    (folder / "rate.toml").write_text("[rate]\nlow = 0.0\nhigh = 1.0\n")
    return folder


def search(place: Path, function: str, space: str, metric: str, *options: str) -> CompletedRun:
    code = ["--train-function", f"{place}/own.py:{function}", "--space", f"{place}/{space}", "--metric", metric]
    words = ["--num-samples", "7", "--name", function, "--results-dir", f"{place}/out", "--no-dashboard"]
    return run_command("search/run.py", *code, *words, *options)


@pytest.fixture(scope="module")
def confirmed(place: Path) -> CompletedRun:
    """A study whose metric is a percentage, and its confirmation."""
    return search(place, "train", "space.toml", "accuracy", "--scheduler", "none", "--confirm", "2x2")


def words(text: str) -> str:
    return " ".join(html.unescape(text).split())


def test_settings_without_an_effect_are_not_listed(place: Path, confirmed: CompletedRun) -> None:
    assert confirmed.status == 0, confirmed.stderr
    settings = json.loads((place / "out/train/study.json").read_text())["settings"]
    of_images = {"dataset", "data_dir", "image_size", "val_fraction", "network", "baseline"}
    assert not of_images & settings.keys()
    provenance = words((place / "out/train/report.html").read_text()).partition("<dt>settings</dt>")[2]
    listed = provenance.partition("</dd>")[0]
    assert "num_samples 7" in listed
    assert not [name for name in of_images if f" {name} " in listed]
    started_with_defaults = shown_settings(StudyRecord.open(place / "out/train").metadata.settings, has_baseline=True)
    assert started_with_defaults["baseline"] is True
    assert of_images <= shown_settings(StudySettings(), has_baseline=True).keys()


def test_interval_of_a_percentage_ends_at_its_bound_and_says_so(place: Path, confirmed: CompletedRun) -> None:
    said = words(confirmed.stdout)
    assert re.search(r"Expect accuracy \S+ from this configuration \(95 % interval \S+ to 100\)\.", said)
    assert "The interval is cut off at 100: by its name and by all values that were measured, accuracy lies" in said
    confirmation = StudyRecord.open(place / "out/train").metadata.confirmation
    assert confirmation is not None
    one = confirmation.confirmed
    assert one.largest_values == {"accuracy": 100.0, "test_accuracy": 1.0}
    assert (one.metric.high, one.cut_off_at) == (100.0, [100.0])
    unbounded: Configuration = replace(one, largest_values={})
    assert unbounded.metric.high > 100
    assert unbounded.metric.low == one.metric.low
    with pytest.raises(ValueError, match="cannot have the bounds"):
        replace(one, largest_values={"accuracy": 50.0})


@pytest.mark.parametrize(
    ("name", "values", "largest"),
    [
        ("val_accuracy", [0.5, 1.0], 1),
        ("macroF1", [0.0, 0.9], 1),
        ("top-5 accuracy", [0.5, 97.0], 100),
        ("percent_right", [100.0], 100),
        ("accuracy", [0.5, 101.0], None),
        ("accuracy", [-0.1, 0.5], None),
        ("val_loss", [0.1, 0.5], None),
        ("accuracy_loss", [0.1, 0.5], None),
        ("score", [0.1, 0.5], None),
        ("accuracy", [], None),
    ],
)
def test_bounds_are_known_only_by_name_and_values(name: str, values: list[float], largest: float | None) -> None:
    assert largest_value(name, values) == largest


def test_command_that_confirms_does_not_advise_to_confirm(place: Path, confirmed: CompletedRun) -> None:
    assert "Confirm: " not in confirmed.stdout
    shown = run_command("search/report.py", f"{place}/out/train")
    assert shown.status == 0
    assert "Confirm: " not in shown.stdout  # it is confirmed
    assert "Confirm: " in search(place, "train", "space.toml", "accuracy", "--name", "other").stdout


def test_summary_says_that_there_are_more_trials(confirmed: CompletedRun) -> None:
    assert "\nBest 5 of 7 trials (trials.csv has all):\n trial_number " in confirmed.stdout


def test_means_of_a_confirmation_are_called_means(place: Path, confirmed: CompletedRun) -> None:
    assert "Means over the seeds that chose the winner, and the value that the search had measured: trial" in words(
        confirmed.stdout
    )
    report = words((place / "out/train/report.html").read_text())
    assert "The table has these numbers: means over the seeds that chose the winner" in report
    assert "The best trial of the search comes first" in report


def test_cell_without_a_value_is_empty(place: Path, confirmed: CompletedRun) -> None:
    assert confirmed.status == 0
    assert "b" in [trial.hyperparameters["kind"] for trial in StudyRecord.open(place / "out/train").trials]
    report = (place / "out/train/report.html").read_text()
    assert "&lt;NA&gt;" not in report
    assert "<NA>" not in confirmed.stdout


def test_axis_of_whole_numbers_has_no_other_ticks(place: Path, confirmed: CompletedRun) -> None:
    assert confirmed.status == 0
    record = StudyRecord.open(place / "out/train")
    column = [*record.space].index("layers")
    notes = parallel_coordinates(record)["layout"]["annotations"]
    assert [note["text"] for note in notes if note["x"] == column] == ["1", "2", "3", "inactive"]


def test_study_that_measured_nothing_says_so(place: Path) -> None:
    ended = search(place, "without_number", "rate.toml", "loss")
    assert ended.status == 1
    report = words((place / "out/without_number/report.html").read_text())
    assert "Nothing can be recommended, because no trial has a valid loss." in report
    assert "Importances are not known, because no trial has a valid loss." in report
    assert "clear evidence" not in report
    assert "&lt;NA&gt;" not in (place / "out/without_number/report.html").read_text()


def test_confirmation_beside_a_study_is_called_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[str] = []

    def note(study: RunningStudy) -> dict[str, object]:
        announced.append(study.study)
        return {}

    monkeypatch.setattr("search.engine.running_studies.asdict", note)
    search(place, "train", "space.toml", "accuracy", "--name", "beside", "--confirm", "2x2")
    assert announced == ["study beside", "confirmation of study beside"]
    monkeypatch.undo()
    function, space = f"{place}/own.py:without_number", place / "rate.toml"
    study = prepare_study(StudySettings(train_function=function, space=space, metric="loss", results_dir=place / "out"))
    running = [RunningStudy("confirmation of study beside", 2)]
    beside = replace(study, machines=replace(study.machines, running_studies=running))
    assert "  also runs  confirmation of study beside, on 2 cores of this machine" in header_lines(beside)
    study.folder.close()
