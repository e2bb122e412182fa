"""Programs that are not ours: what they get, what they report, how they end, and what is refused how."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from own_code import search_program as search
from own_code import write_program
from serial_ray import run_command

from search.engine import command_training
from search.engine.command_training import ProgramError, train_by_command
from search.record.trial import Objective
from search.settings import StudySettings
from search.task.command_template import CommandTemplate
from search.task.custom_metrics import CustomMetrics
from training.checkpoint import Checkpoint
from training.config import PROJECT
from training.loop import TrainingDivergedError

TRAIN = """
import argparse, json, os, sys, time

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--checkpoint")
parser.add_argument("--name", default="")
parser.add_argument("--seconds", type=float, default=0)
args = parser.parse_args()
first, saved = 0, f"{args.checkpoint}/epoch.txt"
if args.checkpoint and os.path.exists(saved):
    first = int(open(saved).read()) + 1
print("starts at", first, "named", args.name, "with threads", os.environ["OMP_NUM_THREADS"])
for epoch in range(first, args.epochs):
    time.sleep(args.seconds)
    print(json.dumps({"epoch": epoch, "loss": args.lr / (epoch + 1), "stage": "val"}))
    print(f"epoch {epoch}: loss is {args.lr / (epoch + 1):.6f}.", file=sys.stderr)
    if args.checkpoint:
        with open(saved, "w") as stream:
            stream.write(str(epoch))
print("saved the model")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_program(tmp_path, TRAIN, low=1.0, high=2.0, monkeypatch=monkeypatch)


def trials() -> pd.DataFrame:
    return pd.read_csv("out/study/trials.csv").set_index("trial_number").sort_index()


class StoppedError(BaseException):
    """Ends a trial from its report, as Ray does."""


def train(
    source: str,
    *,
    stop: int | None = None,
    blocks: int | None = None,
    recorded: int = 0,
    timeout: float | None = None,
) -> list[CustomMetrics]:
    """Run Python source, which can use `report(loss)`, as the program of a trial.

    The trial is stopped after epoch `stop`, and blocks in the report of epoch `blocks`; `recorded` epochs have been
    recorded by an earlier process.
    """
    Path("source.py").write_text(
        "import json, os, signal, subprocess, sys, time\n"
        "def report(loss, **others):\n    print(json.dumps({'loss': loss, **others}), flush=True)\n" + source
    )
    measured: list[CustomMetrics] = []

    def report(metrics: CustomMetrics, *, is_last: bool) -> None:
        measured.append(metrics)
        while metrics.epoch == blocks:
            time.sleep(1)
        if metrics.epoch == stop:
            raise StoppedError

    train_by_command(
        f"{sys.executable} source.py",
        {},
        pattern=None,
        epochs=None,
        seed=0,
        threads=1,
        timeout=timeout,
        objective=Objective("loss", "min"),
        checkpoint=Checkpoint(Path("checkpoints/trial-0000.pt"), Path("0000"), recorded),
        report=report,
    )
    return measured


def losses(measured: list[CustomMetrics]) -> list[float | None]:
    return [metrics.values["loss"] for metrics in measured]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_program_is_searched_unchanged(place: Path) -> None:
    run = search("python train.py --lr={lr} --name 'trial {seed}' --checkpoint {checkpoint}")
    assert run.status == 0, run.stderr
    assert "training   python train.py --lr={lr}" in run.stdout
    table = trials()
    assert (table["loss"] == table["lr"] / table["epochs"]).all()
    assert (table["status"][0], table["epochs"][0]) == ("completed", 5)
    logs = [Path(f"out/study/trials/000{number}/log.txt").read_text() for number in range(2)]
    assert logs[1].startswith("starts at 0 named trial 1 with threads 1\n")
    assert "saved the model\n" in logs[0]
    best = table["loss"].idxmin()
    assert [file.name for file in Path("out/study/checkpoints").iterdir()] == [f"trial-{best:04}"]
    assert Path(f"out/study/checkpoints/trial-{best:04}/epoch.txt").read_text() == "4"


def test_metrics_are_found_in_an_output_that_cannot_be_changed(place: Path) -> None:
    run = search("python train.py --lr {lr}", "--parse", r"epoch (?P<epoch>\d+): loss is (?P<loss>[\d.]+)")
    assert run.status == 0, run.stderr
    assert trials()["epochs"][0] == 5
    assert trials()["loss"][0] == pytest.approx(trials()["lr"][0] / 5, abs=1e-6)


