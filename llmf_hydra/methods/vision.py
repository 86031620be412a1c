"""Models that see: which of their modules are the vision tower and the projector, and which of them stay frozen."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.methods.modules import last_part, within

# What the models of Transformers call them; a projector may lie in the tower, as Qwen-VL's merger does.
TOWERS = ("vision_tower", "visual", "vision_model", "vision_encoder", "vision_tower_high", "vqmodel")
PROJECTORS = ("multi_modal_projector", "mm_projector", "merger", "deepstack_merger_list", "connector", "aligner",
              "embed_vision", "modality_projection")  # fmt: skip
TOWER, PROJECTOR, ONLY = (
    "method.freeze_vision_tower",
    "method.freeze_multi_modal_projector",
    "method.train_mm_proj_only",
)


@dataclass(frozen=True)
class Parts:
    """Paths of a model's modules; empty for one that reads text alone."""

    towers: tuple[str, ...]
    projectors: tuple[str, ...]


def parts(model: PreTrainedModel) -> Parts:
    """The vision tower and the projector. Raises Refused where a model that sees calls them otherwise."""
    if not sees(model):
        return Parts((), ())
    found = Parts(_outermost(model, TOWERS), _outermost(model, PROJECTORS))
    if not found.towers or not found.projectors:
        known = ", ".join(path for path, _ in model.named_modules() if path and path.count(".") < 2)
        lacking = "projector" if found.towers else "vision tower"
        what = f"no module of this model is known as its {lacking}; it has {known}"
        raise Refused([Problem(TOWER, True, what, "train a language model alone, or one of another kind")])
    return found


def sees(model: PreTrainedModel) -> bool:
    """Whether the model takes images."""
    return model.config.to_dict().get("vision_config") is not None


def check(model: PreTrainedModel, method: MethodConfig) -> None:
    """Raise Refused for a switch of models that see, where the model reads text alone."""
    if sees(model):
        return
    switches = (
        (TOWER, method.freeze_vision_tower, True),
        (PROJECTOR, method.freeze_multi_modal_projector, True),
        (ONLY, method.train_mm_proj_only, False),
    )
    problems = [
        Problem(key, value, f"has no effect: {type(model).__name__} reads text alone", "leave it out")
        for key, value, default in switches
        if value is not default
    ]
    if problems:
        raise Refused(problems)


def frozen(model: PreTrainedModel, method: MethodConfig) -> list[str]:
    """Paths of the modules that stay as they are, and take no adapters."""
    known = parts(model)
    spared = [] if method.freeze_multi_modal_projector else list(known.projectors)
    towers = known.towers if method.freeze_vision_tower else ()
    held = [] if spared else list(known.projectors)
    return [*held, *_without(model, towers, spared)]


def set_trained(model: PreTrainedModel, method: MethodConfig) -> None:
    """Make the tower and the projector trainable, or not, as the switches say; nothing else is touched."""
    known = parts(model)
    for paths, trained in (
        (known.towers, not method.freeze_vision_tower),
        (known.projectors, not method.freeze_multi_modal_projector),  # after the tower in which it may lie
    ):
        for path in paths:
            model.get_submodule(path).requires_grad_(trained)


def train_projector_only(model: PreTrainedModel) -> None:
    """Make the projector trainable, and nothing else."""
    model.requires_grad_(False)
    for path in parts(model).projectors:
        model.get_submodule(path).requires_grad_(True)


def _outermost(model: nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
    paths: list[str] = []
    for path, _ in model.named_modules():
        if last_part(path) in names and not within(path, paths):
            paths.append(path)
    return tuple(paths)


def _without(model: nn.Module, paths: tuple[str, ...], spared: list[str]) -> list[str]:
    """The modules at `paths`, each cut into its parts where one of `spared` lies in it."""
    found: list[str] = []
    for path in paths:
        if within(path, spared):
            continue
        if any(within(inner, [path]) for inner in spared):
            children = tuple(f"{path}.{name}" for name, _ in model.get_submodule(path).named_children())
            found += _without(model, children, spared)
        else:
            found.append(path)
    return found
