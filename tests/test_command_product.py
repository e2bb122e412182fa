"""What a study of a program has besides its table: its confirmation, reproductions of its trials, and its model."""

import json
import os
import re
import shlex
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from own_code import search_program, write_program
from serial_ray import CompletedRun, run_command

from search.api import load_best
from search.record.study_record import StudyRecord
from training.console.terminal import format_metric

TRAIN = """
import argparse, json, os, random, sys, time

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--seed", type=int)
parser.add_argument("--checkpoint")
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--seconds", type=float, default=0)
args = parser.parse_args()
draws, first = random.Random(args.seed), 1
saved = f"{args.checkpoint}/epoch.txt"
if args.checkpoint and os.path.exists(saved):
    first = int(open(saved).read()) + 1
print("printed by the program")
for epoch in range(first, args.epochs + 1):
    time.sleep(args.seconds)
    values = {"loss": args.lr * draws.random() + (epoch - 2) ** 2, "test_loss": draws.random(), "seed_seen": args.seed}
    print(json.dumps({"epoch": epoch, **values}), flush=True)
    if args.checkpoint:
        open(saved, "w").write(str(epoch))
"""
SEEDED = "python train.py --lr {lr} --seed {seed}"
search = partial(search_program, scheduler="none")
SAVES = f"{SEEDED} --checkpoint {{checkpoint}}"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_program(tmp_path, TRAIN, low=0.1, high=0.5, monkeypatch=monkeypatch)


def words(text: str) -> str:
    return " ".join(text.split())


def printed_command(name: str, run: CompletedRun) -> list[str]:
    return shlex.split(re.findall(f"{name}: python (.*)", run.stdout)[0])


def test_program_is_confirmed_from_fresh_seeds_and_its_best_training_is_shipped() -> None:
    run = search(SAVES, "--confirm", "2x2")
    assert run.status == 0, run.stdout + run.stderr
    trainings = pd.read_csv("out/study/confirm/trials.csv")
    assert sorted(trainings["seed"]) == [3, 3, 4, 4, 5, 6]
    assert (trainings["seed_seen"] == trainings["seed"]).all()
    winner = pd.read_csv("out/study/confirm.csv").iloc[0]
    assert f"Expect loss {winner['confirmed_mean']:.4f} from this configuration" in words(run.stdout)
    best = load_best("study", results_dir=Path("out"))
    of_winner = trainings[trainings["lr"] == winner["lr"]].sort_values("loss").iloc[0]
    assert (best.seed, best.epoch, best.metrics["loss"]) == tuple(of_winner[["seed", "best_epoch", "loss"]])
    assert best.files is not None
    assert (best.files / "epoch.txt").read_text() == "4"
    config = json.loads(Path("out/study/model/config.json").read_text())
    assert (config["program"], config["trial"]) == ("train.py", winner["trial_number"])
    assert config["selection"].startswith(f"The configuration is trial {config['trial']} of study study, confirmed")
    assert "load_best('out/study')" in run.stdout[run.stdout.index("Confirmed:") :]


def test_printed_commands_name_the_program_and_work() -> None:
    run = search(SEEDED)
    assert "\nModel: none, because the program left no file in {checkpoint}\n" in run.stdout
    for name, options in (("Confirm", ["--top", "2", "--seeds", "2"]), ("Reproduce", [])):
        again = run_command(*printed_command(name, run), *options)
        assert again.status == 0, again.stdout + again.stderr


def test_program_runs_again_only_if_it_is_named() -> None:
    search(SEEDED)
    for words in (["search/confirm.py", "out/study"], ["search/reproduce.py", "out/study", "0"]):
        for named in ([], ["--command", "python other.py --lr {lr} --seed {seed}"]):
            refused = run_command(*words, *named)
            assert (refused.status, refused.stdout) == (2, "")
            assert f"study study {'was run with' if named else 'needs the code of'}" in refused.stderr


def test_program_without_a_seed_is_not_confirmed() -> None:
    command = "python train.py --lr {lr}"
    run = search(command, "--confirm", "2x2")
    assert (run.status, run.stdout) == (2, "")
    assert run.stderr.startswith("error: command has no {seed}, so new seeds would not reach the program")
    assert not Path("out/study").exists()
    assert not re.search("^Confirm:", search(command).stdout, re.MULTILINE)
    refused = run_command("search/confirm.py", "out/study", "--command", command)
    assert (refused.status, refused.stdout, refused.stderr) == (2, "", run.stderr)