def test_limit_ends_a_program_unless_it_knows_it(place: Path) -> None:
    run = search("python train.py --lr {lr}", "--epochs", "2", "--scheduler", "none")
    assert run.status == 0, run.stderr
    assert trials()["epochs"].tolist() == [2, 2, 2]
    assert set(trials()["status"]) == {"completed"}
    run = search("python train.py --lr {lr} --epochs {epochs}", "--epochs", "2", "--name", "knows")
    assert run.status == 0, run.stderr
    assert "saved the model\n" in Path("out/knows/trials/0000/log.txt").read_text()


def test_command_needs_a_search_space(place: Path) -> None:
    ended = run_command("search/run.py", "--command", "python train.py {lr}", "--metric", "loss")
    assert (ended.status, ended.stderr.partition(",")[0]) == (2, "error: command needs space")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("python train.py --lr 0.1", "command does not use the hyperparameter lr of the search space: write {lr}"),
        ("python train.py {lr} {rate}", "command has {rate}, which is no hyperparameter of the search space"),
        ("python train.py {lr} {epochs}", "command has {epochs}, which needs a limit of the epochs: add --epochs"),
        ("python train.py {lr} +x={}", "command has a { that belongs to no {name}, in +x={}"),
        ("python train.py {lr} '", "command cannot be read: No closing quotation, got python train.py {lr} '"),
        ("pithon train.py {lr}", "command: there is no program pithon, in no folder of PATH"),
        ("./train.sh {lr}", "command: there is no program ./train.sh"),
        ("./train.py {lr}", "command: ./train.py is not executable; chmod +x makes it so"),
        ("python trian.py {lr}", "command: there is no file"),
        (
            "python train.py {lr} x{--amp}",
            "command has {--amp} within x{--amp}; the option of a hyperparameter that is",
        ),
        ("python train.py {--lr}", "command has {--lr}, which is given where lr is true, but the values of lr are not"),
    ],
)
def test_command_that_cannot_run_is_refused_before_any_trial(place: Path, command: str, sentence: str) -> None:
    run = search(command)
    assert (run.status, run.stdout) == (2, "")
    assert run.stderr.startswith(f"error: {sentence}")
    assert not Path("out/study").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"parse": "("}, "parse must be a regular expression: "),
        ({"parse": "loss (.*)"}, "parse needs a group for the metric, (?P<loss>...), got loss (.*)"),
        ({"command": None, "metric": "val_loss", "parse": "a"}, "parse reads the output of a command"),
        ({"train_function": "a.py:b"}, "train_function and command exclude each other"),
        ({"metric": None}, "command needs metric"),
        ({"command": ["python", "train.py"]}, "command must be a text, got list"),
        ({"metric": "reward"}, "command needs mode: whether the highest reward is the best"),
    ],
)
def test_settings_of_a_command_are_checked(place: Path, options: dict[str, object], sentence: str) -> None:
    given = {"command": "python train.py {lr}", "space": place / "space.toml", "metric": "loss", **options}
    with pytest.raises(ValueError, match=re.escape(sentence)):
        StudySettings(**given)  # type: ignore[arg-type]


def test_values_stay_one_argument_each() -> None:
    names = "--name={text} {text} --lr {lr} {flag} '{{\"x\": {lr}}}'"
    template = CommandTemplate(f"run 'a b' {names} --momentum {{momentum}} m={{momentum}}")
    values = {"text": 'it\'s "quoted" $HOME; {lr}', "lr": 1e-05, "flag": True}
    filled = template.fill(values)
    assert filled[:4] == ["run", "a b", f"--name={values['text']}", values["text"]]
    assert filled[4:] == ["--lr", "1e-05", "True", '{"x": 1e-05}']  # what has no value is left out with its option


