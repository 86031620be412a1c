"""`llmf score FILE --model FOLDER`: what a reward model thinks of the answers in a file."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from llmf_hydra import optional
from llmf_hydra.cli.commands import Parser
from llmf_hydra.errors import DONE, Problem, Refused
from llmf_hydra.runs.imports import HQQ


def main(argv: Sequence[str]) -> int:
    """Score the dialogues of a file; a JSON line each: row, score. Raises Refused."""
    asked = _parser().parse_args(argv)
    if not asked.file.is_file():
        raise Refused([Problem("FILE", asked.file, "there is no such file")])
    if not any((asked.model / config).is_file() for config in ("config.json", "adapter_config.json")):
        what = "holds no saved model" if asked.model.is_dir() else "there is no such folder"
        raise Refused([Problem("--model", asked.model, what, "name the folder final/ of a run of stage=rm")])
    if asked.batch < 1:
        raise Refused([Problem("--batch", asked.batch, "must be >= 1")])
    if asked.out is not None and (asked.out.exists() or not asked.out.absolute().parent.is_dir()):
        what = "is there already" if asked.out.exists() else "lies in a folder that does not exist"
        raise Refused([Problem("--out", asked.out, what, "name a new file")])
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    optional.leave_out_unused(HQQ)
    with optional.put_off():
        from llmf_hydra.jobs.score import scores  # here: it imports torch, which a refusal doesn't wait for

    lines = (json.dumps(line) + "\n" for line in scores(asked.file, asked.model, asked.batch))
    if asked.out is None:
        sys.stdout.writelines(lines)
    else:
        asked.out.write_text("".join(lines), encoding="utf8")
    return DONE


def _parser() -> Parser:
    parser = Parser("score")
    parser.add_argument(
        "file", type=Path, help="dialogues with answers, in any format that trains; the last answer is scored"
    )
    parser.add_argument("--model", type=Path, required=True, help="the folder final/ of a run of stage=rm")
    parser.add_argument("--out", type=Path, help="file to write; left out: standard output")
    parser.add_argument("--batch", type=int, default=8, help="answers at a time")
    return parser
