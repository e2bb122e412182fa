"""Charts of metrics of every kind: more is better only where the metric says so."""

from pathlib import Path

import numpy as np
import pytest
from serial_ray import run_command

from search.outputs.space_charts import parallel_coordinates
from search.record.study_record import StudyRecord


@pytest.mark.parametrize("mode", ["max", "min"])
def test_best_trial_is_at_the_top_of_the_parallel_coordinates(mode: str, tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("def train(x):\n    yield {'reward': 100 * x}\n")
    (tmp_path / "space.toml").write_text("[x]\nlow = 0.0\nhigh = 1.0\n")
    options = ["--train-function", "f.py:train", "--space", "space.toml", "--metric", "reward", "--mode", mode]
    options += ["--num-samples", "6", "--name", "s", "--results-dir", "out"]
    run = run_command("search/run.py", *options, cwd=tmp_path)
    assert run.status == 0, run.stderr
    record = StudyRecord.open(tmp_path / "out" / "s")
    heights: dict[float, float] = {}
    for trace in parallel_coordinates(record)["data"]:
        ends = [y for x, y in zip(trace["x"], trace["y"], strict=True) if x == 1]
        starts = [y for x, y in zip(trace["x"], trace["y"], strict=True) if x == 0]
        heights |= dict(zip(starts, ends, strict=True))  # the height of x and that of the metric
    order = np.argsort([heights[start] for start in sorted(heights)])
    assert order.tolist() == (list(range(6)) if mode == "max" else list(range(5, -1, -1)))