FLAGS = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--use-amp", action="store_true")
args = parser.parse_args()
print({"loss": args.lr, "amp": args.use_amp})
"""


def test_option_is_given_where_its_hyperparameter_is_true(place: Path) -> None:
    (place / "flags.py").write_text(FLAGS)
    (place / "space.toml").write_text("[lr]\nlow = 1.0\nhigh = 2.0\n[use_amp]\nchoices = [false, true]\n")
    run = search("python flags.py --lr {lr} {--use-amp}", "--num-samples", "6", "--sampler", "random")
    assert run.status == 0, run.stderr
    assert set(trials()["use_amp"]) == {False, True}
    assert (trials()["amp"] == trials()["use_amp"]).all()


def test_option_whose_condition_does_not_hold_is_left_out_alone() -> None:
    template = CommandTemplate("run --verbose {--amp} -v {-x}")
    assert template.fill({}) == ["run", "--verbose", "-v"]
    assert template.fill({"amp": True, "x": True}) == ["run", "--verbose", "--amp", "-v", "-x"]


def test_lines_without_the_metric_belong_to_the_next_one_that_has_it(place: Path) -> None:
    source = """
print('{"note": "text"}'); print('{broken'); print("{'train_loss': 0.5}"); print('{"loss": null, "rate": 2}')
report(1.0); print({"loss": "0.5", "done": True, "other": [1]}); print('{"later": 1}')
"""
    measured = train(source)
    assert [metrics.values for metrics in measured] == [
        {"train_loss": 0.5, "rate": 2, "loss": 1.0},
        {"loss": 0.5, "done": 1.0},
    ]


@pytest.mark.parametrize("line", ["{'loss': nan}", '{"loss": NaN}', '{"loss": -Infinity}'])
def test_metric_of_a_program_that_is_not_finite_has_diverged(
    place: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_training, "HOLD_SECONDS", 0.2)
    with pytest.raises(TrainingDivergedError, match="in epochs 2 to 4"):
        train(f"report(1.0)\nprint('\\n'.join([{line!r}] * 3))\ntime.sleep(100)")
    with pytest.raises(TrainingDivergedError, match="in epoch 2"):
        train(f"report(1.0)\nprint({line!r})")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("report(1.0); sys.exit('no data')", "the program exited with status 1: no data"),
        ("report(1.0); os.kill(os.getpid(), signal.SIGKILL)", "the program was ended by SIGKILL: "),
        ("print('Hello')", "the program ended without a report of loss: it has reported no number; its output ends "),
        ("print('{\"acc\": 1}')", "the program ended without a report of loss: it has reported acc; its output ends"),
    ],
)
def test_program_that_fails_is_told_with_its_last_lines(place: Path, source: str, sentence: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(sentence)) as error:
        train(source)
    assert error.value.output.splitlines() == Path("0000/log.txt").read_text().splitlines()


def test_failed_program_is_a_row_with_its_error(place: Path) -> None:
    run = search("python train.py --lr {lr} --epochs many", "--num-samples", "5")
    assert run.status == 1
    assert "3 trials in a row raised the same error" in run.stdout
    error = "train.py: error: argument --epochs: invalid int value: 'many'"
    assert trials()["error"][0] == f"the program exited with status 2: {error}"


def test_study_ends_if_its_pattern_is_in_no_line_of_the_first_program(place: Path) -> None:
    run = search("python train.py --lr {lr}", "--parse", r"val loss (?P<loss>[\d.]+)", "--num-samples", "5")
    assert run.status == 1
    (error,) = trials()["error"].dropna()
    sentence = "the program ended without a report of loss: the pattern of --parse is in no line of its output"
    assert error.startswith(f"{sentence}; its output ends with: ")  # the last of two outputs
    assert "trial 0 ended, and the pattern of --parse is in no line of its output." in run.stdout
    assert "epoch 4: loss is " in Path("out/study/errors/trial-0000.txt").read_text()


def test_study_goes_on_if_its_pattern_was_in_the_output_of_another_program(place: Path) -> None:
    (place / "some.py").write_text("import sys\nif int(sys.argv[1]) != 1:\n    print('loss', sys.argv[2])\n")
    run = search("python some.py {seed} {lr}", "--parse", r"loss (?P<loss>[\d.]+)")
    assert run.status == 0, run.stderr
    assert trials()["error"].isna().tolist() == [True, False, True]


OBSTINATE = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
def note(*_):
    print("asked to end", flush=True)
    report(0.1)
signal.signal(signal.SIGTERM, note)
open("pids", "w").write(f"{os.getpid()} {child.pid}")
for epoch in range(5):
    report(1.0)
while True:
    time.sleep(0.1)
"""


