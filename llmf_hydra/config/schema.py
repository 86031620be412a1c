"""`Config`: the sixteen groups as one typed object, and the walk over all its parameters."""

import dataclasses
import functools
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmf_hydra.config.groups.data import Data
from llmf_hydra.config.groups.evaluation import Evaluation
from llmf_hydra.config.groups.export import Export
from llmf_hydra.config.groups.generation import Generation
from llmf_hydra.config.groups.job import Job
from llmf_hydra.config.groups.launch import Launch
from llmf_hydra.config.groups.method import Method
from llmf_hydra.config.groups.model import Model
from llmf_hydra.config.groups.optimizer import Optimizer
from llmf_hydra.config.groups.processor import Processor
from llmf_hydra.config.groups.quantization import Quantization
from llmf_hydra.config.groups.rlhf import Rlhf
from llmf_hydra.config.groups.serve import Serve
from llmf_hydra.config.groups.stage import Stage
from llmf_hydra.config.groups.tracking import Tracking
from llmf_hydra.config.groups.training import Training
from llmf_hydra.config.param import Param, declaration


@dataclass
class Config:
    """One run, whole. The groups stand in the order of `conf/config.yaml`."""

    job: Job = field(default_factory=Job)
    stage: Stage = field(default_factory=Stage)
    method: Method = field(default_factory=Method)
    optimizer: Optimizer = field(default_factory=Optimizer)
    rlhf: Rlhf = field(default_factory=Rlhf)
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    training: Training = field(default_factory=Training)
    quantization: Quantization = field(default_factory=Quantization)
    processor: Processor = field(default_factory=Processor)
    generation: Generation = field(default_factory=Generation)
    evaluation: Evaluation = field(default_factory=Evaluation)
    export: Export = field(default_factory=Export)
    tracking: Tracking = field(default_factory=Tracking)
    launch: Launch = field(default_factory=Launch)
    serve: Serve = field(default_factory=Serve)


GROUPS: dict[str, type] = {f.name: typing.cast(type, f.type) for f in dataclasses.fields(Config)}


@dataclass(frozen=True)
class Entry:
    """One parameter with its address: `rlhf.pref_beta` is group `rlhf`, name `pref_beta`."""

    group: str
    name: str
    type: Any
    param: Param

    @property
    def key(self) -> str:
        return f"{self.group}.{self.name}"

    @property
    def is_choice(self) -> bool:
        """Whether the value comes from the choice of a file (`stage=dpo`), not from a switch of its own."""
        return self.name == "name"

    @property
    def type_name(self) -> str:
        """The type as a reader writes it: `int`, `str or null`."""
        if self.type is Any:
            return "str or mapping"
        names = [getattr(t, "__name__", str(t)) for t in typing.get_args(self.type) or (self.type,)]
        return " or ".join("null" if name == "NoneType" else name for name in names)


@functools.cache
def entries() -> dict[str, Entry]:
    """All parameters by their full key, in the order of their declaration."""
    return {entry.key: entry for entry in _walk()}


def _walk() -> Iterator[Entry]:
    for group, owner in GROUPS.items():
        hints = typing.get_type_hints(owner)
        for f in dataclasses.fields(owner):
            yield Entry(group, f.name, hints[f.name], declaration(f))


def value_at(cfg: Config, key: str) -> Any:
    """The value of a full key such as `rlhf.pref_beta`."""
    group, name = key.split(".", 1)
    return getattr(getattr(cfg, group), name)
