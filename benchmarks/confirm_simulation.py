"""How often the interval of a winner holds its true mean, if trainings were drawn from normal distributions.

    python benchmarks/confirm_simulation.py

Several configurations are confirmed, and the winner has the best lower end of its interval. Compared are intervals by
each configuration's own deviation, and those of `search/confirm.py`: by no less than the median of all deviations; of
the seeds that choose the winner, and of as many more that measure it. All is in standard deviations of one training.
"""

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

DRAWS = 20_000
ROUNDING = 0.6
"""One of 240 images, where a training's accuracy varies by 0.7 points."""
CASES = {
    "alike": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "steady to erratic": ((0.0, 0.0, 0.0), (0.5, 1.0, 2.0)),
    "one hopeless": ((0.0, 0.0, -80.0), (1.0, 1.0, 8.0)),
    "five alike": ((0.0,) * 5, (1.0,) * 5),
}
"""True means, to which a random part is added, and deviations."""


def simulate(seeds: int, case: str, spread: float, step: float) -> dict[str, tuple[float, ...]]:
    """Parts of choosing and of measuring intervals that hold, and by how much the chosen mean is too low; by rule."""
    chance = np.random.default_rng(0)
    about, deviations = map(np.array, CASES[case])
    means = about + chance.normal(0, spread, (DRAWS, len(about)))

    def trained() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        drawn = means[..., None] + deviations[:, None] * chance.normal(size=(*means.shape, seeds))
        if step:
            drawn = np.round(drawn / step) * step
        return drawn.mean(axis=-1), drawn.std(axis=-1, ddof=1)

    (seen, own), (seen_again, own_again) = trained(), trained()
    least = np.median(own, axis=1, keepdims=True)
    found: dict[str, tuple[float, ...]] = {}
    for rule, usual in (("own", np.zeros_like(least)), ("usual", least)):
        reach, reach_again = (
            stdtrit(seeds - 1, 0.975) * np.maximum(deviation, usual) / np.sqrt(seeds) for deviation in (own, own_again)
        )
        winner = np.arange(DRAWS), np.argmax(seen - reach, axis=1)
        held = np.abs(seen - means)[winner] <= reach[winner]
        held_again = np.abs(seen_again - means)[winner] <= reach_again[winner]
        missed = means.max(axis=1) - means[winner]
        found[rule] = (float(held.mean()), float(held_again.mean()), float(missed.mean()))
    return found


def main() -> None:
    columns = "choosing  measuring  missed"
    print(f"seeds  deviations          means  rounding    own: {columns}  usual: {columns}")
    for seeds, case, spread, step in itertools.product((2, 3, 5, 10), CASES, (0.0, 0.7), (0.0, ROUNDING)):
        numbers = itertools.chain(*simulate(seeds, case, spread, step).values())
        shown = "".join(f"{number:>{width}.3f}" for number, width in zip(numbers, (17, 11, 8, 17, 11, 8), strict=True))
        print(f"{seeds:>5}  {case:<17} {spread:>7}  {step:>8}{shown}")


if __name__ == "__main__":
    main()
