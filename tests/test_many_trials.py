"""What makes a study of many trials cheap changes nothing: memory, counts, proposals and transactions are as before."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState
from ray.tune import Callback
from ray.tune.execution.class_cache import _ActorClassCache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.progress_reporter import TrialProgressCallback
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from studies import HandDrivenStudy, metrics, planted_study

from search.algorithms import seen_trials
from search.algorithms.samplers import StudySampler, tpe
from search.algorithms.seen_trials import SeenTrials
from search.engine.local_ray import _no_variables_of_workers
from search.engine.tune_controller import StudyController
from search.outputs import sampled_trials
from search.outputs.epochs_file import EpochsFile
from search.outputs.sampled_trials import describe_drawn, drawn
from search.outputs.tables import epoch_table
from search.outputs.trial_charts import incumbent_values
from search.record.database import NoRetry
from search.record.ranking import best_trial, ended_trials, epochs_run, epochs_saved, leading_trial, ranked
from search.record.study_record import StudyRecord
from search.record.trial import Failure
from search.space.encoding import SpaceEncoding
from search.space.search_space import ConditionalRange, SearchSpace, distance

SPACE = SearchSpace({"x": FloatDistribution(0.0, 1.0), "kind": CategoricalDistribution(["a", "b"])})
CONDITIONAL = SearchSpace(
    {
        "kind": CategoricalDistribution(["a", "b"]),
        "x": FloatDistribution(0.1, 10.0, log=True),
        "y": [ConditionalRange(FloatDistribution(0.0, 1.0), {"kind": ("a",)})],
    }
)


class Once(NoRetry):
    """Tries again at once."""

    def wait(self, error: Exception) -> None:
        pass


@pytest.fixture
def study(tmp_path: Path) -> HandDrivenStudy:
    return HandDrivenStudy(tmp_path)


def failing_commits(record: StudyRecord) -> Callable[[int], None]:
    """Returns a function that lets the next so many commits fail."""
    left = 0

    @event.listens_for(record._database.engine, "commit")
    def commit(_: object) -> None:
        nonlocal left
        if left:
            left -= 1
            raise OperationalError(None, None, OSError("disk is full"))

    def fail(commits: int) -> None:
        nonlocal left
        left = commits

    return fail


def stored(record: StudyRecord) -> list[tuple[Any, ...]]:
    """The trials in the database, without the metrics of epochs, which are not kept in memory."""
    return [fields(trial) for trial in record._database.get_all_trials(record.study._study_id)]


def fields(trial: FrozenTrial) -> tuple[Any, ...]:
    attributes = {key: value for key, value in trial.user_attrs.items() if not key.startswith("epoch ")}
    parts = (trial.params, trial.distributions, trial.intermediate_values, attributes, trial.system_attrs)
    return trial.number, trial._trial_id, trial.state, trial.values, *parts, trial.datetime_complete is None


def test_memory_agrees_with_the_database(study: HandDrivenStudy) -> None:
    study.run_one_of_each()
    kept = [fields(trial) for trial in study.record.study.get_trials(deepcopy=False)]
    assert kept == stored(study.record)
    waiting = study.record.study.get_trials(states=(TrialState.WAITING,))
    assert [trial.number for trial in waiting] == [6]


def test_change_that_fails_is_undone_in_memory(study: HandDrivenStudy) -> None:
    study.run_trial(0.5, 0.6, 0.7)
    before = [fields(trial) for trial in study.record.study.get_trials()]
    fail = failing_commits(study.record)
    fail(1)
    with pytest.raises(OSError, match="disk is full"):
        study.suggest("a")
    assert [fields(trial) for trial in study.record.study.get_trials()] == before
    study.record.retry_writes_with(Once())
    fail(2)
    study.suggest("b")
    assert [fields(trial) for trial in study.record.study.get_trials()] == stored(study.record)
    assert len(study.record.study.get_trials()) == 2


@pytest.mark.parametrize("failures", [0, 1])
def test_epochs_that_arrive_together_are_one_transaction(study: HandDrivenStudy, tmp_path: Path, failures: int) -> None:
    for trial_id in "abc":
        study.suggest(trial_id)
    study.record.retry_writes_with(Once())
    fail, commits, shown = failing_commits(study.record), list[object](), list[str]()
    event.listen(study.record._database.engine, "commit", commits.append)
    fail(failures)
    with study.record.epochs_together():
        for trial_id in "abc":
            study.record.add_epoch(trial_id, metrics(1, 0.5))
            study.record.when_recorded(lambda name=trial_id: shown.append(name))  # type: ignore[misc]
        assert shown == []
        assert [len(trial.epochs) for trial in StudyRecord.open(tmp_path).trials] == [0, 0, 0]
    assert (shown, len(commits)) == (["a", "b", "c"], 1)
    assert [len(trial.epochs) for trial in StudyRecord.open(tmp_path).trials] == [1, 1, 1]


def test_trial_that_ends_is_recorded_after_the_epochs_that_arrived_with_it(
    study: HandDrivenStudy, tmp_path: Path
) -> None:
    for trial_id in "ab":
        study.suggest(trial_id)
    shown: list[str] = []
    with study.record.epochs_together():
        for trial_id in "ab":
            study.record.add_epoch(trial_id, metrics(1, 0.5))
            study.record.when_recorded(lambda name=trial_id: shown.append(name))  # type: ignore[misc]
        study.record.finish("b")
        assert shown == ["a", "b"]
    again = StudyRecord.open(tmp_path)
    assert [(trial.status, len(trial.epochs)) for trial in again.trials] == [("interrupted", 1), ("stopped_early", 1)]


def test_epochs_file_has_the_rows_of_the_whole_table(study: HandDrivenStudy, tmp_path: Path) -> None:
    file, draw = EpochsFile(study.record, tmp_path / "epochs.csv"), random.Random(0)
    running: list[str] = []
    for step in range(40):
        running.append(f"ray{step}")
        study.suggest(running[-1])
        if len(running) == 3:
            trial_id = running.pop(draw.randrange(3))
            for epoch in range(1, draw.randrange(1, 5)):
                timing = study.timing() if draw.random() < 0.8 else None
                study.record.add_epoch(trial_id, metrics(epoch, draw.random()), timing)
            study.record.finish(trial_id, interrupted=draw.random() < 0.1)
        if step == 20:
            (tmp_path / "epochs.csv").write_text("by somebody else")
        if step == 25:
            (tmp_path / "epochs.csv").unlink()
        if step % 3 == 0:
            file.write()
            assert (tmp_path / "epochs.csv").read_text() == epoch_table(study.record).to_csv(index=False)
    assert file._kept_trials > 10


def check_standings(record: StudyRecord) -> None:
    trials, standings = record.trials, record.standings
    assert standings.counts == Counter(trial.status for trial in trials)
    assert standings.num_ended == len(ended_trials(trials))
    assert standings.epochs_run == epochs_run(trials)
    assert standings.epochs_saved(record.epoch_limit) == epochs_saved(trials, record.epoch_limit)
    assert standings.best is best_trial(trials)
    assert standings.best_ended is best_trial(ended_trials(trials))
    assert standings.leader is leading_trial(trials)
    assert standings.longest == max((len(trial.epochs) for trial in trials), default=0)
    assert standings.may_continue() == [trial for trial in trials if trial.may_continue]


@pytest.mark.parametrize("seed", range(5))
def test_standings_are_those_of_all_trials(study: HandDrivenStudy, seed: int) -> None:
    draw, running = random.Random(seed), list[str]()
    check_standings(study.record)
    for step in range(60):
        if not running or draw.random() < 0.2:
            running.append(f"ray{step}")
            study.suggest(running[-1])
        trial_id = draw.choice(running)
        trial = study.record.running(trial_id)
        if len(trial.epochs) < 3:
            study.record.add_epoch(trial_id, metrics(len(trial.epochs) + 1, round(draw.random(), 1)))
        if len(trial.epochs) == 3 or draw.random() < 0.3:
            if draw.random() < 0.2:
                study.record.add_failure(trial_id, Failure("exception", "ValueError: boom"))
            running.remove(trial_id)
            study.record.finish(trial_id, interrupted=draw.random() < 0.1)
        check_standings(study.record)


def proposals(trials: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """The points of a study of which every fifth trial is pruned and some fail."""
    study = optuna.create_study(sampler=StudySampler(CONDITIONAL, tpe(seed)))
    for number in range(trials):
        proposal = study.ask()
        point = CONDITIONAL.build_point(
            lambda name, distribution, proposal=proposal: (  # type: ignore[misc]
                proposal.suggest_categorical(name, distribution.choices)
                if isinstance(distribution, CategoricalDistribution)
                else proposal.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
            )
        )
        value = abs(float(point["x"]) - 0.3) + float(point.get("y", 0.5))
        proposal.report(value, step=1)
        if value > 5:
            study.tell(proposal, state=TrialState.FAIL)
        else:
            study.tell(
                proposal, None if number % 5 == 0 else value, state=TrialState.PRUNED if number % 5 == 0 else None
            )
    return [trial.params for trial in study.trials]


def test_proposals_are_the_same_until_a_sampler_does_not_see_all(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = proposals(60)
    monkeypatch.setattr(seen_trials, "MOST_SEEN", 40)
    monkeypatch.setattr(seen_trials, "BEST_SEEN", 30)
    few = proposals(60)
    assert few[:41] == everything[:41]
    assert few != everything


def test_sampler_sees_the_good_trials_that_it_would_take_from_all() -> None:
    study, draw = optuna.create_study(direction="maximize"), random.Random(0)
    for number in range(500):
        proposal = study.ask()
        x = proposal.suggest_float("x", 0.0, 1.0)
        proposal.suggest_categorical("kind", ["a", "b"])
        for epoch in range(1, draw.randrange(1, 4)):
            proposal.report(x * epoch, epoch)
        study.tell(proposal, x if number % 20 == 0 else None, state=None if number % 20 == 0 else TrialState.PRUNED)
    running = study.ask()
    seen = SeenTrials(SPACE, SpaceEncoding(SPACE))
    seen.follow(study)
    shown = seen.shown(study.direction)
    assert len(shown) <= seen_trials.MOST_SEEN + 1
    assert [trial.number for trial in shown] == sorted({trial.number for trial in shown})
    assert {running.number, *range(250, 500)} <= {trial.number for trial in shown}
    ended = [trial for trial in study.trials if trial.state.is_finished()]
    good, _ = _split_trials(study, ended, 25)
    good_of_shown, _ = _split_trials(study, [trial for trial in shown if trial.state.is_finished()], 25)
    assert [trial.number for trial in good_of_shown] == [trial.number for trial in good]


@pytest.mark.parametrize("space", [SPACE, CONDITIONAL])
@pytest.mark.parametrize("seed", range(3))
def test_nearest_trial_is_that_of_the_distances(space: SearchSpace, seed: int) -> None:
    study, draw, encoding = optuna.create_study(), random.Random(seed), SpaceEncoding(space)
    points = [encoding.decode(encoding.random_sample(draw.randrange(10**6))) for _ in range(200)]
    for point in points[:100]:
        trial = optuna.trial.create_trial(
            state=draw.choice([TrialState.FAIL, TrialState.PRUNED]),
            params=point,
            distributions=space.optuna_distributions(point),
        )
        study.add_trial(trial)
    seen = SeenTrials(space, encoding)
    seen.follow(study)
    for point in points[100:]:
        nearest = min(study.trials, key=lambda trial: distance(space, point, trial.params))
        assert seen.nearest_failed(point) == (nearest.state == TrialState.FAIL)
    assert seen.is_proposed(points[0])
    assert not seen.is_proposed(points[150])


def test_ray_tune_forgets_trials_that_have_ended() -> None:
    trials = [RayTrial(name) for name in ("ended", "stopping", "running")]
    controller = object.__new__(StudyController)
    controller._trials, controller._live_trials = list(trials), {trials[2]}
    controller._stopped_trials, controller._failed_trials = set(trials[:2]), set()
    controller._trials_to_cache, controller._trial_metadata = set(trials), {"ended": "{}"}
    controller._actor_manager = SimpleNamespace(
        _pending_actors_to_enqueued_actor_tasks={"not needed": ["stop"], "awaited": []},
        _pending_actors_to_attrs={"awaited": ()},
    )
    controller._trial_to_actor = {trials[1]: "an actor that has not stopped yet"}
    controller._forget_ended()
    assert controller._trials == trials[1:]
    assert controller._stopped_trials == {trials[1]}
    assert controller._trials_to_cache == set(trials[1:])
    assert controller._trial_metadata == {}
    assert [*controller._actor_manager._pending_actors_to_enqueued_actor_tasks] == ["awaited"]


def test_class_of_the_workers_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[type] = []
    monkeypatch.setattr("ray.remote", made.append)
    with _no_variables_of_workers():
        cache = _ActorClassCache()
        for _ in range(2):
            cache.get(RayTrial)
    assert made == [RayTrial]


def test_display_of_ray_tune_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    received: dict[str, Any] = {}
    monkeypatch.setattr(TuneController, "__init__", lambda _, **options: received.update(options))
    ours = Callback()
    StudyController(record=None, callbacks=[TrialProgressCallback(None), ours])  # type: ignore[arg-type]
    assert received["callbacks"] == [ours]


class RayTrial:
    """A trial of Ray's."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def test_page_of_many_trials_shows_the_best_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    record = planted_study(tmp_path, lambda _: [draw.random()] * 10, trials=80)
    assert drawn(record) is record
    assert describe_drawn(record) == []
    monkeypatch.setattr(sampled_trials, "MOST_SHOWN", 40)
    monkeypatch.setattr(sampled_trials, "BEST_SHOWN", 10)
    numbers = [trial.number for trial in drawn(record).trials]
    assert len(numbers) == 40
    assert numbers == sorted(numbers)
    assert {trial.number for trial in ranked(record.trials)[:10]} <= {*numbers}
    assert incumbent_values(drawn(record))[1][-1] == incumbent_values(record)[1][-1]
    assert {*incumbent_values(drawn(record))[1]} == {*incumbent_values(record)[1]}
    assert len(record.trials) == 80
    (sentence,) = describe_drawn(record)
    assert sentence.startswith("The charts show 40 of the 80 trials: the best 10")
