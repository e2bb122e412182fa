"""`search/slurm.sh` on a real SLURM: a controller and two nodes of one core each, all on this machine."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from test_cluster import free_port

from training.config import PROJECT

NODES = ("n1", "n2")
CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
MailProg=/bin/true
KillWait=10
SchedulerParameters=batch_sched_delay=0,sched_interval=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=all Nodes=ALL Default=YES
"""
pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("slurmctld") is None or os.getuid() != 0, reason="SLURM's controller is needed"),
]


class Slurm:
    """Commands of SLURM, whose jobs find what they need in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
        self.variables = variables | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "HOME": str(folder),  # for the token of Ray
            "TUNESMITH_PYTHON": sys.executable,
        }

    def run(self, *words: str) -> str:
        done = subprocess.run(words, cwd=self.folder, env=self.variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, *options: str) -> str:
        """Submit a study by the documented command; returns the number of the job."""
        text = (PROJECT / "docs" / "cluster.md").read_text()
        (command,) = re.findall(r"^    (sbatch .*)$", text, re.MULTILINE)
        here = {"4": "2", "search/slurm.sh": str(PROJECT / "search/slurm.sh"), "/shared/results": str(self.folder)}
        words = [here.get(word, word) for word in command.split()]
        return self.run(*words, *options).split()[-1]

    def output(self, job: str) -> str:
        file = self.folder / f"slurm-{job}.out"
        return file.read_text() if file.exists() else ""

    def wait_for(self, condition: Callable[[], object], job: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.output(job) + self.run("scontrol", "show", "job", job)
            time.sleep(0.2)


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))  # Ray's socket paths must stay below 107 bytes
    for name in ("state", *NODES):
        (folder / name).mkdir()
    ports = [free_port() for _ in range(3)]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=os.uname().nodename, folder=folder, ports=ports))
    commands = [["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in NODES)]
    slurm = Slurm(folder)
    with (folder / "daemons.log").open("w") as log:
        daemons = [
            subprocess.Popen(words, env=slurm.variables, stdout=log, stderr=log, start_new_session=True)
            for words in commands
        ]
    try:
        slurm.wait_for(lambda: "idle n[1-2]" in subprocess.getoutput(f"SLURM_CONF={folder}/slurm.conf sinfo"), "0")
        yield slurm
    finally:
        subprocess.run(["scancel", "--user", "root"], env=slurm.variables, check=False)
        time.sleep(2)
        for daemon in reversed(daemons):
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_study_runs_on_all_nodes_and_goes_on_when_its_job_is_queued_again(slurm: Slurm) -> None:
    study = slurm.folder / "tonight"
    job = slurm.submit("--dataset", "digits", "--num-samples", "3", "--epochs", "100", "--scheduler", "none")
    slurm.wait_for(lambda: "2 trials at a time" in slurm.output(job), job)
    slurm.run("scancel", "--signal", "USR1", "--batch", job)  # what SLURM sends before the time is up
    slurm.wait_for(lambda: "Restarts=1" in slurm.run("scontrol", "show", "job", job), job)
    assert "Ended by a request" in slurm.output(job)
    slurm.wait_for(lambda: "JobState=PENDING" in slurm.run("scontrol", "show", "job", job), job)
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")  # SLURM waits two minutes
    slurm.wait_for(lambda: "3 of 3 trials" in slurm.output(job), job)
    slurm.wait_for(lambda: "JobState=COMPLETED" in slurm.run("scontrol", "show", "job", job), job)
    assert "resumed" in slurm.output(job)
    trials = pd.read_csv(study / "trials.csv")
    assert trials["status"].tolist() == ["completed"] * 3
    epochs = pd.read_csv(study / "epochs.csv").groupby("trial_number")["epoch"].apply(list)
    assert epochs.tolist() == [[*range(1, 101)]] * 3
