"""The version in the digests of tokenized data: a change of what the encoder writes must raise it.

Otherwise rows that were tokenized before the change would be found, and trained on.
"""

import json
from pathlib import Path
from typing import Any

from support.data_samples import described, run

from llmf_hydra.data.cache import digest

OUTPUTS = {2: "9a1b7dd76b0308b8180059c8c8824b04", 3: "9b05bd46f33da1d5a49535ad78867d7b"}
"""Digest of all columns of the corpus below, by version. Templates and tool formats have digests of their own.
Another digest: raise `digest.VERSION` and add a line."""

LONG = " good" * 40
TALK = [
    {"role": "system", "content": "be good"},
    {"role": "user", "content": "hello\n\nworld é"},
    {"role": "assistant", "content": "good", "reasoning_content": "how"},
    {"role": "user", "content": f"what{LONG}"},
    {"role": "assistant", "content": f"answer{LONG}"},
]
TEXTS = [{"text": "hello world"}, {"text": LONG}]
DIALOGUES = [
    {"messages": TALK},
    {"messages": TALK[1:3]},
]
PAIRS = [{"instruction": "hello", "chosen": LONG, "rejected": "bad"}]
LABELLED = [{"instruction": "hello", "output": f"good{LONG}", "kto_tag": True}]
CORPUS: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("text", TEXTS, {"formatting": "text"}),
    ("dialogue", DIALOGUES, {"formatting": "openai"}),
    ("preference", PAIRS, {"ranking": True}),
    ("feedback", LABELLED, {}),
    ("prompt", LABELLED, {}),
]
SETTINGS: list[dict[str, Any]] = [{}, {"cutoff_len": 48}, {"mask_history": True}, {"train_on_prompt": True}]


def test_the_version_changes_with_what_the_encoder_writes(tokenizer: Any, tmp_path: Path) -> None:
    written: list[Any] = []
    for kind, rows, info in CORPUS:
        table = described(tmp_path, rows, info)
        for settings in SETTINGS:
            written.append(
                [kind, settings, run(tokenizer, "rows", kind, dataset_dir=table, **settings).train[:]]
            )
        packing = kind in ("text", "dialogue")
        written.append(
            run(tokenizer, "rows", kind, dataset_dir=table, packing=packing, neat_packing=packing).train[:]
        )
    assert digest.of(json.loads(json.dumps(written))) == OUTPUTS[digest.VERSION]
