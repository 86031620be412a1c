"""`stage=sft`: supervised fine-tuning on the answers of dialogues; at evaluation the held-out prompts can be
answered and compared with the references."""

import json
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from datasets import Dataset

from llmf_hydra.data.collate import TokenRow
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.generation import Sampling, roll_out, sampling, seeded
from llmf_hydra.training.language import LanguageTrainer
from llmf_hydra.training.text_metrics import scores
from llmf_hydra.training.token_logprobs import IGNORED

FOLDER = "generated"  # in the run's folder: a file an evaluation


class DialogueTrainer(LanguageTrainer):
    """Logs BLEU-4, ROUGE and exact matches of generated answers where `training.predict_with_generate` asks."""

    def note_rows(self, rows: Dataset) -> None:
        if self.context.cfg.training.predict_with_generate:
            self._generate(rows)

    def _generate(self, rows: Dataset) -> None:
        """Answer the last question of each row."""
        size = self.args.per_device_eval_batch_size
        pairs = [last_answer(cast("TokenRow", row)) for row in rows]
        texts: list[tuple[str, str, str]] = []
        how = self._sampling()
        with seeded(self.args.seed, self.args.device):  # the training's random numbers stay as they are
            for start in range(0, len(pairs), size):
                texts += self._answered(pairs[start : start + size], how)
        found = [scores(answer, reference) for _, answer, reference in texts]
        self.note(**{name: torch.tensor([of[name] for of in found]) for name in scores("", "")})
        self._write(texts)

    def _sampling(self) -> Sampling:
        generation = self.context.cfg.generation
        how = sampling(generation, self.context.model, self.context.tokenizer, self.context.stops)
        how.config.num_beams = generation.eval_num_beams or generation.num_beams
        if how.config.num_beams > 1:
            how.config.length_penalty = generation.length_penalty
        return how

    def _answered(
        self, pairs: Sequence[tuple[list[int], list[int]]], how: Sampling
    ) -> Iterator[tuple[str, str, str]]:
        """Prompt, answer and reference of some rows, as text."""
        prompts = [prompt for prompt, _ in pairs]
        whole = roll_out(self.context.model, prompts, how)
        width = max(map(len, prompts))
        for line, mask, (prompt, reference) in zip(whole.ids, whole.mask, pairs, strict=True):
            answer = line[width:][mask].tolist()
            yield self._text(prompt, False), self._text(answer), self._text(reference)

    def _text(self, ids: list[int], skip: bool | None = None) -> str:
        skip = self.context.cfg.generation.skip_special_tokens if skip is None else skip
        return str(self.context.tokenizer.decode(ids, skip_special_tokens=skip))

    def _write(self, texts: Sequence[tuple[str, str, str]]) -> None:
        folder = self.context.out / FOLDER
        folder.mkdir(exist_ok=True)
        rank = f"-{self.args.process_index}" if self.args.world_size > 1 else ""
        with (folder / f"step-{self.state.global_step}{rank}.jsonl").open("a", encoding="utf8") as out:
            for prompt, answer, reference in texts:
                line = {"prompt": prompt, "answer": answer, "reference": reference}
                out.write(json.dumps(line, ensure_ascii=False) + "\n")


def last_answer(row: TokenRow) -> tuple[list[int], list[int]]:
    """The tokens before the last trained span of a row, and those of the span."""
    labels = row["labels"]
    end = max(at for at, label in enumerate(labels) if label != IGNORED) + 1
    start = max((at for at in range(end) if labels[at] == IGNORED), default=-1) + 1
    return row["input_ids"][:start], row["input_ids"][start:end]


def build_trainer(context: RunContext) -> DialogueTrainer:
    """The trainer of the next token, on the tokens of the answers."""
    return DialogueTrainer(context)
