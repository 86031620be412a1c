"""Our trainer of a command line: the rows, the settings and the model that peers get too."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.turns import Steps


def trainer_of(words: list[str]) -> Any:
    """Our trainer, with a cache that holds the models alone: nothing is kept of earlier rows."""
    from llmf_hydra.config import compose
    from llmf_hydra.jobs import assemble
    from llmf_hydra.paths import cache_dir
    from llmf_hydra.stages.protocol import load_stage

    cache = Path(tempfile.mkdtemp())
    (cache_dir() / "models").mkdir(parents=True, exist_ok=True)
    (cache / "models").symlink_to(cache_dir() / "models")
    os.environ["LLMF_CACHE"] = str(cache)
    cfg = compose.typed(compose.composed(words))
    inputs = assemble.load_inputs(cfg)
    model = assemble.load_policy(cfg, inputs.precision, inputs.tokenizer)
    context = assemble.run_context(cfg, inputs, model, [], Path(tempfile.mkdtemp()))
    return load_stage(cfg.stage.name).build_trainer(context)


def facts(trainer: Any) -> dict[str, Any]:
    """What is told of a trainer before its first step: its rows' tokens, prompts of pairs counted once per answer."""
    rows = list(trainer.train_dataset)
    lists = [key for key in rows[0] if key.endswith("_ids")]
    tokens = {key: sum(len(row[key]) for row in rows) for key in lists}
    return {"tokens": tokens, "device": trainer.args.device.type}


def main(asked: dict[str, Any]) -> None:
    """Train by turns."""
    steps, trainer = Steps(), trainer_of(asked["words"])
    steps.run(trainer, facts(trainer))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
