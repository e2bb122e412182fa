"""The networks that can be trained."""

from torch import Tensor, nn

from training.config import TrialConfig
from training.data import ImageData


class NeuralNetwork(nn.Module):
    """The tutorial's network: two hidden layers of 512 units with ReLU."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(inputs, 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W), float32 in [0, 1], into class scores (N, classes) before the softmax."""
        scores: Tensor = self.linear_relu_stack(self.flatten(images))
        return scores


def build_network(config: TrialConfig, data: ImageData) -> nn.Module:
    """Build the network that `config.network` names, sized for the images and classes of `data`."""
    match config.network:
        case "mlp":
            return NeuralNetwork(data.train.images[0].numel(), len(data.classes))
