"""The same search by `python search/run.py`, with its defaults, on as many images as the peers get."""

import sys
from dataclasses import replace
from typing import Any

import pandas as pd
from peer_task import peer_parser, write_outcome

import search.run
from search.engine import runners
from training.config import DataConfig
from training.images.image_data import ImageData, ImageSplit, load_data

SPLIT_SEED = 0
"""All searches choose by the same images, whatever their seed is."""


def first(split: ImageSplit, images: int) -> ImageSplit:
    return ImageSplit(split.images[:images], split.labels[:images])


def main() -> None:
    options = peer_parser(__doc__ or "").parse_args()
    sixth = options.images // 6

    def load_some(config: DataConfig, split_seed: int) -> tuple[ImageData, str | None]:  # noqa: ARG001
        data, warning = load_data(config, SPLIT_SEED)
        some: dict[str, Any] = {"train": first(data.train, options.images - sixth)}
        return replace(data, **some, val=first(data.val, sixth), test=first(data.test, sixth)), warning

    runners.load_data = load_some  # type: ignore[attr-defined]
    sys.argv[1:] = [
        *("--dataset", "fashion-mnist", "--data-dir", str(options.data_dir)),
        *("--num-samples", str(options.num_samples), "--epochs", str(options.epochs)),
        *("--max-concurrent", str(options.workers)),
        *("--results-dir", str(options.folder), "--name", "study", "--seed", str(options.seed)),
    ]
    status = search.run.main()
    assert status == 0, f"exit status {status}"
    trials = pd.read_csv(options.folder / "study" / "trials.csv")
    best = trials.iloc[0]
    write_outcome(
        options.folder,
        epochs=int(trials["epochs"].sum()),
        val_accuracy=best["val_accuracy"],
        test_accuracy=best["test_accuracy"],
    )


if __name__ == "__main__":
    main()
