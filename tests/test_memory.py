"""The memory of trials: what is measured, what is recorded, and what is predicted from it."""

import gc
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import optuna
import pandas as pd
import pynvml
import pytest
import torch
from serial_ray import run_command

from search.algorithms.memory_prediction import FEWEST_TRIALS, MemoryLimit, MemoryPrediction
from search.algorithms.samplers import build_sampler
from search.algorithms.search_algorithm import SearchAlgorithm
from search.algorithms.stopping import StudyStopper
from search.engine import memory_meter
from search.engine.memory_meter import MemoryMeter, give_back_memory
from search.outputs import summary
from search.record.study_record import StudyRecord
from search.record.trial import ENDED_BY_RAY, Failure, MemoryUse
from search.settings import SamplerName, StudySettings
from search.simulation.simulator import memory_record
from search.space.distributions import parse_distribution
from search.space.search_space import SearchSpace
from search.task.custom_metrics import CustomMetrics

needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux says it")


def peak(meter: MemoryMeter) -> int:
    measured = meter.peaks().peak_mb
    assert measured is not None
    return measured


@needs_proc
def test_peak_is_that_of_the_trial_and_not_of_an_earlier_one() -> None:
    with MemoryMeter() as meter:
        before = peak(meter)
        taken = bytearray(400_000_000)
        del taken
        assert peak(meter) >= before + 380
    with MemoryMeter() as meter:
        assert peak(meter) <= before + 100


