"""What a user asks of a study that runs: the words of a request, their meaning, and the answer in the record."""

import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from training.console.terminal import shorten

Action = Literal["pause", "resume", "stop", "stop-trial", "enqueue", "set"]
ChangedSetting = Literal["num-samples", "time-budget", "max-concurrent"]
LASTING: tuple[Action, ...] = ("enqueue", "set")
"""Requests that wait for the next session of the study if this one ends before it has answered."""
LONGEST_REQUEST, LONGEST_WORD = 100, 10_000
"""Number of words of a request, and of characters of a word."""
_ARGUMENTS: dict[Action, str] = {
    "pause": "",
    "resume": "",
    "stop": "",
    "stop-trial": "N, the number of the trial",
    "enqueue": "NAME=VALUE,NAME=VALUE... of hyperparameters",
    "set": f"NAME=VALUE, where NAME is {', '.join(get_args(ChangedSetting)[:-1])} or {get_args(ChangedSetting)[-1]}",
}
"""What follows an action."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody asks of a study, as it waits in the folder of the study until it is answered."""

    id: str
    """Unique; a study does nothing twice for one request."""
    words: list[str]
    """An `Action` and its arguments, for example stop-trial and 3."""
    origin: str
    """Who asks, for example ada on host7, or the live view."""
    time: str
    """When it was made."""

    def __post_init__(self) -> None:
        """Refuse what no program of ours asks."""
        if not re.fullmatch(r"[0-9a-zA-Z-]{1,100}", self.id):
            raise ValueError(f"a request cannot have the id {shorten(self.id, 100)!r}")
        if len(self.words) > LONGEST_REQUEST or max(map(len, [*self.words, self.origin])) > LONGEST_WORD:
            raise ValueError("a request is not that long")
        check_words(self.words)

    @property
    def action(self) -> Action:
        """What is to be done."""
        return self.words[0]  # type: ignore[return-value]

    @property
    def text(self) -> str:
        """The request in one line."""
        return " ".join(self.words)


@dataclass(frozen=True, kw_only=True)
class AnsweredRequest:
    """A request that a study has answered."""

    request: Request
    session: int
    """Number of the session of the study, from 0."""
    seconds: float
    """When it was answered, in seconds since the session began."""
    is_done: bool
    answer: str
    """What was done, or why it cannot be done, in one sentence."""


def new_request(words: Sequence[str], origin: str) -> Request:
    """Make a request now; later requests have ids that are sorted behind. A ValueError says how one is written."""
    time_now = datetime.now().astimezone().isoformat(timespec="seconds")
    return Request(id=f"{time.time_ns():020}-{secrets.token_hex(4)}", words=[*words], origin=origin, time=time_now)


def is_paused(requests: Sequence[AnsweredRequest], session: int) -> bool:
    """Whether a session of a study is paused; it is not when it starts."""
    done = [one.request.action for one in requests if one.session == session and one.is_done]
    return [action for action in done if action in ("pause", "resume")][-1:] == ["pause"]


def is_stopped(requests: Sequence[AnsweredRequest], session: int) -> bool:
    """Whether a user has asked a session of a study to end."""
    return any(one.session == session and one.is_done and one.request.action == "stop" for one in requests)


def stopped_trials(requests: Sequence[AnsweredRequest]) -> set[int]:
    """The numbers of the trials that users have stopped."""
    return {trial_number(one.request.words) for one in requests if one.is_done and one.request.action == "stop-trial"}


def check_words(words: Sequence[str]) -> None:
    """Raise a ValueError that says how a request is written if this one is written in another way."""
    action, arguments = words[0] if words else "", words[1:]
    if undecodable := [word for word in words if re.search(r"[\ud800-\udfff]", word)]:
        raise ValueError(f"a request is text in UTF-8, got {undecodable[0]!a}")
    if action not in _ARGUMENTS:
        raise ValueError(f"a request is one of {', '.join(_ARGUMENTS)}, got {action!r}")
    if action in ("pause", "resume", "stop") and arguments:
        raise ValueError(f"nothing follows {action}, got {' '.join(arguments)}")
    if (action in ("stop-trial", "set") and len(arguments) != 1) or (action == "enqueue" and not arguments):
        raise ValueError(f"{action} is followed by {_ARGUMENTS[action]}")
    if action == "stop-trial":
        trial_number(words)
    if action == "set":
        changed_setting(words)
    if action == "enqueue":
        assignments(words)


def trial_number(words: Sequence[str]) -> int:
    """The trial that a request is about; a ValueError says that it is no number."""
    if not re.fullmatch(r"\d{1,18}", words[1]):
        raise ValueError(f"stop-trial is followed by {_ARGUMENTS['stop-trial']}, got {words[1]}")
    return int(words[1])


def changed_setting(words: Sequence[str]) -> tuple[ChangedSetting, str]:
    """The name of the setting that a request changes, and its new value as text; a ValueError refuses other names."""
    name, equals, value = words[1].partition("=")
    name = name.removeprefix("--").replace("_", "-")
    if name not in get_args(ChangedSetting) or not equals or not value:
        raise ValueError(f"set is followed by {_ARGUMENTS['set']}, got {words[1]}")
    return name, value  # type: ignore[return-value]


def assignments(words: Sequence[str]) -> list[str]:
    """The values of hyperparameters in a request, each as NAME=VALUE; commas or spaces stand between them.

    A comma is part of a value if no name follows it. A ValueError says which part is no assignment.
    """
    parts = [part for word in words[1:] for part in re.split(r",(?=\s*[^\s,=]+=)", word)]
    for part in parts:
        if not re.fullmatch(r"\s*[^\s=]+=.+", part, re.DOTALL):
            raise ValueError(f"enqueue is followed by {_ARGUMENTS['enqueue']}, got {part!r}")
    return [part.strip() for part in parts]
