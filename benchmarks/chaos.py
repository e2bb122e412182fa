"""Kill short studies at random moments, resume them until they are done, and count what was lost or done twice.

    python benchmarks/chaos.py --kills 50 --seed 0
    python benchmarks/chaos.py --kills 50 --seed 0 --subject own
    python benchmarks/chaos.py --kills 50 --seed 0 --subject command

Studies of digits, by this project and by Ray Tune and Optuna alone (`plain_search.py`); or, with `own` and `command`,
studies of a training function (`observed_function.py`) and of a program (`observed_program.py`). Each kill is a SIGKILL
of the process that runs the study, alone or with its process group, or, with equal chance, of one of its workers, at a
moment that is drawn from all phases: while it starts, while it trains, between trials, while it ends. Trainings leave a
note before each epoch (`begun_epochs.py`), so that what is counted does not rest on the record that is being tested. At
the end the trials of each study are trained again in one that nobody kills, and the metrics of each epoch are compared
(`uninterrupted.py`).

The exit status is 1 if this project broke its promise: nothing that finished is lost or done twice, a kill costs a
running trial one epoch at most, no number is another one, nothing is left running.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import optuna
from audit import Tally
from killed_study import COMMAND, IMAGES, OWN, PLAIN, KilledStudy, StudySize, Tool
from processes import end
from uninterrupted import count_different, train_again

SUBJECTS = {"images": IMAGES, "own": OWN, "command": COMMAND}
ROWS = {
    "kills of the driver": "driver_kills",
    "kills of a worker": "worker_kills",
    "kills before the first epoch since the start": "kills_starting",
    "kills after the last epoch had begun": "kills_ending",
    "studies": "studies",
    "studies that failed after a kill": "failed",
    "studies that hung after a kill": "hung",
    "trials finished": "finished",
    "finished trials lost": "lost",
    "finished trials without all epochs": "incomplete",
    "trials repeated": "repeated",
    "epochs begun": "epochs_begun",
    "epochs begun again": "epochs_begun_again",
    "the same, most by one trial after one kill": "most_begun_again",
    "trials left running": "left_running",
    "finished trials with other numbers than without kills": "different",
    "seconds": "seconds",
}


def run_studies(
    tool: Tool, kills: int, seed: int, results: Path, size: StudySize | None = None, *, worker_kills: bool = True
) -> Tally:
    """Run one study after the other until there have been so many kills.

    Args:
        tool: What runs the studies.
        kills: Kills in all; >= 1.
        seed: Fixes the studies and where in them the kills are drawn; the first study has this seed, the next one more.
        results: Folder that receives the studies' folders, their notes and what they print.
        size: How much there is to do in a study.
        worker_kills: Whether workers are killed as well as drivers.

    Returns:
        What became of all studies together. Everything that ran has ended.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results.mkdir(parents=True)
    total = Tally()
    while (done := total.driver_kills + total.worker_kills) < kills:
        folder = results / f"study-{seed}"
        study = KilledStudy(tool, size or StudySize(), folder, seed, worker_kills=worker_kills)
        try:
            tally = study.run(kills - done)
        finally:
            for title in end(study.processes):
                print(f"{tool.name}: {study.folder.name}: did not end by itself: {title[:60]}", flush=True)
        print(f"{tool.name}: {study.folder.name}: {_in_words(tally)}", flush=True)
        total.add(tally)
        seed += 1
    return total


def broken_promises(tally: Tally, size: StudySize) -> list[str]:
    """What a tally shows that must not be, in words; nothing if all is well."""
    counts = vars(tally)
    none_of = ("failed", "hung", "lost", "incomplete", "repeated", "left_running", "different")
    broken = [f"{counts[name]} {label}" for label, name in ROWS.items() if name in none_of and counts[name]]
    if tally.most_begun_again > 1:
        broken.append(f"{tally.most_begun_again} epochs begun again by one trial after one kill")
    if tally.finished != tally.studies * size.num_samples:
        broken.append(f"{tally.finished} trials finished in {tally.studies} studies of {size.num_samples}")
    return broken


def table(tallies: dict[str, Tally]) -> str:
    """A column for each tool, as a table in markdown."""
    rows = [["", *tallies], ["---", *("---:" for _ in tallies)]]
    rows += [[label, *(_cell(vars(tally)[name]) for tally in tallies.values())] for label, name in ROWS.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for label, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append(f"| {' | '.join([label.ljust(widths[0]), *padded])} |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "not compared" if value is None else f"{value:,.0f}"


def _in_words(tally: Tally) -> str:
    return ", ".join(f"{vars(tally)[name]:.0f} {label}" for label, name in ROWS.items() if vars(tally)[name])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--subject", choices=SUBJECTS, default="images", help="what the studies train")
    parser.add_argument("--kills", type=int, default=50, help="kills for each tool")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-samples", type=int, default=StudySize.num_samples, help="trials in a study")
    parser.add_argument("--epochs", type=int, default=StudySize.epochs, help="epochs of a trial")
    parser.add_argument("--drivers-only", action="store_true", help="kill no workers")
    parser.add_argument("--no-comparison", action="store_true", help="leave out the studies by Ray and Optuna alone")
    options = parser.parse_args()
    size = StudySize(num_samples=options.num_samples, epochs=options.epochs)
    folder = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))  # Ray's socket paths must stay below 107 bytes
    os.environ |= {"RAY_TMPDIR": str(folder), "TMPDIR": str(folder)}
    ours = SUBJECTS[options.subject]
    compares = ours is IMAGES and not options.no_comparison
    tallies = {
        tool.name: run_studies(
            tool, options.kills, options.seed, folder / tool.name, size, worker_kills=not options.drivers_only
        )
        for tool in ([ours, PLAIN] if compares else [ours])
    }
    tally, results = tallies[ours.name], folder / ours.name
    killed = [file.parent for file in results.glob("*/study.db")]
    tally.different = sum(count_different(study, train_again(ours, study, size)) for study in killed)
    _show(tallies)
    broken = broken_promises(tally, size)
    if broken:
        print(f"\nPromises broken: {'; '.join(broken)}\nThe studies are kept in {results}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _show(tallies: dict[str, Tally]) -> None:
    from search.record.provenance import command, machine, versions  # not above: it sets options of Ray

    print(f"\ncommand   {command()}\nmachine   {machine().processor}, {machine().cpus} cores")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    print(f"\n{table(tallies)}")


if __name__ == "__main__":
    sys.exit(main())
