"""`Config`: the sixteen groups as one typed object, and the walk over all its parameters."""

import dataclasses
import functools
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmf_hydra.config.choices import METHODS
from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.evaluation import EvaluationConfig
from llmf_hydra.config.groups.export import ExportConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.config.groups.job import JobConfig
from llmf_hydra.config.groups.launch import LaunchConfig
from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.config.groups.processor import ProcessorConfig
from llmf_hydra.config.groups.quantization import QuantizationConfig
from llmf_hydra.config.groups.rlhf import RlhfConfig
from llmf_hydra.config.groups.serve import ServeConfig
from llmf_hydra.config.groups.stage import StageConfig
from llmf_hydra.config.groups.tracking import TrackingConfig
from llmf_hydra.config.groups.training import TrainingConfig
from llmf_hydra.config.param import Param, declaration
from llmf_hydra.errors import NO_VALUE, Problem

NOT_BUILT = "declared, not built yet"


@dataclass
class Config:
    """One run, whole. The groups stand in the order of `conf/config.yaml`."""

    job: JobConfig = field(default_factory=JobConfig)
    stage: StageConfig = field(default_factory=StageConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    rlhf: RlhfConfig = field(default_factory=RlhfConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    processor: ProcessorConfig = field(default_factory=ProcessorConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)

    @property
    def uses_reference(self) -> bool:
        """Whether the loss compares the policy with a reference model."""
        free = self.stage.info.several_losses and self.rlhf.reference_free
        free = free or (self.stage.name == "grpo" and self.rlhf.beta == 0)
        return self.stage.info.reference and not free

    @property
    def packs(self) -> bool:
        """Whether several rows share a sequence: as the config says, else only plain text does."""
        data = self.data
        return data.neat_packing or (self.stage.rows == "text" if data.packing is None else data.packing)

    @property
    def network(self) -> ModelConfig:
        """The group `model` as the trained model is loaded: with the length that scaled positions must hold."""
        if self.model.rope_scaling is None and not self.model.use_unsloth:
            return self.model
        return dataclasses.replace(self.model, model_max_length=self.input_length)

    @property
    def input_length(self) -> int:
        """Maximum tokens of the model's input: as given, else those of a row."""
        return self.model.model_max_length or self.data.cutoff_len

    @property
    def block_diagonal(self) -> bool:
        """Whether attention keeps the rows of a pack apart."""
        return self.data.neat_packing or self.model.block_diag_attn

    @property
    def method_label(self) -> str:
        """The method with what a preset of it is called: `lora (pissa)`, `freeze (llama_pro)`."""
        method = self.method
        lora = method.name == "lora"
        variants = {
            "qlora": lora and self.quantization.quantization_bit is not None,
            "pissa": lora and method.pissa_init,
            "dora": lora and method.use_dora,
            "rslora": lora and method.use_rslora,
            "loraplus": lora and method.loraplus_lr_ratio is not None,
            "llama_pro": method.use_llama_pro,
        }
        named = [name for name, on in variants.items() if on]
        return f"{method.name} ({', '.join(named)})" if named else method.name

    @property
    def trained_adapter(self) -> str | None:
        """The saved adapter that the run trains on: the last one given, unless a new one is put on top of them all."""
        given = self._adapters
        return given[-1] if given and not self.method.create_new_adapter else None

    @property
    def merged_adapters(self) -> list[str]:
        """The saved adapters that become part of the weights, in their order."""
        return self._adapters[:-1] if self.trained_adapter else self._adapters

    @property
    def starts_on_residual(self) -> bool:
        """Whether a new adapter takes its start out of the base (PiSSA): switched off, it doesn't leave the base."""
        return self.method.pissa_init and self.trained_adapter is None

    @property
    def leaves_residual(self) -> bool:
        """Whether the adapter in `final/` stands on the residual that is saved beside it."""
        return self.starts_on_residual and not self.method.pissa_convert

    @property
    def _adapters(self) -> list[str]:
        """The adapters that the run starts from; none where the method has none."""
        return self.model.adapters if METHODS[self.method.name].adapters else []


GROUPS: dict[str, type] = {f.name: typing.cast(type, f.type) for f in dataclasses.fields(Config)}


@dataclass(frozen=True)
class Entry:
    """One parameter with its address: `rlhf.pref_beta` is group `rlhf`, name `pref_beta`."""

    group: str
    name: str
    type: object
    param: Param

    @property
    def key(self) -> str:
        return f"{self.group}.{self.name}"

    @property
    def is_choice(self) -> bool:
        """Whether the value comes from the choice of a file (`stage=dpo`), not from a switch of its own."""
        return self.name == "name"

    def not_built(self, value: object) -> Problem | None:
        """The refusal of a value whose behaviour isn't built yet, or None."""
        if value in self.param.planned_choices:
            shown = f"{self.group}={value}" if self.is_choice else f"{self.key}={value}"
            built = [choice for choice in self.param.choices if choice not in self.param.planned_choices]
            return Problem(shown, NO_VALUE, NOT_BUILT, f"available: {', '.join(built)}")
        if self.param.planned and value != self.param.default:
            return Problem(self.key, value, NOT_BUILT, "leave it out; `llmf status` lists what is built")
        return None

    @property
    def type_name(self) -> str:
        """The type as a reader writes it: `int`, `str or null`."""
        if self.type is Any:
            return self.param.shown_type
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


def acts(cfg: Config, entry: Entry) -> bool:
    """Whether a parameter has an effect beside the other values."""
    return all(value_at(cfg, key) in allowed for key, allowed in entry.param.only.items())


def changed(cfg: Config, group: str) -> dict[str, Any]:
    """The values of a group, choices apart, that have an effect and aren't the default, by full key."""
    own = [entry for entry in entries().values() if entry.group == group and not entry.is_choice]
    values = {entry.key: value_at(cfg, entry.key) for entry in own if acts(cfg, entry)}
    return {key: value for key, value in values.items() if value != entries()[key].param.default}


def value_at(cfg: Config, key: str) -> Any:
    """The value of a full key such as `rlhf.pref_beta`."""
    group, name = key.split(".", 1)
    return getattr(getattr(cfg, group), name)