def pids() -> list[int]:
    return list(map(int, Path("pids").read_text().split()))


def test_stopped_program_is_asked_to_end_and_then_killed_with_all_its_processes(place: Path) -> None:
    with pytest.raises(StoppedError):
        train(OBSTINATE, stop=2)
    wait_for(lambda: not any(map(is_running, pids())))
    log = Path("0000/log.txt").read_text()
    assert log.count("asked to end") == 1
    assert '"loss": 0.1' in log  # was reported too late


def test_program_that_takes_too_long_is_ended(place: Path) -> None:
    with pytest.raises(ProgramError, match="took longer than trial_timeout") as error:
        train("report(1.0); time.sleep(1000)", timeout=0.5)
    assert error.value.is_timeout
    with pytest.raises(ProgramError, match="took longer than trial_timeout"):
        train("report(1.0); os.close(1); os.close(2); time.sleep(1000)", timeout=0.5)


def test_children_that_a_program_leaves_end_with_it(place: Path) -> None:
    source = """
for options in ({}, {"start_new_session": True}):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], **options)
    open("pids", "a").write(f"{child.pid} ")
report(1.0)
"""
    assert losses(train(source)) == [1.0]
    wait_for(lambda: not any(map(is_running, pids())))


def test_program_that_closes_its_output_runs_to_its_end(place: Path) -> None:
    assert losses(train("report(1.0); os.close(1); os.close(2); time.sleep(0.5); open('end', 'w')")) == [1.0]
    assert Path("end").exists()


def test_very_long_output_is_cut_in_the_log(place: Path) -> None:
    source = """
for _ in range(300):
    sys.stdout.write("x" * 100_000)
print("")
report(1.0)
"""
    assert losses(train(source)) == [1.0]
    log = Path("0000/log.txt")
    assert 10_000_000 < log.stat().st_size < 11_000_000
    assert log.read_text().endswith("... the rest is left out\n")


@pytest.mark.parametrize("first", [0, 1, 10])
def test_program_goes_on_from_its_checkpoint_however_it_counts(place: Path, first: int) -> None:
    """It counts from 0, from 1 or by tens, and its checkpoint may be older than its last report."""

    def reports(begin: int) -> str:
        return "; ".join(f"report(1.0, epoch={first + max(first, 1) * epoch})" for epoch in range(begin, 5))

    with pytest.raises(StoppedError):
        train(reports(0), stop=3)
    for begin in (0, 2, 3):
        measured = train(reports(begin), recorded=3)[begin - 5 :]
        assert [metrics.epoch for metrics in measured] == list(range(begin + 1, 6))
        assert all("epoch" not in metrics.values for metrics in measured)


AHEAD = "print('\\n'.join(json.dumps({{'loss': epoch / 2, 'epoch': epoch}}) for epoch in range({}, {})), flush=True)\n"
"""Source that prints the reports of several epochs at once."""


def test_epochs_that_are_reported_after_the_end_of_their_trial_are_recorded_when_it_continues(place: Path) -> None:
    """A program does not wait, so its checkpoint may be newer than the record."""
    with pytest.raises(StoppedError):
        train(AHEAD.format(1, 6) + "time.sleep(100)", stop=2)
    measured = train(AHEAD.format(6, 8), recorded=2)
    assert [(metrics.epoch, metrics.values["loss"]) for metrics in measured[-5:]] == [
        (epoch, epoch / 2) for epoch in range(3, 8)
    ]


def test_epochs_that_nobody_has_read_are_recorded_when_the_trial_continues(place: Path) -> None:
    """The worker that should have read them was killed."""
    if (worker := os.fork()) == 0:
        train(AHEAD.format(1, 6) + "open('ahead', 'w')\ntime.sleep(100)", blocks=2)
    wait_for(Path("ahead").exists)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    time.sleep(1)
    measured = train(AHEAD.format(6, 8), recorded=1)
    assert losses(measured)[-6:] == [epoch / 2 for epoch in range(2, 8)]


