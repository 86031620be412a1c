"""From the config and the tokenizer to the `Setup` that decides what a row becomes, and to its digest."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.cache import digest
from llmf_hydra.data.chat.index import tool_formats
from llmf_hydra.data.chat.template import load_chat
from llmf_hydra.data.chat.tools import DEFAULT_FORMAT
from llmf_hydra.data.sources.dataset_info import Source
from llmf_hydra.data.tokenize.encode import make_encoder
from llmf_hydra.data.tokenize.features import Setup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def make_setup(
    data: DataConfig,
    kind: str,
    tokenizer: "PreTrainedTokenizerBase",
    generation: GenerationConfig,
    packing: bool,
    media: tuple[str, ...] = (),
) -> Setup:
    """All that decides what a row becomes. Raises Refused."""
    text = kind == "text"
    begin = tuple(tokenizer("")["input_ids"])[:1] if text else ()
    return Setup(
        kind,
        make_encoder(tokenizer),
        None if text else load_chat(data, generation, tokenizer),
        data.cutoff_len,
        data.train_on_prompt,
        data.mask_history,
        split_long=text and packing,
        bos=begin if begin == (tokenizer.bos_token_id,) else (),
        eos=(cast("int", tokenizer.eos_token_id),) if text and tokenizer.eos_token_id is not None else (),
        media=media,
        special=tuple(tokenizer.all_special_tokens) if tokenizer.split_special_tokens else (),
        watched=() if tokenizer.split_special_tokens else tuple(tokenizer.all_special_tokens),
    )


def settings(data: DataConfig, setup: Setup, tokenizer: "PreTrainedTokenizerBase") -> dict[str, object]:
    """What the tokens of any dataset depend on, by the names that a user knows."""
    chat = setup.chat
    return {
        "version of the encoder": digest.VERSION,
        "kind": setup.kind,
        "tokenizer": digest.of_tokenizer(tokenizer, setup.encoder.state()),
        "template": digest.of([chat.text, chat.stops, chat.own_system]) if chat else None,
        "generation.default_system": chat.default_system if chat else None,
        "data.tool_format": chat.tool_format if chat else None,
        "text of the tool format": digest.of(tool_formats()[chat.tool_format or DEFAULT_FORMAT])
        if chat
        else None,
        "data.cutoff_len": setup.cutoff_len,
        "data.train_on_prompt": setup.train_on_prompt,
        "data.mask_history": setup.mask_history,
        "data.max_samples": data.max_samples,
        "data.skip_bad_rows": data.skip_bad_rows,
        "model.split_special_tokens": bool(setup.special),
        "data.packing of plain text": setup.split_long,
        "media": setup.media,
        "begin and end of a text": [setup.bos, setup.eos],
    }


def source_digest(
    source: Source, settings: Mapping[str, object], of_file: Callable[[Path], str] = digest.of_file
) -> str:
    """What the tokens of one dataset depend on: its content, how it is read, and the settings."""
    reading = [source.format, dict(source.columns), dict(source.tags), source.ranking, source.given_columns]
    media = str(source.media_dir) if source.media else ""
    return digest.of([[of_file(path) for path in source.files], reading, media, settings])
