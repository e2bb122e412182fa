"""Finds the search space of an Optuna objective by asking it: it is called with a trial that notes what it suggests."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from inspect import Parameter, signature
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any, NoReturn
from warnings import catch_warnings

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.exceptions import TrialPruned
from optuna.study import StudyDirection
from optuna.trial import FixedTrial

from search.space.search_space import SearchSpace, parse
from search.task.metric_names import Mode
from training.config_fields import NONE
from training.console.progress_bar import progress_bar
from training.random_state import seeded
from training.user_code import errors_as_sentences, load_function, running

OPTION = "train_function"
TRIAL = "trial"
"""The first parameter of an objective has this name."""
SECONDS = 5.0
"""An objective that suggests nothing for so many seconds has begun to train."""
MOST_VALUES = 8
"""Other hyperparameters may depend on choices, and on whole numbers of which there are at most so many."""
MOST_CALLS = 40

Call = dict[str, tuple[BaseDistribution, Any]]
"""The distribution and the value of each hyperparameter that an objective suggested in one call, in this order."""


def is_objective(import_path: str) -> bool:
    """Whether a training function is an Optuna objective: its first parameter is called `trial`."""
    try:
        return next(iter(signature(load_function(OPTION, import_path)).parameters), None) == TRIAL
    except (TypeError, ValueError):  # something that is written in C
        return False


class ObjectiveStudy:
    """What an objective can know of its study in a process that knows no other trial."""

    def __init__(self, name: str, mode: Mode) -> None:
        """Name the study, and whether the highest or the lowest value is the best."""
        self.study_name = name
        self.direction = StudyDirection.MINIMIZE if mode == "min" else StudyDirection.MAXIMIZE
        self.directions = [self.direction]
        self.user_attrs: dict[str, Any] = {}
        """What was set in this trial."""

    def set_user_attr(self, key: str, value: Any) -> None:
        """Keep an attribute until the end of the trial."""
        self.user_attrs[key] = value

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"an objective cannot use trial.study.{name}, because its trial does not know the others; "
            "trial.study has study_name, direction, directions, user_attrs and set_user_attr"
        )


def ask_space(import_path: str, mode: Mode = "min") -> SearchSpace:
    """Find the search space of an objective.

    The objective is called with the lowest or first value of each hyperparameter, again with each other value on which
    hyperparameters may depend, and once with the highest ones. A call ends at its first `report` or `should_prune`, or
    when nothing was suggested for `SECONDS`, or where it uses the checkpoint or the data.

    Args:
        import_path: The import path of the objective.
        mode: Whether the highest or the lowest value is the best, as the objective may want to know.

    Raises:
        ValueError: It raises an error, suggests nothing, or its hyperparameters depend on more than one value.
    """
    calls: list[Call] = []
    waiting: list[dict[str, Any]] = [{}]
    tried: set[tuple[str, str]] = set()
    with progress_bar(f"Asking {import_path.rpartition(':')[2]} for its hyperparameters"):
        while waiting:
            if len(calls) == MOST_CALLS:
                raise ValueError(f"{_failure(import_path)}: they depend on more than {MOST_CALLS} values; {_REMEDY}")
            call = _ask(import_path, mode, waiting.pop(0))
            calls.append(call)
            before: dict[str, Any] = {}
            for name, (distribution, value) in call.items():
                tried.add((name, repr(value)))
                for other in _values(distribution):
                    if (name, repr(other)) not in tried:
                        tried.add((name, repr(other)))
                        waiting.append({**before, name: other})
                before[name] = value
        calls.append(_ask(import_path, mode, {}, highest=True))
    if not any(calls):
        raise ValueError(f"{_failure(import_path)}: it suggests none; {_REMEDY}")
    described = {name: _describe(import_path, name, calls) for call in calls for name in call}
    try:
        return parse(described)
    except ValueError as error:
        raise ValueError(f"{_failure(import_path)}: {error}") from None


_REMEDY = "give the search space as a file with --space"


def _failure(import_path: str) -> str:
    return f"{OPTION} {import_path} cannot be asked for its hyperparameters"


class _EnoughAskedError(BaseException):
    """Ends a call of an objective that has begun to train."""


class _EndOfAsking:
    """What a training needs and does not exist yet; whatever uses it ends the call."""

    def __getattr__(self, name: str) -> NoReturn:
        self._end()

    def _end(self, *_: object, **__: object) -> NoReturn:
        raise _EnoughAskedError

    __call__ = __getitem__ = __iter__ = __len__ = _end


class _AskingTrial(FixedTrial):
    """Notes all that is suggested, and returns the lowest (or highest) or first value, or a value that was chosen."""

    def __init__(self, chosen: Mapping[str, Any], mode: Mode, *, highest: bool) -> None:
        self.study = ObjectiveStudy("the space is asked for", mode)
        self._values = dict(chosen)
        self._highest = highest
        super().__init__(self._values)

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        """Return the lowest or the highest value."""
        self._note(name, high if self._highest else low)
        return super().suggest_float(name, low, high, **options)

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        """Return the chosen value, or the lowest or the highest."""
        self._note(name, high if self._highest else low)
        return super().suggest_int(name, low, high, **options)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return the chosen value, or the first."""
        self._note(name, choices[0] if choices else None)
        return super().suggest_categorical(name, choices)

    def report(self, value: float, step: int) -> None:  # noqa: ARG002
        """End the call."""
        raise _EnoughAskedError

    def should_prune(self) -> bool:
        """End the call."""
        raise _EnoughAskedError

    def _note(self, name: str, value: Any) -> None:
        self._values.setdefault(name, value)
        if threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, SECONDS)


