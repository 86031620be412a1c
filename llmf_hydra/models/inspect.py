"""Looking at a model: its weights, their types, and which are trained."""

from torch import nn


def print_parameters(model: nn.Module) -> None:
    """A line for each weight: name, type, shape, device, and whether it is trained."""
    for name, weight in model.named_parameters():
        trained = "trained" if weight.requires_grad else "frozen"
        print(
            f"{name}  {str(weight.dtype).removeprefix('torch.')}  {tuple(weight.shape)}  {weight.device}  {trained}"
        )