@needs_proc
def test_processes_that_a_trial_starts_belong_to_it() -> None:
    program = "x = bytearray(300_000_000); print(flush=True); input()"
    with MemoryMeter() as meter:
        own = peak(meter)
    with (
        MemoryMeter() as meter,
        subprocess.Popen(
            [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        assert peak(meter) >= own + 300
        process.communicate(b"\n")


@needs_proc
def test_memory_that_a_copy_of_the_process_shares_counts_once() -> None:
    shared = bytearray(b"x") * 400_000_000
    with MemoryMeter() as meter:
        alone, (reader, writer) = peak(meter), os.pipe()
        copy = os.fork()
        if copy == 0:
            os.read(reader, 1)
            os._exit(0)
        with_copy = peak(meter)
        os.write(writer, b"x")
        os.waitpid(copy, 0)
    assert len(shared) == 400_000_000
    assert alone > 400
    assert with_copy < alone + 100


@needs_proc
def test_what_an_earlier_trial_left_in_a_cycle_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(memory_meter, "_has_frozen", False)
    give_back_memory()
    with MemoryMeter() as meter:
        before = peak(meter)
    left: list[object] = [bytearray(300_000_000)]
    left.append(left)
    del left
    give_back_memory()
    with MemoryMeter() as meter:
        assert peak(meter) < before + 100


def test_nothing_is_said_where_the_system_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory_meter, "_PROC", tmp_path)
    with MemoryMeter() as meter:
        assert meter.peaks() == MemoryUse()


def test_memory_of_all_gpus_is_that_which_torch_has_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    reset: list[int] = []
    for name, function in {
        "is_initialized": lambda: True,
        "empty_cache": lambda: None,
        "device_count": lambda: 2,
        "reset_peak_memory_stats": reset.append,
        "max_memory_reserved": lambda device: (3 + device) * 10**9,
    }.items():
        monkeypatch.setattr(torch.cuda, name, function)
    with MemoryMeter() as meter:
        assert reset == [0, 1]
        assert meter.peaks(8).peak_gpu_mb == 7000
        assert meter.peaks(8).micro_batch_size == 8


@needs_proc
def test_gpu_memory_of_processes_is_that_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def users(gpu: int) -> list[SimpleNamespace]:
        sizes = {os.getpid(): 10**12, 1: 10**12} | dict.fromkeys(pids, gpu * 10**9)  # others use the GPUs, too
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in sizes.items()]

    monkeypatch.setattr(memory_meter, "_gpus", lambda: [2, 3])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", users)
    with (
        MemoryMeter() as meter,
        subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as one,
    ):
        pids.append(one.pid)
        assert meter.peaks().peak_gpu_mb == 5000
        pids.clear()
        assert meter.peaks().peak_gpu_mb == 5000, "it is the peak"
        assert one.stdin is not None
        one.stdin.write(b"\n")


def test_driver_that_says_nothing_costs_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert memory_meter._gpus.__wrapped__() == []
    monkeypatch.setattr(memory_meter, "_gpus", lambda: [0])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", fail)
    assert memory_meter._gpu_memory({1}) == 0


def test_parts_of_a_trial_are_joined() -> None:
    first = MemoryUse(peak_mb=500, micro_batch_size=32)
    assert first.with_later(MemoryUse(peak_mb=400, peak_gpu_mb=7)) == MemoryUse(
        peak_mb=500, peak_gpu_mb=7, micro_batch_size=32
    )
    with pytest.raises(ValueError, match="peak_mb cannot be -1"):
        MemoryUse(peak_mb=-1)


PROGRAM = """
import json, sys
x = [bytearray(50_000_000)]
print(json.dumps({"epoch": 1, "loss": 1.0}), flush=True)
print(json.dumps({"epoch": 2, "loss": float(sys.argv[1])}), flush=True)
if float(sys.argv[1]) < 0.5:
    sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "space.toml").write_text("[loss]\nchoices = [0.25, 0.75]\n")
    return tmp_path


@needs_proc
def test_study_records_what_its_trials_took_and_which_ran_out_of_memory(program: Path) -> None:
    command = ["--command", f"{sys.executable} {program}/program.py {{loss}}", "--space", f"{program}/space.toml"]
    where = ["--metric", "loss", "--results-dir", f"{program}/out", "--name", "study", "--no-dashboard"]
    run = run_command("search/run.py", *command, *where, "--num-samples", "2")
    assert run.status == 0, run.stdout + run.stderr
    table = pd.read_csv(program / "out/study/trials.csv")
    assert (table["peak_memory_mb"] > 50).all()
    assert table["peak_gpu_memory_mb"].isna().all()
    trials = StudyRecord.open(program / "out/study").trials
    assert sorted(trial.failure.kind if trial.failure else "" for trial in trials) == ["", "out_of_memory"]
    assert [trial.memory.peak_mb for trial in trials] == list(table.sort_values("trial_number")["peak_memory_mb"])


def described(**ranges: dict[str, Any]) -> SearchSpace:
    return SearchSpace({name: parse_distribution(one) for name, one in ranges.items()})


SPACE = described(
    width={"low": 16, "high": 4096, "log": True},
    batch_size={"low": 8, "high": 512, "log": True},
    rate={"low": 1e-5, "high": 1e-1, "log": True},
    kind={"choices": ["small", "large"]},
)
LIMIT = 2000.0


def need(point: dict[str, Any]) -> float:
    """Megabytes."""
    return float(300 + point["width"] * point["batch_size"] * (1 if point["kind"] == "small" else 2) / 100)


class MemoryStudy:
    """A study whose trials fail where they need more than the limit."""

    def __init__(self, *, sampler: SamplerName = "tpe", limit: float | None = LIMIT):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        settings = StudySettings(
            train_function="own.py:train", space={}, metric="loss", num_samples=1000, scheduler="none", sampler=sampler
        )
        self.record = memory_record(settings, SPACE)
        self.search = SearchAlgorithm(
            self.record,
            build_sampler(sampler, 0, 0),
            seed=0,
            stopper=StudyStopper(),
            memory_limit=MemoryLimit(of_trial_mb=limit),
        )

    def run(self, trials: int, *, error: str = "MemoryError", gpu: bool = False) -> list[bool]:
        """Run trials; returns which of them ran out of memory."""
        lost = []
        for number in range(trials):
            name = f"trial {len(self.record.trials)} {number}"
            assert isinstance(self.search.suggest(name), dict)
            taken = need(self.record.running(name).hyperparameters)
            lost.append(taken > LIMIT)
            measured = round(min(taken, 0.8 * LIMIT if lost[-1] else taken))
            self.record.add_memory(name, MemoryUse(peak_gpu_mb=measured) if gpu else MemoryUse(peak_mb=measured))
            if lost[-1]:
                self.record.add_failure(name, Failure("out_of_memory", error))
            else:
                loss = 1 / taken  # larger ones are better
                self.record.add_epoch(name, CustomMetrics(epoch=1, seconds=1.0, values={"loss": loss}))
                self.record.end_by_itself(name)
            self.record.finish(name)
        return lost


@pytest.mark.parametrize(
    ("sampler", "limit"), [("gp", None), ("gp", LIMIT), ("tpe", None), ("random", LIMIT), ("qmc", None)]
)
def test_few_trials_are_lost_after_the_first(sampler: SamplerName, limit: float | None) -> None:
    study = MemoryStudy(sampler=sampler, limit=limit)
    lost = study.run(40)
    assert sum(lost[FEWEST_TRIALS:]) <= 3
    assert sum(trial.redrawn for trial in study.record.trials) > 0
    best = min(trial.best_value for trial in study.record.trials if trial.best_epoch)
    assert 1 / best > 0.5 * LIMIT  # the prediction lets the study come near the limit


def test_sampler_that_would_repeat_itself_gets_random_points_instead() -> None:
    study = MemoryStudy(sampler="random")
    study.search._study_sampler._learns_failures = True
    assert sum(study.run(40)[FEWEST_TRIALS:]) <= 3
    assert {trial.redrawn for trial in study.record.trials} == {0, 1}


def test_memory_of_gpus_is_predicted_from_what_ran_out_there() -> None:
    study = MemoryStudy(limit=None)
    lost = study.run(25, error="torch.OutOfMemoryError: CUDA out of memory", gpu=True)
    assert sum(lost[FEWEST_TRIALS:]) <= 5


def test_same_record_and_seed_give_the_same_proposals() -> None:
    points = []
    for _ in range(2):
        study = MemoryStudy()
        study.run(25)
        points.append([(trial.hyperparameters, trial.redrawn) for trial in study.record.trials])
    assert points[0] == points[1]


def test_nothing_is_predicted_where_the_memory_suffices() -> None:
    """A study whose trials take less than half of the limit has the proposals that it has without a limit."""
    points = []
    for limit in (1e9, None):
        study = MemoryStudy(limit=limit)
        study.record.add_memory = lambda *_: None  # type: ignore[method-assign]
        study.run(20)
        points.append([trial.hyperparameters for trial in study.record.trials])
    assert points[0] == points[1]


def finished(point: dict[str, Any], number: int, memory: dict[str, Any], failure: Failure | None) -> Any:
    attributes: dict[str, Any] = {"memory": memory}
    if failure:
        attributes["failure"] = {"kind": failure.kind, "error": failure.error}
    trial = optuna.trial.create_trial(
        params=point,
        distributions=SPACE.optuna_distributions(point),
        user_attrs=attributes,
        state=optuna.trial.TrialState.FAIL if failure else optuna.trial.TrialState.COMPLETE,
        value=None if failure else 1.0,
    )
    trial.number = number
    return trial


def points(number: int) -> list[dict[str, Any]]:
    sampler = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    return [sampler.ask(SPACE.optuna_distributions({"kind": "small"})).params for _ in range(number)]


def test_worker_that_ray_ended_needs_no_more_than_it_had() -> None:
    """Ray ends a trial because the machine is full, perhaps by others: that says nothing of what the trial needs."""
    prediction = MemoryPrediction(SPACE)
    small: dict[str, Any] = {"width": 16, "batch_size": 8, "rate": 1e-3, "kind": "small"}
    for number, point in enumerate(points(20)):
        prediction.add(finished(point, number, {"peak_mb": round(need(point))}, None))
    ended = Failure("out_of_memory", f"{ENDED_BY_RAY}, which used 0.31GB")
    prediction.add(finished(small, 20, {"peak_mb": 310}, ended))
    assert prediction.excess({**small, "rate": 1e-2}) < 0


def test_wrong_failure_is_outvoted_by_its_neighbours() -> None:
    prediction = MemoryPrediction(SPACE, MemoryLimit(of_trial_mb=LIMIT))
    for number, point in enumerate(points(60)):
        failed = Failure("out_of_memory", "MemoryError") if need(point) > LIMIT else None
        prediction.add(finished(point, number, {"peak_mb": round(min(need(point), 0.9 * LIMIT))}, failed))
    small: dict[str, Any] = {"width": 64, "batch_size": 16, "rate": 1e-3, "kind": "small"}
    assert prediction.excess(small) < 0
    prediction.add(finished(small, 60, {"peak_mb": 300}, Failure("out_of_memory", "MemoryError")))
    assert prediction.excess({**small, "width": 32}) < 0


def test_prediction_waits_for_the_first_trials() -> None:
    prediction = MemoryPrediction(SPACE, MemoryLimit(of_trial_mb=LIMIT))
    large: dict[str, Any] = {"width": 4096, "batch_size": 512, "rate": 1e-3, "kind": "large"}
    for number, point in enumerate(points(FEWEST_TRIALS - 1)):
        prediction.add(finished({**point, "width": 4096}, number, {"peak_mb": 1900}, Failure("out_of_memory", "")))
    assert prediction.excess(large) < 0
    prediction.add(
        finished({"width": 64, "batch_size": 8, "rate": 1e-3, "kind": "small"}, FEWEST_TRIALS, {"peak_mb": 400}, None)
    )
    assert prediction.excess(large) > 0


def test_summary_says_what_was_lost_and_drawn_again(capsys: pytest.CaptureFixture[str]) -> None:
    study = MemoryStudy(sampler="random")
    study.run(20)
    study.record.trials[-1].redrawn += 2
    summary._show_memory(study.record)
    redrawn = sum(trial.redrawn for trial in study.record.trials)
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("Memory: ")
    assert f"; {redrawn} configurations were predicted not to fit, and drawn again." in said
