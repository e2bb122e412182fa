"""An optimizer step as a CUDA graph: the processor starts one thing for each batch, and no longer a hundred."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP_STEPS = 3
"""Steps before the step is captured: libraries prepare themselves in the first ones, which a graph must not repeat."""


class StepGraph:
    """Captures an optimizer step once and replays it for each batch of the same shape.

    Small networks keep a GPU waiting for the processor, which starts each kernel by itself; a graph starts them all
    together (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). The kernels are the same, and so are
    the numbers. A graph repeats nothing that is Python: it is for networks whose code is known.
    """

    def __init__(self) -> None:
        self._graph: torch.cuda.CUDAGraph | None = None
        self._steps = 0
        """Steps that were taken with a batch of the shape of the first one."""
        self._failed = False

    @property
    def is_captured(self) -> bool:
        """Whether the next batch of the right shape will be a replay."""
        return self._graph is not None

    def replay(self, images: Tensor, labels: Tensor, step: Callable[[Tensor, Tensor], Tensor]) -> Tensor | None:
        """Take the optimizer step of a batch, if it is or can be captured.

        Args:
            images: (B, C, H, W), float32, on a GPU.
            labels: (B,), int64.
            step: Takes the step and returns the loss before it. It is called to be captured, when it changes nothing.

        Returns:
            The loss; None if the step has to be taken without the graph, because the batch has another shape than the
            first one, it is one of the first steps or the step cannot be captured.
        """
        if self._failed:
            return None
        if self._steps == 0:
            self._images, self._labels = torch.empty_like(images), torch.empty_like(labels)
        if images.shape != self._images.shape:
            return None
        self._steps += 1
        if self._steps <= WARM_UP_STEPS:
            return None
        self._images.copy_(images)
        self._labels.copy_(labels)
        if self._graph is None and not self._capture(step):
            return None
        assert self._graph is not None, "it is captured"
        self._graph.replay()
        return self._loss.clone()  # the next replay writes into the same place

    def _capture(self, step: Callable[[Tensor, Tensor], Tensor]) -> bool:
        graph, generator = torch.cuda.CUDAGraph(), torch.cuda.default_generators[self._images.get_device()]
        before = generator.clone_state()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
                self._loss = step(self._images, self._labels)
        except RuntimeError:  # the memory may not suffice for a second set of activations
            generator.graphsafe_set_state(before)  # a capture that fails leaves its own state in the generator
            self._failed = True
            return False
        self._graph = graph
        return True
