"""Names of a model's modules, as the parameters of the methods give them."""

import re
from collections.abc import Collection, Iterable

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llmf_hydra.checks.scorer import HEAD
from llmf_hydra.config.names import is_pattern
from llmf_hydra.errors import Problem, Refused, did_you_mean

ALL = "all"  # every linear layer but the head
SHOWN = 12  # names of modules in a message


def scores(model: nn.Module) -> bool:
    """Whether the model has a head that gives scores instead of text."""
    return any(last_part(name) == HEAD for name, _ in model.named_modules())


def last_part(path: str) -> str:
    """The name of a module or weight without what it lies in."""
    return path.rpartition(".")[2]


def ends_with(path: str, name: str) -> bool:
    """Whether a path is `name`, or ends with it behind a dot, as PEFT compares them."""
    return path == name or path.endswith(f".{name}")


def within(path: str, parts: Iterable[str]) -> bool:
    """Whether a path is one of `parts` or lies in one of them."""
    return any(path == part or path.startswith(f"{part}.") for part in parts)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer; those of quantized weights are known by the names of their classes."""
    return isinstance(module, nn.Linear | Conv1D) or "Linear" in type(module).__name__


def head(model: nn.Module) -> str | None:
    """The path of the output head: of the module that gives logits or scores."""
    output = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    for path, module in model.named_modules():
        if module is output or last_part(path) == HEAD:
            return path
    return None


def targets(
    model: nn.Module, key: str, wanted: list[str], spared: Collection[str] = (), *, embeddings: bool = True
) -> list[str]:
    """What PEFT is given as `target_modules`: names as they are, or whole paths for `all`, for patterns, and where
    a module of that name lies in a part of the model that is `spared`.

    A pattern is a regular expression that matches whole paths; only linear layers count, and the output head
    doesn't. Raises Refused for what matches no module or one that takes no adapter (an embedding only where
    `embeddings`).
    """
    takes = (nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d) if embeddings else ()
    paths = {path: module for path, module in model.named_modules() if path and not within(path, spared)}
    linear = [path for path, module in paths.items() if is_linear(module)]
    if wanted == [ALL]:
        return [path for path in linear if path != head(model)]
    found: dict[str, list[str]] = {}
    for name in wanted:
        if is_pattern(name):
            found[name] = [path for path in linear if re.fullmatch(name, path) and path != head(model)]
        else:
            found[name] = [path for path in paths if ends_with(path, name)]
    _check_found(key, found, linear)
    unfit = [
        path
        for of in found.values()
        for path in of
        if path not in linear and not isinstance(paths[path], takes)
    ]
    if unfit:
        inside = sorted({last_part(path) for path in linear if within(path, unfit)})
        remedy = (
            f"name the layers in it: {', '.join(inside)}"
            if inside
            else f"name some of {_list(map(last_part, linear))}"
        )
        what = f"{unfit[0]} is a {type(paths[unfit[0]]).__name__}, which takes no adapter"
        raise Refused([Problem(key, ",".join(wanted), what, remedy)])
    whole = bool(spared) or any(map(is_pattern, wanted))
    return list(dict.fromkeys(path for of in found.values() for path in of)) if whole else wanted


def check_modules(model: nn.Module, key: str, names: list[str]) -> None:
    """Raise Refused for each name that is the end of no module's path."""
    paths = [path for path, _ in model.named_modules() if path]
    known = {last_part(path) for path, module in model.named_modules() if module._parameters}
    check_names(key, [name for name in names if not any(ends_with(path, name) for path in paths)], known)


def check_names(key: str, unknown: list[str], known: set[str]) -> None:
    """Raise Refused if there are unknown names, each with the nearest known one, and with those that there are."""
    shown = sorted(known, key=lambda name: (name.count("."), name))
    there = f"those to name are {_list(shown)}" if shown else "there is none to name"
    problems = []
    for name in unknown:
        near = did_you_mean(name, known)
        remedy = f"{near} {there}" if near else there
        problems.append(Problem(key, name, "the model has no such module", remedy))
    if problems:
        raise Refused(problems)


def _check_found(key: str, found: dict[str, list[str]], linear: list[str]) -> None:
    names = {last_part(path) for path in linear}
    problems = []
    for name in (name for name, paths in found.items() if not paths):
        near = did_you_mean(last_part(name), names)
        kind = "the pattern matches no linear layer" if is_pattern(name) else "the model has no such module"
        example = f"; a path is {linear[0]}" if is_pattern(name) and linear else ""
        remedy = f"{near} " if near else ""
        problems.append(
            Problem(
                key,
                name,
                f"{kind}{example}",
                f"{remedy}its linear layers are {_list(map(last_part, linear))}",
            )
        )
    if problems:
        raise Refused(problems)


def _list(names: Iterable[str]) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
