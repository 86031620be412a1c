"""Names of a model's modules, as the parameters of the methods give them."""

from torch import nn

from llmf_hydra.checks.scorer import HEAD
from llmf_hydra.errors import Problem, Refused, did_you_mean


def scores(model: nn.Module) -> bool:
    """Whether the model has a head that gives scores instead of text."""
    return any(name.rpartition(".")[2] == HEAD for name, _ in model.named_modules())


def check_modules(model: nn.Module, key: str, names: list[str]) -> None:
    """Raise Refused for each name that is the last part of no module's path."""
    known = {path.rpartition(".")[2] for path, _ in model.named_modules() if path}
    check_names(key, [name for name in names if name.rpartition(".")[2] not in known], known)


def check_names(key: str, unknown: list[str], known: set[str]) -> None:
    """Raise Refused if there are unknown names, each with the nearest known one."""
    if unknown:
        raise Refused(
            [
                Problem(key, name, "the model has no such module", did_you_mean(name, known))
                for name in unknown
            ]
        )