def _ask(import_path: str, mode: Mode, chosen: Mapping[str, Any], *, highest: bool = False) -> Call:
    """Call an objective; with the highest values it may fail, and what it has suggested until then counts."""
    trial = _AskingTrial(chosen, mode, highest=highest)
    output = StringIO()
    with ExitStack() as stack:
        objective = stack.enter_context(running(OPTION, import_path))
        folder = stack.enter_context(TemporaryDirectory(prefix="tunesmith-"))
        for context in (
            errors_as_sentences(_failure(import_path)),
            seeded(0),
            suppress(_EnoughAskedError, TrialPruned, *([Exception] if highest else [])),
            _alarm(),
            redirect_stdout(output),
            redirect_stderr(output),
            catch_warnings(action="ignore"),
        ):
            stack.enter_context(context)
        objective(trial, **_required_values(objective, folder))
    return {name: (distribution, trial.params[name]) for name, distribution in trial.distributions.items()}


def _required_values(objective: Callable[..., Any], folder: str) -> dict[str, Any]:
    """Values for the parameters of an objective that have no default, and that it gets when it trains."""
    values = {"seed": 0, "epochs": 1, "trial_folder": folder}
    values |= dict.fromkeys(("checkpoint", "report", "data"), _EndOfAsking())
    parameters = signature(objective).parameters
    return {
        name: value
        for name, value in values.items()
        if name in parameters and parameters[name].default is Parameter.empty
    }


@contextmanager
def _alarm() -> Iterator[None]:
    """Let an alarm end a call, and bring back the alarm that there was; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end_call(*_: object) -> None:
        raise _EnoughAskedError

    before = signal.signal(signal.SIGALRM, end_call)
    left, _ = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)


def _values(distribution: BaseDistribution) -> Sequence[Any]:
    """The values on which other hyperparameters may depend."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices
        case IntDistribution(low=low, high=high, step=step) if (high - low) // step < MOST_VALUES:
            return range(low, high + 1, step)
    return ()


def _describe(import_path: str, name: str, calls: Sequence[Call]) -> dict[str, Any]:
    """A hyperparameter as in a search space file, with the condition under which an objective suggests it."""
    asking = [call for call in calls if name in call]
    distributions = {repr(call[name][0]) for call in asking}
    if len(distributions) > 1:
        raise ValueError(f"{_failure(import_path)}: the range of {name} depends on other values; {_REMEDY}")
    described = _describe_distribution(asking[0][name][0])
    if len(asking) == len(calls):
        return described
    for other in asking[0]:
        if other == name or not all(other in call and _values(call[other][0]) for call in asking):
            continue
        allowed = {repr(call[other][1]): _plain(call[other][1]) for call in asking}
        others = [call for call in calls if name not in call and other in call]
        if not any(repr(call[other][1]) in allowed for call in others):
            return described | {"when": {other: [*allowed.values()]}}
    raise ValueError(f"{_failure(import_path)}: {name} depends on several of the other values; {_REMEDY}")


def _plain(value: Any) -> Any:
    return NONE if value is None else value


def _describe_distribution(distribution: BaseDistribution) -> dict[str, Any]:
    if isinstance(distribution, CategoricalDistribution):
        choices = [*map(_plain, distribution.choices)]
        return {"choices": choices} if len(choices) > 1 else {"value": choices[0]}
    values = distribution._asdict()
    if values["low"] == values["high"]:
        return {"value": values["low"]}
    is_default_step = values["step"] is None or (isinstance(distribution, IntDistribution) and values["step"] == 1)
    step = {} if is_default_step else {"step": values["step"]}
    return {"low": values["low"], "high": values["high"], "log": values["log"]} | step
