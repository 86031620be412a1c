"""From a config to a model that answers: tokenizer, chat template, network with adapters, in evaluation mode."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from llmf_hydra.config.schema import Config
from llmf_hydra.data.chat.stops import turn_stops
from llmf_hydra.data.tokenize.features import Setup
from llmf_hydra.data.tokenize.setup import make_setup
from llmf_hydra.models.adapters import put_on
from llmf_hydra.models.base import ADAPTERS, load_base
from llmf_hydra.models.load import load_tokenizer
from llmf_hydra.models.network import Network
from llmf_hydra.models.precision import at_inference
from llmf_hydra.models.sources import hubs

TEMPLATES = ("chat_template.jinja", "tokenizer_config.json")


@dataclass(frozen=True)
class Loaded:
    """A model ready to answer."""

    name: str  # as its users call it: the run, or the model
    network: Network  # in evaluation mode, without gradients, on its device
    tokenizer: PreTrainedTokenizerBase
    speech: Setup | None  # writes dialogues as training did; None: there is no chat template
    stops: tuple[str, ...]  # texts with which the chat template ends an answer
    scores: bool = False  # gives a score (stage=rm) in place of text

    @property
    def pad_id(self) -> int:
        """The padding token, which every tokenizer that we load has."""
        return int(self.tokenizer.pad_token_id)  # pyright: ignore

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return next(self.network.parameters()).device

    @property
    def limit(self) -> int | None:
        """Maximum tokens of prompt and answer together; None where the model's config names none."""
        return getattr(self.network.config.get_text_config(), "max_position_embeddings", None)  # pyright: ignore


def load(cfg: Config) -> Loaded:
    """The model that a config describes, as `job=chat` and its kin use it. Raises Refused."""
    tokenizer, speech = load_speech(cfg)
    dtype = at_inference(cfg)
    network: Network = load_base(cfg, dtype, tokenizer)
    if cfg.trained_adapter is not None:
        # Merged where that is exact; into bfloat16 or quantized weights the update would be rounded.
        exact = dtype == torch.float32 and cfg.quantization.quantization_bit is None
        network = put_on(network, [cfg.trained_adapter], ADAPTERS, cfg.model, merged=exact)  # pyright: ignore
    network.requires_grad_(False).eval()
    if _may_move(cfg) and torch.cuda.is_available():
        network.to("cuda")  # pyright: ignore
    stops = turn_stops(speech.chat) if speech is not None and speech.chat is not None else ()
    return Loaded(_name(cfg), network, tokenizer, speech, stops, cfg.stage.scores)


def load_speech(cfg: Config) -> tuple[PreTrainedTokenizerBase, Setup | None]:
    """The tokenizer with its padding token, and how it writes dialogues: by the named template, that of the adapter, or
    its own. Raises Refused."""
    tokenizer = load_tokenizer(cfg.network)
    if cfg.data.template is None and cfg.trained_adapter is not None:
        folder = Path(hubs.adapter_folder(cfg.trained_adapter, cfg.model, ADAPTERS))
        if any((folder / file).is_file() for file in TEMPLATES):
            saved = AutoTokenizer.from_pretrained(folder, trust_remote_code=cfg.model.trust_remote_code)
            tokenizer.chat_template = saved.chat_template or tokenizer.chat_template
    if cfg.data.template is None and not tokenizer.chat_template:
        return tokenizer, None
    speech = make_setup(cfg.data, "prompt", tokenizer, cfg.generation, packing=False)
    if speech.chat is not None:
        tokenizer.chat_template = speech.chat.text  # saved with it by an export
    return tokenizer, speech


def _may_move(cfg: Config) -> bool:
    """Whether the loader has left the network where it lay."""
    return cfg.model.device_map is None and cfg.quantization.quantization_bit is None


def _name(cfg: Config) -> str:
    """The run's folder by its two last names, else the model's name."""
    if cfg.job.from_run is not None:
        return "/".join(Path(cfg.job.from_run).resolve().parts[-2:])
    return str(cfg.trained_adapter or cfg.model.model_name_or_path)