def test_study_of_a_command_continues_only_if_the_command_is_named_again(place: Path) -> None:
    command = "python train.py --lr {lr} --checkpoint {checkpoint} --seconds 0.2 --epochs 10"
    run = search(command, "--time-budget", "1s", "--scheduler", "none")
    assert trials()["status"][0] == "interrupted", run.stdout
    refused = run_command("search/run.py", "--resume", "out/study")
    assert refused.status == 2
    assert refused.stderr.startswith(
        f"error: study out/study needs the code of {command}: add --command with this text"
    )
    printed = shlex.split(re.findall("To continue: python (.*)", run.stdout)[0])
    printed[printed.index("--command") + 1] = command.replace(" --lr {lr}", "  --lr '{lr}'")  # the same words
    resumed = run_command(*printed, "--num-samples", "1")
    assert resumed.status == 0, resumed.stderr
    assert "1 of them continues after the last epoch" in resumed.stdout
    assert trials()["epochs"].tolist() == [10]
    starts = re.findall("starts at ([0-9]+)", Path("out/study/trials/0000/log.txt").read_text())
    assert starts[0] == "0"
    assert int(starts[1]) > 0
    (place / "train.py").write_text(f"{TRAIN}\nprint('changed')")
    changed = run_command(*printed, "--num-samples", "2")
    assert changed.stderr.startswith("error: study study was run with other code: train.py changed")


WATCHED = """
import json, os, signal, subprocess, sys, time

def end_slowly(*_):
    time.sleep(3)
    sys.exit()

signal.signal(signal.SIGTERM, end_slowly)
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
with open("environment.json", "w") as stream:
    json.dump(dict(os.environ), stream)
with open("pids", "a") as stream:
    stream.write(f"{os.getpid()} {child.pid} ")
for epoch in range(1, 9):
    time.sleep(0.2)
    print(json.dumps({"epoch": epoch, "loss": float(sys.argv[1]) / epoch}))
"""


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_program_with_one_result_is_complete_and_saves_it(place: Path) -> None:
    (place / "one.py").write_text(
        "import os, sys, time\nprint({'loss': float(sys.argv[1])})\nprint('saves')\ntime.sleep(0.3)\n"
        "print(os.environ['TUNESMITH_TRIAL_FOLDER'])\nprint('saved')"
    )
    run = search("python one.py {lr}")
    assert run.status == 0, run.stderr
    assert set(trials()["status"]) == {"completed"}
    for number in range(3):
        folder = place / "out" / "study" / "trials" / f"{number:04}"
        assert f"saves\n{folder}\nsaved\n" in (folder / "log.txt").read_text()


@pytest.mark.ray
def test_killed_worker_leaves_no_process_of_its_program(place: Path) -> None:
    """The trial goes on in another worker, and what Ray needs is not in the environment of the program.

    A trial that is stopped takes longer to end than Ray waits by default before it would lose the next one.
    """
    Path("watched.py").write_text(WATCHED)
    command = ["--command", "python watched.py {lr}", "--space", "space.toml", "--metric", "loss", "--num-samples", "3"]
    options = ["--max-concurrent", "1", "--results-dir", "out", "--name", "study"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    with Path("log").open("w") as log:
        words = [sys.executable, str(PROJECT / "search" / "run.py"), *command, *options, "--no-dashboard"]
        study = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    wait_for(lambda: Path("pids").exists() and len(pids()) == 2)
    first = pids()
    supervisor = parent(first[0])
    worker = parent(parent(supervisor))
    wait_for(lambda: "epoch" in Path("out/study/trials/0000/log.txt").read_text())
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not any(map(is_running, [*first, supervisor])))
    assert study.wait(timeout=120) == 0, Path("log").read_text()
    assert "worker died" in Path("log").read_text()
    assert trials()["status"].tolist()[:2] == ["completed", "stopped_early"]
    assert trials()["epochs"].tolist()[:2] == [8, 1]
    assert trials()["status"][2] in ("completed", "stopped_early")
    assert len(pids()) == 8
    wait_for(lambda: not any(map(is_running, pids())))
    found = json.loads(Path("environment.json").read_text())
    assert found["OMP_NUM_THREADS"] == "1"
    assert found["TUNESMITH_TRIAL_FOLDER"].endswith("out/study/trials/0002")
    assert {name for name in found if name.startswith(("RAY_", "TUNE_"))} == set()
    assert found.get("PYTHONPATH") == environment.get("PYTHONPATH")
