"""When a function of a notebook counts as changed: by its own source, and by that of what it uses there."""

import functools
from typing import Any

import pytest
from notebook_cells import run_cell

from training.function_source import function_source

CELL = """
import functools, math

def doubled(function):
    @functools.wraps(function)
    def call(*args):
        return 2 * function(*args)
    return call

class Base:
    depth = 2

class Net(Base):
    width = 8

    def __init__(self, slope):
        self.slope = slope

    @property
    def loss(self):
        return math.sqrt(self.slope) + self.width

    @staticmethod
    def rest():
        return OFFSETS["a"][0]

OFFSETS = {"a": [0.5, 1]}
DATA = {"not plain": {1, 2}}

def unused(): return 1

def train(slope, scale=3):
    yield {"loss": Net(slope).loss * scale * nested() + Net.rest()}

@doubled
def nested():
    return (lambda: inner_most())()

def inner_most():
    return 4  # four
"""


def source_of(cell: str, *, is_known: bool = True) -> str:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    if is_known:
        run_cell(hash(cell), cell, namespace)
    else:
        exec(cell, namespace)
    return function_source(namespace["train"]).text


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        ("width = 8", "width = 9"),
        ("depth = 2", "depth = 3"),
        ("math.sqrt(self.slope)", "math.exp(self.slope)"),
        ("self.slope = slope", "self.slope = -slope"),
        ('["a"][0]', '["a"][1]'),
        ("[0.5, 1]", "[0.5, 2]"),
        ("scale=3", "scale=4"),
        ("* scale", "+ scale"),
        ("return 4", "return 5"),
    ],
)
def test_change_of_what_it_uses_is_a_change(change: tuple[str, str], is_known: bool) -> None:
    assert change[0] in CELL
    assert source_of(CELL.replace(*change), is_known=is_known) != source_of(CELL, is_known=is_known)


@pytest.mark.parametrize(
    "change",
    [("# four", "# 4"), ("def unused(): return 1", "def unused(): return 2"), ("\n\ndef", "\n\n\n# next\ndef")],
)
def test_comments_and_what_it_does_not_use_are_no_change(change: tuple[str, str]) -> None:
    assert change[0] in CELL
    assert source_of(CELL.replace(*change)) == source_of(CELL)


def test_value_in_a_closure_belongs_to_it() -> None:
    def made(slope: float) -> Any:
        def train() -> float:
            return slope

        return train

    assert function_source(made(1.0)) != function_source(made(2.0))
    assert function_source(made(1.0)) == function_source(functools.wraps(made(1.0))(made(1.0)))


def test_code_that_leads_to_itself_has_an_end() -> None:
    """A class that calls `super`, and a function within a function that calls itself."""
    cell = """
class Net(dict):
    def __init__(self):
        super().__init__()

def train(slope):
    def half(number):
        return half(number / 2) if number > 1 else Net()
    yield half(slope)

train = (lambda made: made)(train)
"""
    text = source_of(cell)
    assert text.count("super().__init__()") == 1
    namespace: dict[str, Any] = {"__name__": "__main__"}
    run_cell(1, "def make():\n    def half(number):\n        return half(number / 2)\n    return half\n", namespace)
    assert function_source(namespace["make"]()).text.count("return half") == 1
