"""The threads of mathematical libraries: as many as a trial has cores, and what they were before afterwards."""

import os
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial
from studies import DEFAULT_SPACE
from threadpoolctl import threadpool_info

from search.algorithms.samplers import StudySampler
from search.engine import trainable
from search.space.encoding import SpaceEncoding
from training.threads import THREAD_VARIABLES, restored_threads, use_threads


def numbers() -> set[int]:
    """The numbers of threads of all libraries."""
    return {torch.get_num_threads(), *(library["num_threads"] for library in threadpool_info())}


def test_all_libraries_use_the_threads_and_get_theirs_back() -> None:
    assert {library["user_api"] for library in threadpool_info()} == {"blas", "openmp"}
    with restored_threads():
        use_threads(2)
        assert numbers() == {2}
        before = threadpool_info()
        with restored_threads():
            use_threads(1)
            assert numbers() == {1}
        assert threadpool_info() == before
        assert numbers() == {2}


def test_libraries_that_a_training_imports_in_a_worker_read_the_cores_of_its_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: Any = SimpleNamespace(threads=3, passed={})
    monkeypatch.setattr(trainable, "give_back_memory", lambda: None)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "1"})  # as Ray sets it
    with restored_threads():
        trainable._prepare_process(options)
        assert {os.environ[name] for name in THREAD_VARIABLES} == {"3"}
        assert numbers() == {3}


def test_proposal_is_computed_with_one_thread() -> None:
    seen = []

    class Sampler(RandomSampler):
        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            seen.append(numbers())
            return super().sample_relative(study, trial, search_space)

    with restored_threads():
        use_threads(2)
        study = optuna.create_study(sampler=StudySampler(DEFAULT_SPACE, Sampler(0)))
        study.ask(fixed_distributions=SpaceEncoding(DEFAULT_SPACE).optuna_distributions)
        assert numbers() == {2}
    assert seen == [{1}]
