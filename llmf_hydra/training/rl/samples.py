"""`samples.jsonl`: what the policy said as it was trained, for people."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llmf_hydra.training.rewards.texts import texts
from llmf_hydra.training.rl.experience import Experience

FILE = "samples.jsonl"
SHOWN = 2  # dialogues of each buffer


class Samples:
    """Appends the first dialogues of each buffer to a file of the run's folder."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, skip_special_tokens: bool):
        self._file, self._tokenizer, self._skip = folder / FILE, tokenizer, skip_special_tokens

    def drop_from(self, step: int) -> None:
        """Take away what a resumed run does again: the lines of buffers that were filled at this step or later."""
        if self._file.exists():
            lines = self._file.read_text(encoding="utf8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            kept = [line for line in whole if json.loads(line)["step"] < step]
            self._file.write_text("".join(kept), encoding="utf8")

    def write(self, step: int, answers: Experience) -> None:
        """A line a dialogue, with the optimizer steps done before it."""
        shown = answers.rollouts.rows(0, SHOWN)
        said = zip(
            *texts(shown, self._tokenizer, self._skip),
            answers.scores,
            answers.kl,
            answers.lengths,
            strict=False,
        )
        with self._file.open("a", encoding="utf8") as file:
            for prompt, response, score, kl, length in said:
                line = {"step": step, "prompt": prompt, "response": response, "score": float(score),
                        "kl": float(kl), "tokens": int(length)}  # fmt: skip
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