def test_trial_gives_the_same_numbers_again_and_leaves_the_study_as_it_is() -> None:
    search(SAVES)
    before = {file: file.read_bytes() for file in Path("out").rglob("*") if file.is_file()}
    run = run_command("search/reproduce.py", "out/study", "1", "--command", SAVES)
    assert run.status == 0, run.stdout + run.stderr
    assert words(run.stdout).endswith(
        "The trial agrees with its record: all metrics of 4 epochs are equal to the last digit."
    )
    for metrics in StudyRecord.open(Path("out/study")).trials[1].epochs:
        value = format_metric(metrics.values["loss"])
        assert re.search(rf"^ +{metrics.epoch} +{value} +{value} .* +equal$", run.stdout, re.MULTILINE)
    assert "printed by the program" not in run.stdout
    assert {file: file.read_bytes() for file in Path("out").rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("command", "options"),
    [("python train.py --lr {lr} --seed {seed} --epochs {epochs}", ["--epochs", "2"]), (SEEDED, ["--epochs", "2"])],
)
def test_trial_that_reached_its_limit_is_reproduced_to_there(command: str, options: list[str]) -> None:
    search(command, *options)
    run = run_command("search/reproduce.py", "out/study", "0", "--command", command)
    assert run.status == 0, run.stdout + run.stderr
    assert "all metrics of 2 epochs are equal to the last digit" in words(run.stdout)


def test_failed_program_fails_again(place: Path) -> None:
    (place / "train.py").write_text(f"{TRAIN}\nsys.exit('no space left')")
    search(SEEDED)
    run = run_command("search/reproduce.py", "out/study", "0", "--command", SEEDED)
    assert run.status == 0, run.stdout + run.stderr
    assert "and it failed as recorded: the program exited with status 1: no space left" in words(run.stdout)


def test_difference_is_told_with_what_may_be_its_reason(place: Path) -> None:
    command = "python train.py --lr {lr}"
    search(command)
    (place / "train.py").write_text(TRAIN.replace("default=4", "default=5"))
    run = run_command("search/reproduce.py", "out/study", "0", "--command", command)
    assert run.status == 1
    assert "4 of 5 epochs differ, the first is epoch 1; the largest differences are loss " in words(run.stdout)
    assert "The end differs: the repeated training reached epoch 5, the recorded one ended by itself" in words(
        run.stdout
    )
    assert "These have changed since the study was run: code: train.py of " in words(run.stdout)
    reason = "the command has no {seed}, so nothing has seeded the program; of the program nothing is recorded but the "
    assert f"This may be a reason: {reason}" in words(run.stdout)


def test_interruption_is_named_where_it_made_a_difference() -> None:
    command = f"{SAVES} --epochs 10 --seconds 0.2"
    run = search(command, "--time-budget", "1s", "--num-samples", "1")
    resumed = run_command(*printed_command("To continue", run))
    assert resumed.status == 0, resumed.stdout + resumed.stderr
    again = run_command("search/reproduce.py", "out/study", "0", "--command", command)
    assert again.status == 1, again.stdout
    assert re.search(
        "the trial was interrupted after epoch [1-9], and continued in another process", words(again.stdout)
    )


def test_program_that_is_gone_is_refused(place: Path) -> None:
    search(SEEDED)
    (place / "train.py").unlink()
    for words in (["search/confirm.py", "out/study"], ["search/reproduce.py", "out/study", "0"]):
        refused = run_command(*words, "--command", SEEDED)
        assert (refused.status, refused.stdout) == (2, "")
        assert refused.stderr.startswith(f"error: command: there is no file {place}/train.py")


def test_what_the_best_trial_left_is_shipped_with_the_truth_about_its_epoch(place: Path) -> None:
    run = search(SAVES)
    trial = pd.read_csv("out/study/trials.csv").iloc[0]
    best = load_best("study", results_dir=Path("out"))
    assert (best.hyperparameters, best.epoch, best.seed) == ({"lr": trial["lr"]}, 2, trial["seed"])
    assert best.files is not None
    assert (best.files / "epoch.txt").read_text() == "4"
    assert "Load: from search.api import load_best; best = load_best('out/study')" in run.stdout
    assert "what the program train.py saved" in Path("out/study/report.html").read_text()
    card = words((best.folder / "README.md").read_text())
    assert "# Model of the program train.py What the program train.py left in its checkpoint folder." in card
    assert f"The best epoch is epoch 2 of trial {trial['trial_number']} of study study, with the lowest loss of" in card
    assert "after its last recorded epoch, 4; only the program knows of which epoch it is." in card
    assert "It was trained for 4 epochs with seed" in card
    assert "Metrics of test data (test_loss) chose nothing." in card
    assert str(place) not in card + (best.folder / "config.json").read_text()


def test_pipes_and_links_of_a_program_do_not_prevent_its_model(place: Path) -> None:
    left = "os.mkfifo(f'{args.checkpoint}/pipe')\nos.symlink('gone', f'{args.checkpoint}/link')\n"
    (place / "train.py").write_text(TRAIN + left)
    search(SAVES)
    best = load_best("study", results_dir=Path("out"))
    assert best.files is not None
    assert sorted(os.listdir(best.files)) == ["epoch.txt", "link"]


def test_program_that_saves_nothing_has_no_model() -> None:
    run = search(SEEDED)
    assert not Path("out/study/model").exists()
    assert "Load:" not in run.stdout
