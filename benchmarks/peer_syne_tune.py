"""The same search by Syne Tune, as its documentation shows it: a script for each trial, and a tuner that starts them.

    python benchmarks/peer_syne_tune.py FOLDER --searcher cqr --num-samples 20 --epochs 10 --images 60000 --workers 2

`asha` proposes at random; `cqr` is what its documentation recommends first, conformalized quantile regression
(Salinas et al. 2023). Both stop trials by ASHA as it is by default: grace period 1, reduction factor 3. The tuner ends
when all trials have ended. The best trial is that of the highest accuracy in any report.
"""

import json
import os
import sys
from pathlib import Path

from peer_task import BATCH_SIZES, OPTIMIZERS, peer_parser, test_accuracy, write_outcome

from training.config import PROJECT

sys.path.append(str(PROJECT / ".venv" / "peers"))
TRAINING = Path(__file__).with_name("peer_syne_tune_training.py")


def main() -> None:
    parser = peer_parser(__doc__ or "")
    parser.add_argument("--searcher", choices=["asha", "cqr"], required=True)
    options = parser.parse_args()
    folder = options.folder.resolve()
    os.environ |= {"SYNETUNE_FOLDER": str(folder), "PEER_FOLDER": str(folder), "OMP_NUM_THREADS": "1"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PROJECT), sys.path[-1], os.environ.get("PYTHONPATH", "")])
    from syne_tune import StoppingCriterion, Tuner
    from syne_tune.backend import LocalBackend
    from syne_tune.config_space import choice, loguniform
    from syne_tune.optimizer.baselines import ASHA, ASHACQR

    space = {
        "learning_rate": loguniform(1e-4, 1e-1),
        "batch_size": choice(BATCH_SIZES),
        "optimizer": choice(list(OPTIMIZERS)),
        "epochs": options.epochs,
        "images": options.images,
        "data_dir": str(options.data_dir.resolve()),
    }
    scheduler = {"asha": ASHA, "cqr": ASHACQR}[options.searcher](
        space, metric="accuracy", time_attr="epoch", max_t=options.epochs, do_minimize=False
    )
    Tuner(
        trial_backend=LocalBackend(entry_point=str(TRAINING)),
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_num_trials_started=options.num_samples),
        n_workers=options.workers,
        wait_trial_completion_when_stopping=True,
    ).run()
    reports = [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
    best = max(reports, key=lambda report: report["accuracy"])
    write_outcome(
        options.folder,
        epochs=len(reports),
        val_accuracy=best["accuracy"],
        test_accuracy=test_accuracy(options.data_dir, options.images, folder / best["weights"]),
    )


if __name__ == "__main__":
    main()
