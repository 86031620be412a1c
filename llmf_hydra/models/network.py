"""The two shapes of a network here: a bare model of Transformers, or one with PEFT's adapters on it."""

from peft import PeftModel
from transformers import PreTrainedModel

Network = PreTrainedModel | PeftModel
