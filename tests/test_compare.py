"""The comparison of studies: what is refused, and that it claims a difference where there is one and nowhere else."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects
import pytest
from serial_ray import CompletedRun, run_command
from studies import SESSION, HandDrivenStudy, planted_study
from test_recommendations import rises_to
from test_report import figures_of, without_plotly

from search.analysis.comparison import Comparison, compare
from search.analysis.groups import Group, differences, group_studies
from search.analysis.incumbent import incumbent_range
from search.analysis.significance import Significance
from search.analysis.significance import test_groups as significances_of
from search.outputs import comparison_page
from search.outputs.comparison_text import show_comparison
from search.record.study_record import StudyRecord
from search.record.trial import Timing, TrialRecord
from search.simulation.simulator import MemoryStorage
from search.space.search_space import describe, parse
from training.config import PROJECT

REFERENCE = PROJECT / "results" / "fashion-mnist-reference"


def lucky_study(folder: Path, seed: int, *, gain: float = 0.0, images: int = 10_000, trials: int = 20) -> StudyRecord:
    """A study whose trials reach accuracies that chance gives, each better by a gain."""
    chance = np.random.default_rng(seed)

    def curve(_: dict[str, Any]) -> list[float]:
        return rises_to(gain + 0.9 - 0.1 * float(chance.exponential()) ** 0.7, epochs=3)

    record = planted_study(folder, curve, trials=trials, epochs=3, seed=seed)
    change_images(record, validation_images=images)
    change_settings(record, seed=seed)
    return record


def change_images(record: StudyRecord, **changes: Any) -> None:
    """Change what a study in memory says of its images."""
    record.metadata = replace(record.metadata, dataset=replace(record.metadata.images, **changes))


def change_settings(record: StudyRecord, **changes: Any) -> None:
    """Change the settings of a study in memory."""
    record.metadata = replace(record.metadata, settings=replace(record.metadata.settings, **changes))


def significance_of(*records: StudyRecord) -> Significance:
    """The only significance on two studies or groups."""
    first, second = group_studies(records)
    (significance,) = significances_of(second, first)
    assert isinstance(significance, Significance)
    return significance


def page_of(comparison: Comparison) -> str:
    return without_plotly(comparison_page.render(comparison))


def test_equal_studies_differ_at_most_once_in_twenty(tmp_path: Path) -> None:
    studies = [lucky_study(tmp_path / f"study {seed}", seed) for seed in range(200)]
    for images in (1000, 10**12):  # with countless images only the luck of the search is left
        for record in studies:
            change_images(record, validation_images=images)
        significances = [significance_of(*studies[place : place + 2]) for place in range(0, 200, 2)]
        assert sum(significance.is_clear for significance in significances) <= 5


@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_equal_groups_of_several_studies_differ_as_seldom(tmp_path: Path, repeats: int) -> None:
    pool = [lucky_study(tmp_path / f"study {seed}", seed) for seed in range(60)]
    chance = np.random.default_rng(repeats)
    clear = 0
    for _ in range(40):
        drawn = [pool[place] for place in chance.choice(len(pool), 2 * repeats, replace=False)]
        one, other = Group("one", tuple(drawn[:repeats])), Group("other", tuple(drawn[repeats:]))
        clear += significances_of(other, one)[0].is_clear
    assert clear <= 2


def test_planted_difference_is_found(tmp_path: Path) -> None:
    pairs = [
        (lucky_study(tmp_path / "weak", seed), lucky_study(tmp_path / "strong", seed + 100, gain=0.08))
        for seed in range(20)
    ]
    significances = [significance_of(*pair) for pair in pairs]
    assert sum(significance.is_clear and significance.gain > 0 for significance in significances) >= 19
    assert sum(significance.low <= 8 <= significance.high for significance in significances) >= 18
    assert all(significance.low <= significance.gain <= significance.high for significance in significances)
    assert re.fullmatch(
        r"strong is better than weak, by \d+\.\d\d points \(95 % interval \d+\.\d\d to \d+\.\d\d\)\.",
        significances[0].sentence,
    )
    assert "weak is worse than strong, by" in significance_of(*reversed(pairs[0])).sentence


def test_repeats_find_a_difference_that_one_study_cannot_show(tmp_path: Path) -> None:
    weak = [lucky_study(tmp_path / f"weak-{seed}", seed) for seed in range(6)]
    strong = [lucky_study(tmp_path / f"strong-{seed}", seed + 10, gain=0.03) for seed in range(6)]
    assert not significance_of(weak[0], strong[0]).is_clear
    significance = significance_of(*weak, *strong)
    assert significance.is_clear
    assert significance.sentence.startswith("strong is better than weak, by ")


def test_few_images_hide_a_difference(tmp_path: Path) -> None:
    pair = [lucky_study(tmp_path / name, seed, gain=gain) for name, seed, gain in [("a", 0, 0.0), ("b", 1, 0.05)]]
    sure = significance_of(*pair)
    for record in pair:
        change_images(record, validation_images=50)
    unsure = significance_of(*pair)
    assert unsure.high - unsure.low > 15 > sure.high - sure.low


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (-31.95, 43.38, "too few data to tell, because either may be much better (95 % interval -31.95 to +43.38"),
        (-0.8, 43.38, "no significant difference (95 % interval -0.80 to +43.38 points)."),
        (-0.3, 0.4, "no significant difference (95 % interval -0.30 to +0.40 points)."),
    ],
)
def test_interval_of_no_use_is_called_so(low: float, high: float, told: str) -> None:
    significance = Significance("one", "other", "points", 0.1, low, high, useful=2.0)
    assert significance.sentence.startswith(f"one against other: {told}")


def test_too_few_trials_get_no_significance(tmp_path: Path) -> None:
    many = lucky_study(tmp_path / "many", 0)
    few = lucky_study(tmp_path / "few", 1, trials=5, gain=0.09)
    (significance,) = compare([many, few]).significances
    assert significance.sentence.startswith("few against many: not compared, because few has only 5 trials with valid")


def test_more_trials_are_also_compared_at_an_equal_number(tmp_path: Path) -> None:
    few, many = lucky_study(tmp_path / "few", 0, trials=10), lucky_study(tmp_path / "many", 1, trials=40)
    overall, equal = compare([few, many]).significances
    assert "first" not in overall.sentence
    assert equal.sentence.startswith("many against few, in the first 10 trials of each study: ")


def test_lower_loss_is_better(tmp_path: Path) -> None:
    studies = []
    for name, gain in [("weak", 0.0), ("strong", 0.3)]:
        study = HandDrivenStudy(tmp_path / name, metric="val_loss", server=MemoryStorage())  # type: ignore[arg-type]
        for place in range(8):
            study.run_trial(0.3 + gain + 0.01 * place)
        studies.append(study.record)
    comparison = compare(studies)
    (significance,) = comparison.significances
    assert isinstance(significance, Significance)
    assert significance.gain == pytest.approx(0.3)
    assert significance.sentence.startswith("strong is better than weak, by 0.3000 nats (95 % interval 0.2")
    assert "a lower loss" in comparison.explanation
    assert "but not the choice of the images" in comparison.explanation
    strong = incumbent_range(comparison.groups[1], "epochs")
    assert strong
    assert strong.mean == sorted(strong.mean, reverse=True)


def test_metric_of_a_training_function_is_its_own_unit(tmp_path: Path) -> None:
    studies = []
    for name, gain in [("weak", 0.0), ("strong", 0.3)]:
        record = lucky_study(tmp_path / name, 0, gain=gain)
        own = {"train_function": "functions.py:train", "metric": "val_accuracy", "mode": "min", "resume": "study"}
        settings: Any = replace(record.metadata.settings, **own)  # type: ignore[arg-type]
        record.metadata = replace(record.metadata, settings=settings, dataset=None)
        record.objective = record.metadata.objective
        studies.append(record)
    comparison = compare(studies)
    (significance,) = comparison.significances
    assert isinstance(significance, Significance)
    assert significance.unit == "val_accuracy"
    assert "images" not in comparison.explanation
    assert "above 0 is better, that is, a lower value." in comparison.explanation


def test_repeats_are_one_group(tmp_path: Path) -> None:
    names = ["tpe-1", "random_7", "tpe-2", "tpe-seed3", "gp"]
    groups = group_studies([lucky_study(tmp_path / name, place, trials=1) for place, name in enumerate(names)])
    assert [(group.name, len(group.records)) for group in groups] == [("tpe", 3), ("random_7", 1), ("gp", 1)]


def test_studies_of_one_stem_are_groups_of_their_own(tmp_path: Path) -> None:
    records = [lucky_study(tmp_path / folder / "tpe-1", 0, trials=1) for folder in ("here", "there")]
    first, second = group_studies(records)
    assert first.name.endswith("here/tpe-1")
    assert second.name.endswith("there/tpe-1")


def test_studies_named_by_the_time_are_no_repeats(tmp_path: Path) -> None:
    names = ["digits-20260101-120000", "digits-20260101-130000", "digits-20260102-120000-2"]
    records = [lucky_study(tmp_path / name, place, trials=1) for place, name in enumerate(names)]
    assert [group.name for group in group_studies(records)] == names


def test_band_holds_the_mean_and_the_extremes(tmp_path: Path) -> None:
    heights = {"tpe-1": [0.5, 0.7, 0.6, 0.9], "tpe-2": [0.6, 0.6, 0.8, 0.8, 0.95]}
    records = []
    for name, values in heights.items():
        curves = iter([[value] for value in values])
        records.append(planted_study(tmp_path / name, lambda _: next(curves), trials=len(values), epochs=1))  # noqa: B023
    found = incumbent_range(Group("tpe", tuple(records)), "trials")
    assert found
    assert found.costs == [1, 2, 3, 4]
    assert found.mean == pytest.approx([0.55, 0.65, 0.75, 0.85])
    assert found.low == [0.5, 0.6, 0.7, 0.8]
    assert found.high == [0.6, 0.7, 0.8, 0.9]


def run_by_the_clock(trial: TrialRecord, session: int, reports: list[float]) -> None:
    """Give a trial of a study in memory a worker of its own and the times of its reports."""
    trial.timings = {
        epoch: Timing(session=session, node=0, pid=trial.number, waiting_seconds=0.0, reported=reported)
        for epoch, reported in enumerate(reports, start=1)
    }


def test_seconds_are_those_of_the_clock(tmp_path: Path) -> None:
    curves = iter([[0.5, 0.6, 0.7], [0.5, 0.8, 0.7]])
    record = planted_study(tmp_path, lambda _: next(curves), trials=2, epochs=3)
    record.metadata = replace(record.metadata, sessions=[replace(SESSION, seconds=100.0), SESSION])
    for number, trial in enumerate(record.trials):
        run_by_the_clock(trial, number, [10.0, 20.0, 30.0])
    found = incumbent_range(Group("study", (record,)), "seconds")
    assert found
    assert found.costs == [10, 20, 30, 120, 130]
    assert found.mean == [0.5, 0.6, 0.7, 0.8, 0.8]


def test_seconds_are_in_the_order_of_the_reports(tmp_path: Path) -> None:
    record = planted_study(tmp_path, lambda _: [0.5, 0.6, 0.7], trials=2, epochs=3)
    for trial in record.trials:  # two at once, and the second reports first
        run_by_the_clock(trial, 0, [10.0 * epoch - trial.number for epoch in (1, 2, 3)])
    found = incumbent_range(Group("study", (record,)), "seconds")
    assert found
    assert (found.costs, found.mean) == ([9.0, 19.0, 29.0, 30.0], [0.5, 0.6, 0.7, 0.7])


def test_trials_whose_metrics_do_not_stand_count_but_find_nothing(tmp_path: Path) -> None:
    curves = iter([[0.99, float("nan")], [0.5], [0.6]])
    record = planted_study(tmp_path, lambda _: next(curves), trials=3, epochs=1)
    found = incumbent_range(Group("study", (record,)), "trials")
    assert found
    assert (found.costs, found.mean) == ([2, 3], [0.5, 0.6])


def test_settings_that_differ_are_told(tmp_path: Path) -> None:
    records = [lucky_study(tmp_path / name, place, trials=6) for place, name in enumerate(["tpe-1", "tpe-2", "gp"])]
    for record, sampler in zip(records, ["tpe", "tpe", "gp"], strict=True):
        change_settings(record, sampler=sampler, name=record.folder.name, results_dir=Path(sampler))
        version, cores = ("1.0", 2) if sampler == "tpe" else ("2.0", 4)
        machine = replace(SESSION.machine, cpus=cores)
        session = replace(SESSION, versions={"torch": version, "ray": "3"}, machine=machine)
        record.metadata = replace(record.metadata, sessions=[session])
    space = describe(records[2].space) | {"learning_rate": {"low": 0.1, "high": 0.2, "log": False}}
    records[2].metadata = replace(records[2].metadata, space=parse(space))
    found = {difference.name: difference.values for difference in differences(group_studies(records))}
    assert found == {
        "setting sampler": ("tpe", "gp"),
        "range of learning_rate": ("0.0001 to 0.1 (log)", "0.1 to 0.2"),
        "version of torch": ("1.0", "2.0"),
        "machine cpus": ("2", "4"),
    }
    change_settings(records[1], sampler="random")
    assert differences(group_studies(records))[0].values == ("tpe or random", "gp")
    assert "setting seed" in [difference.name for difference in differences(group_studies(records[:2]))]


@pytest.mark.parametrize("repeats", [False, True])
def test_plotly_knows_every_attribute_of_every_chart(tmp_path: Path, repeats: bool) -> None:
    names = ["tpe-1", "tpe-2", "gp-1", "gp-2"] if repeats else ["tpe", "gp"]
    comparison = compare([lucky_study(tmp_path / name, place) for place, name in enumerate(names)])
    page = page_of(comparison)
    figures = [figure for of_section in figures_of(page) for figure in of_section]
    assert [len(figure["data"]) for figure in figures] == [6 if repeats else 2] * 3
    for figure in figures:
        plotly.graph_objects.Figure(figure)  # refuses attributes that there are not
    first = page.index(comparison.significances[0].sentence[:20])
    assert first < page.index("Best value over trials") < page.index("<h2>Differences")
    assert ("the band reaches" in page) == repeats
    assert "default-src 'none'" in page


def test_everything_that_a_study_is_called_is_escaped(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    records = [lucky_study(tmp_path / name, place) for place, name in enumerate([evil, "good"])]
    object.__setattr__(records[0].metadata.settings, "sampler", "</script><script>alert(2)</script>")
    page = page_of(compare(records))
    assert figures_of(page)[0][0]["data"][0]["name"] == "&lt;img src=x onerror=alert(1)&gt;"  # plotly reads HTML
    assert "<img src=x" not in page
    assert "alert(2)</script>" not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(2)" in page


def test_studies_that_measured_nothing_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [HandDrivenStudy(tmp_path / name, server=MemoryStorage()).record for name in "ab"]  # type: ignore[arg-type]
    comparison = compare(records)
    show_comparison(comparison)
    told = capsys.readouterr().out
    assert "has only 0 trials with valid" in told
    assert told.splitlines()[1].split() == ["a", "1", "0", "0", "0", "-", "-"]
    assert "not compared" in page_of(comparison)


def test_terminal_is_not_too_narrow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"a-name-that-somebody-found-telling-{end}" for end in ("one", "another")]
    records = [lucky_study(tmp_path / name, place) for place, name in enumerate(names)]
    change_settings(records[0], scheduler="hyperband")
    show_comparison(compare(records))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["group", "studies", "trials", "epochs", "seconds", "val_accuracy", "test_accuracy"]
    assert any("setting scheduler: hyperband" in line for line in lines)


def in_metric(record: StudyRecord) -> None:
    record.objective = replace(record.objective, metric="test_accuracy")


def in_data(record: StudyRecord) -> None:
    change_images(record, name="kmnist")


def in_files(record: StudyRecord) -> None:
    change_images(record, sha256="0123456789abcdef")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (in_metric, "their metrics are val_accuracy and test_accuracy"),
        (in_data, "they are about digits and kmnist"),
        (in_files, "their images of digits differ, sha256 not the whol and 0123456789ab"),
    ],
)
def test_numbers_that_do_not_mean_the_same_are_refused(
    tmp_path: Path, change: Callable[[StudyRecord], None], told: str
) -> None:
    one, other = (lucky_study(tmp_path / name, 0, trials=1) for name in ("one", "other"))
    change(other)
    with pytest.raises(ValueError, match=f"one and other cannot be compared: {told}"):
        compare([one, other])


def run(*words: str | Path) -> CompletedRun:
    return run_command("search/compare.py", *map(str, words))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "a comparison needs at least two studies, got 0"),
        (["latest"], "a comparison needs at least two studies, got 1"),
        ([REFERENCE.name, "nowhere"], "there is no study nowhere: "),
        ([REFERENCE.name, REFERENCE], "study fashion-mnist-reference is named twice"),
    ],
)
def test_mistakes_get_one_sentence(words: list[str | Path], told: str) -> None:
    done = run(*words)
    assert done.status == 2
    assert done.stderr.startswith(f"error: {told}")
    assert done.stderr.count("\n") == 1


def test_study_and_its_copy_do_not_differ(tmp_path: Path) -> None:
    for name in ("one", "other"):
        shutil.copytree(REFERENCE, tmp_path / name)
    done = run("one", "other", "--results-dir", tmp_path)
    assert done.status == 0, done.stderr
    assert "other against one: no significant difference" in done.stdout
    assert "Settings, search space, versions and machine are the same." in done.stdout
    assert max(map(len, done.stdout.partition("\nPage: ")[0].splitlines())) <= 80
    assert "no significant difference" in without_plotly((tmp_path / "comparison.html").read_text())
