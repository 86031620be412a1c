"""What a method's file must have, and how it is reached by the method's name."""

from importlib import import_module
from typing import Protocol, cast

from peft import PeftModel
from transformers import PreTrainedModel

from llmf_hydra.config.groups.method import MethodConfig


class Method(Protocol):
    """A file of this room, named as `method.name` names it."""

    def apply(
        self, model: PreTrainedModel, method: MethodConfig, *, pure: bool
    ) -> PreTrainedModel | PeftModel:
        """The model with what is trained made trainable; `pure` keeps that in the model's type. Raises Refused."""
        ...


class AdapterMethod(Method, Protocol):
    """A method whose adapters are saved and trained on."""

    def like(self, model: PreTrainedModel | PeftModel, adapter: str, *, pure: bool) -> PeftModel:
        """The model with a fresh adapter of a saved one's shape. Raises Refused."""
        ...

    def load(self, model: PeftModel, adapter: str) -> PeftModel:
        """The saved adapter's weights in place of the fresh ones. Raises Refused."""
        ...


def load_method(name: str) -> Method:
    """The method of that name."""
    return cast("Method", import_module(f"llmf_hydra.methods.{name}"))


def load_adapter_method(name: str) -> AdapterMethod:
    """The method of that name, whose description in `config/choices.py` says that it has adapters."""
    return cast("AdapterMethod", import_module(f"llmf_hydra.methods.{name}"))
