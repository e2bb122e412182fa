"""The random generators that a training draws from: those of Python, NumPy and torch, the last on every device."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# numpy and torch are imported in the functions: --help imports this module, and does without them


def seed_generators(seed: int) -> None:
    """Let all generators start from a seed, an integer from 0 to 2**32 - 1."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def get_random_state() -> dict[str, Any]:
    """The states of all generators, as tensors and numbers in plain containers."""
    import numpy as np
    import torch

    name, key, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, np.asarray(key).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set the states that `get_random_state` returned."""
    import numpy as np
    import torch

    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed all generators for a block; afterwards they go on as if the block had drawn nothing."""
    state = get_random_state()
    seed_generators(seed)
    try:
        yield
    finally:
        set_random_state(state)
