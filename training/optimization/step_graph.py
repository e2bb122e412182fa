"""An optimizer step as a CUDA graph: the processor starts one thing for each batch, and no longer a hundred."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP_STEPS = 3
"""Steps before the step is captured: libraries prepare themselves in the first ones, which a graph must not repeat."""


class StepGraph:
    """Captures an optimizer step once and replays it for each whole batch.

    Small networks keep a GPU waiting for the processor, which starts each kernel by itself; a graph starts them all
    together (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). The kernels are the same. A graph
    repeats nothing that is Python: it is for networks whose code is known. It keeps the memory of a step.
    """

    def __init__(self, batch_size: int) -> None:
        """Wait for the first steps.

        Args:
            batch_size: Images in a whole batch; other batches are not replayed.
        """
        self._batch_size = batch_size
        self._steps = 0
        """Steps that were taken with whole batches."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._is_given_up = False

    @property
    def is_captured(self) -> bool:
        """Whether the next whole batch will be a replay."""
        return self._graph is not None

    def replay(self, images: Tensor, labels: Tensor, step: Callable[[Tensor, Tensor], Tensor]) -> Tensor | None:
        """Take the optimizer step of a batch, if it is or can be captured.

        Args:
            images: (B, C, H, W), float32, on a GPU.
            labels: (B,), int64.
            step: Takes the step and returns the loss before it. It is called to be captured, when it changes nothing.

        Returns:
            The loss; None if the step has to be taken without the graph.
        """
        if self._is_given_up or len(labels) != self._batch_size:
            return None
        self._steps += 1
        if self._steps <= WARM_UP_STEPS:
            return None
        if self._graph is None:
            self._images, self._labels = images.clone(), labels.clone()
            if not self._capture(step):
                return None
        assert self._graph is not None, "it is captured"
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._loss.clone()  # the next replay writes into the same place

    def give_up(self) -> bool:
        """Give the memory of the graph back, and replay nothing any more; returns whether there was one."""
        was_captured = self.is_captured
        self._is_given_up = True
        self._graph = None
        self.__dict__.pop("_loss", None)
        return was_captured

    def _capture(self, step: Callable[[Tensor, Tensor], Tensor]) -> bool:
        graph, generator = torch.cuda.CUDAGraph(), torch.cuda.default_generators[self._images.get_device()]
        before, stream = generator.clone_state(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
                self._loss = step(self._images, self._labels)
        except RuntimeError:  # the memory may not suffice for a second set of activations
            # a capture that fails may leave its stream, and its own state in the generator
            torch.cuda.set_stream(stream)
            generator.graphsafe_set_state(before)
            self.give_up()
            return False
        self._graph = graph
        return True
