"""`llmf expand MODEL --blocks N --out DIR`: add identity blocks to a model, to train them alone (LLaMA Pro)."""

import os
from collections.abc import Sequence
from pathlib import Path

from llmf_hydra import optional
from llmf_hydra.cli.commands import Parser
from llmf_hydra.config.groups.model import EMBEDDED, TINY
from llmf_hydra.errors import DONE, Problem, Refused, did_you_mean
from llmf_hydra.runs.imports import HQQ

BUILT_IN = {EMBEDDED.partition(":")[2]: EMBEDDED, TINY.partition(":")[2]: TINY}


def main(argv: Sequence[str]) -> int:
    """Write the expanded model and its tokenizer into a new folder. Raises Refused."""
    asked = _parser().parse_args(argv)
    model: str = BUILT_IN.get(asked.model) or asked.model
    if asked.blocks < 1:
        raise Refused([Problem("--blocks", asked.blocks, "must be >= 1")])
    _check_model(model)
    if asked.out.exists():
        raise Refused([Problem("--out", asked.out, "is there already", "name a new folder")])
    if not asked.out.absolute().parent.is_dir():
        raise Refused([Problem("--out", asked.out, "lies in a folder that does not exist", "make it first")])
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    optional.leave_out_unused(HQQ)
    with optional.put_off():
        from llmf_hydra.jobs.expand import expand  # here: it imports torch, which a refusal doesn't wait for

    added, layers = expand(model, asked.blocks, asked.out)
    numbers = ", ".join(map(str, added))
    print(f"{asked.out}: {layers} layers; new, and without effect yet, counted from 0: {numbers}")
    print(
        f"train them: llmf-hydra stage=sft method=llama_pro method.freeze_trainable_layers={asked.blocks} "
        f"model.model_name_or_path={asked.out}"
    )
    return DONE


def _check_model(model: str) -> None:
    """Raise Refused for what is plainly no model; a hub's name is looked up when it is loaded."""
    if model in BUILT_IN.values():
        return
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            whole = "name a folder that save_pretrained wrote"
            remedy = "merge the adapter first" if (folder / "adapter_config.json").is_file() else whole
            raise Refused([Problem("MODEL", model, "the folder holds no config.json", remedy)])
    elif model.startswith((".", "/", "~")) or model.count("/") > 1 or ":" in model:
        raise Refused([Problem("MODEL", model, "there is no such folder", did_you_mean(model, BUILT_IN))])


def _parser() -> Parser:
    parser = Parser("expand")
    parser.add_argument(
        "model", help="a folder, a hub name, smollm2 or tiny; its number of layers is a multiple of N"
    )
    parser.add_argument("--blocks", type=int, required=True, help="number of blocks to add, evenly spread")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; it must not be there yet")
    return parser
