"""Answers by beam search: Transformers' own `generate`, since all beams of an answer are compared at each token."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from llmf_hydra.serve.batch import padded
from llmf_hydra.serve.engine import Decoding
from llmf_hydra.serve.loading import Loaded
from llmf_hydra.serve.sampling import COLDEST
from llmf_hydra.serve.text import Ends
from llmf_hydra.training.generation import StopAtTexts, StopTexts, seeded


class _Cancelled(StoppingCriteria):
    def __init__(self, asked: Callable[[], bool]):
        self._asked = asked

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.BoolTensor:
        done = torch.full((input_ids.shape[0],), self._asked(), device=input_ids.device)
        return cast("torch.BoolTensor", done)


@torch.inference_mode()
def search(
    loaded: Loaded,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    limit: int,
    ends: Ends,
    *,
    use_cache: bool,
    cancelled: Callable[[], bool],
) -> list[list[int]]:
    """The best answer to each prompt, as token ids with the end; at most `limit` tokens of each."""
    ids, mask = padded(prompts, loaded.pad_id, loaded.device)
    random = {
        "temperature": max(decoding.temperature, COLDEST),
        "top_p": decoding.top_p,
        "top_k": decoding.top_k,
    }
    config = GenerationConfig(
        do_sample=decoding.do_sample,
        **(random if decoding.do_sample else {}),
        num_beams=decoding.num_beams,
        length_penalty=decoding.length_penalty,
        repetition_penalty=decoding.repetition_penalty,
        max_new_tokens=limit,
        eos_token_id=sorted(ends.ids) or None,
        pad_token_id=loaded.pad_id,
        use_cache=use_cache,
    )
    criteria: list[StoppingCriteria] = [_Cancelled(cancelled)]
    texts = (ends.texts.texts if ends.texts else ()) + decoding.stop
    if texts:
        criteria.append(StopAtTexts(StopTexts(loaded.tokenizer, texts), ids.shape[1]))
    seed = decoding.seed if decoding.seed is not None else int(torch.seed() % 2**31)
    network: Any = loaded.network
    with seeded(seed, loaded.device):
        made = network.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            stopping_criteria=StoppingCriteriaList(criteria),
        )
    return [_trimmed(row, ends, loaded.pad_id) for row in made[:, ids.shape[1] :].tolist()]


def _trimmed(row: list[int], ends: Ends, pad_id: int) -> list[int]:
    """Without the padding after the end, which may be the end token again."""
    end = next((at for at, token in enumerate(row) if token in ends.ids), None)
    if end is not None:
        return row[: end + 1]
    while row and row[-1] == pad_id:
        row = row[:-1]
    return row
