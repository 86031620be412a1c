"""`job=export`: a model in a folder of its own, adapters merged, for use without this package."""

import logging
import shutil
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config
from llmf_hydra.data.chat.stops import turn_stops
from llmf_hydra.data.chat.template import Chat
from llmf_hydra.export import files, push, quantize
from llmf_hydra.export.card import Export, runs_behind
from llmf_hydra.export.merge import merged_model
from llmf_hydra.export.ollama import modelfile
from llmf_hydra.models.load import load_tokenizer
from llmf_hydra.models.sources import hubs
from llmf_hydra.models.value_head import FILE as VALUE_HEAD
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs.checkpoints import CARD
from llmf_hydra.runs.manifest import digest_of_file
from llmf_hydra.serve.loading import load_speech

log = logging.getLogger(__name__)

MODELFILE = "Modelfile"


def run(cfg: Config, out: Path, *, resume: bool) -> None:
    """Merge, write, quantize and push as the group `export` says. Raises Refused."""
    export, token = cfg.export, cfg.model.hf_hub_token
    target = Path(str(export.export_dir)).expanduser().absolute()
    if export.export_hub_model_id is not None:
        push.prepare(export.export_hub_model_id, token)
    tokenizer, speech = load_speech(cfg)
    chat = speech.chat if speech is not None else None
    bits = export.export_quantization_bit
    samples = quantize.calibration(export, cfg.data, tokenizer, chat) if bits is not None else []
    model = merged_model(cfg, tokenizer)
    with files.new_folder(target, overwrite=export.overwrite) as draft:
        _write_model(cfg, draft, model, tokenizer, chat)
        device, dtype = model.device.type, str(model.dtype).removeprefix("torch.")
        if bits is not None:
            del model
            _quantize_in_place(cfg, draft, samples)
        made = Export(
            model=str(cfg.model.model_name_or_path),
            adapters=cfg.model.adapters,
            dtype=dtype,
            device=device,
            scores=cfg.stage.scores,
            chats=chat is not None,
            bits=bits,
            runs=runs_behind(cfg),
            files={file.name: digest_of_file(file) for file in sorted(draft.iterdir())},
        )
        (draft / CARD).write_text(made.card(), encoding="utf8")
        runs.write_json(draft / files.RECORD, made.record())
    runs.update_manifest(out, exported=str(target))
    log.info("%s holds the model, %s", export.export_dir, dtype if bits is None else f"{bits} bits")
    if export.export_hub_model_id is not None:
        log.info("pushed to %s", push.push(target, export.export_hub_model_id, token))


def _write_model(
    cfg: Config, draft: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat: Chat | None
) -> None:
    """Weights, tokenizer, generation config, Modelfile, and the value head that PPO leaves."""
    export, base = cfg.export, Path(hubs.folder_of(cfg.model, weights=False))
    stops = chat.turn_ends if chat is not None else ()
    ends = [
        ids[0]
        for ids in (tokenizer.encode(stop, add_special_tokens=False) for stop in stops)
        if len(ids) == 1
    ]
    if not cfg.stage.scores:
        files.write_generation_config(model, tokenizer, ends)
    files.write_weights(model, draft, f"{export.export_size}GB", legacy=export.export_legacy_format)
    changed = bool(names(cfg.model.new_special_tokens))
    own = load_tokenizer(cfg.model).chat_template
    template = chat.text if chat is not None and chat.text != own else None
    files.write_tokenizer(tokenizer, base, draft, changed=changed, template=template)
    if not cfg.stage.scores:
        (draft / MODELFILE).write_text(_modelfile(model, tokenizer, chat), encoding="utf8")
    for name in [*cfg.model.adapters[-1:], str(base)]:
        head = Path(name).expanduser() / VALUE_HEAD
        if head.is_file():
            shutil.copyfile(head, draft / VALUE_HEAD)
            break


def _modelfile(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat: Chat | None) -> str:
    begin = list(tokenizer("")["input_ids"])[:1] == [tokenizer.bos_token_id]
    ends = [*(turn_stops(chat) if chat is not None else ()), str(tokenizer.eos_token)]
    return modelfile(
        chat,
        list(dict.fromkeys(ends)),
        begin=str(tokenizer.bos_token) if begin else "",
        longest=getattr(model.config.get_text_config(), "max_position_embeddings", None),
    )


def _quantize_in_place(cfg: Config, folder: Path, samples: list[quantize.Sample]) -> None:
    """Quantized weights and their config in the place of the whole ones."""
    quantized = folder / ".quantized"
    quantize.quantize(folder, quantized, cfg.export, samples)
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
        file.unlink()
    for file in quantized.iterdir():
        if file.is_file() and (file.name == "config.json" or not (folder / file.name).exists()):
            file.replace(folder / file.name)
    shutil.rmtree(quantized)
