"""The engine beside Transformers' own `generate`: alone, together, sampled, stopped, by beams."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.finished_runs import Finished
from support.taught_model import KNOWN
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llmf_hydra.config.schema import Config
from llmf_hydra.data.rows import BadRow
from llmf_hydra.serve.engine import Answer, Decoding, Finish, Request
from llmf_hydra.serve.loading import load
from llmf_hydra.serve.sampling import penalize, sample
from llmf_hydra.serve.speaking import Closed, TooLong
from llmf_hydra.serve.text import Ends, Text
from llmf_hydra.serve.transformers_engine import TransformersEngine
from llmf_hydra.training.generation import StopTexts

PERU = "What is the capital of Peru?"
GREEDY = Decoding(do_sample=False, max_new_tokens=24)


def asked(engine: TransformersEngine, text: str, **decoding: Any) -> Request:
    given = {**vars(GREEDY), **decoding}
    return Request(engine.prompt([{"role": "user", "content": text}]), Decoding(**given))


def by_transformers(engine: TransformersEngine, request: Request, **options: Any) -> list[int]:
    ids = torch.tensor([request.prompt])
    loaded: Any = engine.loaded
    config = GenerationConfig(
        eos_token_id=2, pad_token_id=loaded.pad_id, max_new_tokens=24, do_sample=False, **options
    )
    made = loaded.network.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
    )
    return made[0, ids.shape[1] :].tolist()


def test_answers_are_those_of_transformers_alone_and_together(engine: TransformersEngine) -> None:
    requests = [asked(engine, text) for text in (*KNOWN, "Something that was never said?", "a", "b " * 40)]
    alone = [engine.generate([request])[0] for request in requests]
    assert [answer.ids for answer in alone] == [by_transformers(engine, request) for request in requests]
    assert engine.generate(requests * 2) == alone * 2  # twelve, four at a time: they join and leave
    assert [answer.text for answer in alone[:3]] == list(KNOWN.values())
    assert {answer.finish for answer in alone[:3]} == {Finish.STOP}
    assert alone[0].text == str(engine.loaded.tokenizer.decode(alone[0].ids, skip_special_tokens=True))


def test_an_answer_that_joins_is_the_same(endless: TransformersEngine) -> None:
    short = asked(endless, "later", max_new_tokens=6)
    alone = endless.generate([short])[0]
    long = endless.stream(asked(endless, "first", max_new_tokens=400))
    for _ in range(5):
        next(long)
    assert endless.load[0] == 1
    assert endless.generate([short, short])[1] == alone
    rest = list(long)  # it goes on
    assert rest[-1].finish is Finish.LENGTH and len(rest) == 395


@pytest.mark.parametrize(
    "options", [{"repetition_penalty": 1.4}, {"num_beams": 3}, {"num_beams": 2, "length_penalty": -2.0}]
)
def test_penalties_and_beams_are_those_of_transformers(
    endless: TransformersEngine, options: dict[str, Any]
) -> None:
    requests = [asked(endless, text, **options) for text in ("the sea", "go")]
    answers = endless.generate(requests)
    assert [answer.ids for answer in answers] == [
        by_transformers(endless, one, **options) for one in requests
    ]
    assert answers[0] != endless.generate([asked(endless, "the sea")])[0]


def test_a_seed_decides_what_is_sampled_whoever_is_beside(endless: TransformersEngine) -> None:
    def one(seed: int | None, **more: Any) -> Request:
        return asked(endless, "x", do_sample=True, top_p=1.0, top_k=0, seed=seed, max_new_tokens=8, **more)

    alone = endless.generate([one(1)])[0]
    first, second, cold = endless.generate([one(1), one(2), one(1, temperature=0.01)])
    assert first == alone != second and cold != alone
    assert endless.generate([one(None)])[0] != endless.generate([one(None)])[0]
    assert endless.generate([one(1, num_beams=2)])[0] == endless.generate([one(1, num_beams=2)])[0]


def test_samples_are_drawn_from_what_the_filters_of_transformers_leave() -> None:
    torch.manual_seed(0)
    scores = torch.randn(40) * 3
    for decoding in (
        Decoding(temperature=0.7, top_k=5, top_p=0.8),
        Decoding(temperature=2.0, top_k=0, top_p=0.6),
    ):
        filters = LogitsProcessorList([TemperatureLogitsWarper(decoding.temperature)])
        filters += [TopKLogitsWarper(decoding.top_k)] if decoding.top_k else []
        filters.append(TopPLogitsWarper(decoding.top_p))
        shares = filters(torch.zeros(1, 0, dtype=torch.long), scores[None])[0].softmax(-1)  # pyright: ignore
        random = torch.Generator().manual_seed(3)
        drawn = torch.bincount(
            torch.tensor([sample(scores, decoding, random) for _ in range(2000)]), minlength=40
        )
        assert set(drawn.nonzero().flatten().tolist()) <= set(shares.nonzero().flatten().tolist())
        assert torch.allclose(drawn / 2000, shares, atol=0.04)
    assert penalize(torch.tensor([2.0, -2.0, 1.0]), [0, 1, 1], 2.0).tolist() == [1.0, -4.0, 1.0]


def test_log_probabilities_are_those_of_the_forward_pass(engine: TransformersEngine) -> None:
    request = asked(engine, PERU, logprobs=3)
    (answer,) = engine.generate([request])
    network: Any = engine.loaded.network
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([[*request.prompt, *answer.ids]])).logits[0].log_softmax(-1)
    start = len(request.prompt) - 1
    for at, token in enumerate(answer.tokens):
        assert token.logprob == pytest.approx(float(logits[start + at, token.id]), abs=1e-3)
        assert token.top[0][0] == token.id and len(token.top) == 3
    ((total, greedy),) = engine.log_likelihoods([request.prompt], [answer.ids])
    assert total == pytest.approx(sum(token.logprob or 0.0 for token in answer.tokens), abs=1e-2) and greedy
    longer = engine.log_likelihoods([request.prompt, request.prompt[:5]], [answer.ids, answer.ids[:2]])
    assert longer[0][0] == pytest.approx(total, abs=1e-3) and not longer[1][1]
    after = engine.next_logits([request.prompt, request.prompt[:5]])
    assert after.shape[0] == 2 and int(after[0].argmax()) == answer.ids[0]


def test_stops_end_an_answer_and_are_no_part_of_it(engine: TransformersEngine) -> None:
    cut = engine.generate([asked(engine, PERU, stop=(" is Li", "sea"))])[0]
    assert (cut.text, cut.finish) == ("The capital of Peru", Finish.STOP)
    pieces = list(engine.stream(asked(engine, PERU, stop=("by the sea?", "Lima, in"))))
    assert (
        "".join(piece.text for piece in pieces) == KNOWN[PERU]
    )  # the beginning of a stop is given out in the end
    raw = engine.generate([asked(engine, PERU, skip_special_tokens=False, max_new_tokens=3)])[0]
    assert raw.finish is Finish.LENGTH and len(raw.tokens) == 3


def test_lengths_are_limited_by_one_of_two_settings(endless: TransformersEngine) -> None:
    prompt = asked(endless, "x").prompt
    cases = [({"max_new_tokens": 3, "max_length": 1}, 3), ({"max_new_tokens": 0, "max_length": len(prompt) + 7}, 7),
             ({"max_new_tokens": 0, "max_length": 2}, 1)]  # fmt: skip
    answers = endless.generate([asked(endless, "x", **given) for given, _ in cases])
    assert [len(answer.tokens) for answer in answers] == [length for _, length in cases]
    room = endless.loaded.limit or 0
    with pytest.raises(TooLong, match=f"the model takes {room}"):
        endless.generate([Request([5] * room, GREEDY)])
    (last,) = endless.generate([Request([5] * (room - 2), GREEDY)])
    assert len(last.tokens) == 2


def test_without_the_cache_the_answers_are_the_same(engine: TransformersEngine) -> None:
    plain = TransformersEngine(engine.loaded, slots=3, use_cache=False)
    seen: list[object] = []
    hook = engine.loaded.network.register_forward_pre_hook(
        lambda _, __, given: seen.append((given["use_cache"], given["input_ids"].shape[1])), with_kwargs=True
    )
    requests = [asked(engine, text) for text in KNOWN]
    try:
        without = plain.generate(requests)
        lengths = list(seen)
        assert without == engine.generate(requests)
    finally:
        hook.remove()
        plain.close()
    assert all(used is False and length > 20 for used, length in lengths)  # pyright: ignore


def test_cancelled_and_failed_answers_free_their_place(
    endless: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [endless.stream(asked(endless, "x", max_new_tokens=1500)) for _ in range(6)]
    next(streams[0])
    for stream in streams:
        stream.close()
    while endless.load != (0, 0):
        time.sleep(0.01)
    monkeypatch.setattr(endless._batch, "join", lambda prompts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        endless.generate([asked(endless, "x")])
    assert len(endless.generate([asked(endless, "x", max_new_tokens=2)])[0].tokens) == 2


def test_a_closed_engine_tells_those_who_wait(endless: TransformersEngine) -> None:
    other = TransformersEngine(endless.loaded, slots=1)
    stream = other.stream(asked(other, "x", max_new_tokens=1500))
    next(stream)
    threading.Thread(target=other.close).start()
    with pytest.raises(Closed):
        list(stream)
    with pytest.raises(Closed):
        other.generate([asked(other, "x")])


class Letters:
    """A tokenizer whose tokens are bytes."""

    def decode(self, ids: Sequence[int], **options: object) -> str:
        return bytes(ids).decode("utf8", errors="replace")


def told(text: str, ends: Ends, **decoding: Any) -> list[str]:
    letters: Any = Letters()
    growing = Text(letters, Decoding(**decoding), ends)
    pieces = []
    for byte in text.encode():
        piece, finish = growing.add(byte, len(text.encode()))
        pieces.append(piece)
        if finish is not None:
            break
    return pieces


def test_characters_are_given_out_whole() -> None:
    pieces = told("a東京😀b", Ends(frozenset(), None))
    assert "".join(pieces) == "a東京😀b" and not any("\ufffd" in piece for piece in pieces)
    letters: Any = Letters()
    ends = Ends(frozenset(), StopTexts(letters, ("\nUser:",)))
    assert "".join(told("yes\nUser: no", ends)) == "yes"
    assert told("abcabd", Ends(frozenset(), None), stop=("abd",)) == ["", "", "abc", "", "", ""]


def test_scores_are_those_of_llmf_score(
    finished: Finished, config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmf_hydra.jobs.score import scores

    run = finished("rm").out
    dialogues = [[{"role": "user", "content": "What is the sea?"}, {"role": "assistant", "content": answer}]
                 for answer in ("Water with salt in it.", "No.")]  # fmt: skip
    file = tmp_path / "dialogues.jsonl"
    file.write_text("".join(json.dumps({"messages": one}) + "\n" for one in dialogues))
    monkeypatch.chdir(tmp_path)
    scorer = TransformersEngine(load(config("job=api", f"from_run={run}")), slots=1)
    given = scorer.score([scorer.dialogue(one) for one in dialogues])
    scorer.close()
    assert given == pytest.approx([one["score"] for one in scores(file, run / "final", 2)], abs=1e-3)


def test_a_dialogue_that_can_not_be_written_is_refused(
    config: Callable[..., Config], endless: TransformersEngine
) -> None:
    with pytest.raises(BadRow, match="do not end with an answer"):
        endless.dialogue([{"role": "user", "content": "a"}])
    with pytest.raises(BadRow):
        endless.prompt([{"role": "user", "content": "\ufdd0"}])
    named = load(
        config("job=chat", "model=tiny", "data.template=llama2", "generation.default_system=Be brief.")
    )
    engine = TransformersEngine(named)
    text = str(named.tokenizer.decode(engine.prompt([{"role": "user", "content": "hi"}])))
    engine.close()
    assert "[INST]" in text and "Be brief." in text


def test_an_answer_knows_its_ids(engine: TransformersEngine) -> None:
    answer: Answer = engine.generate([asked(engine, PERU)])[0]
    assert answer.ids == [token.id for token in answer.tokens] and answer.ids[-1] == 2
