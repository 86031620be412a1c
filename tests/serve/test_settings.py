"""Each setting of `generation` and `serve` changes what is answered, by the same way from the command line for all."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from support.taught_model import Serve

from llmf_hydra.config.schema import Config
from llmf_hydra.serve.api.server import bound
from llmf_hydra.serve.engine import Decoding, Request
from llmf_hydra.serve.loading import load
from llmf_hydra.serve.text import Ends, Text
from llmf_hydra.serve.transformers_engine import TransformersEngine

WIDE = ("generation.top_p=1", "generation.top_k=0")
BEAMS = ("generation.do_sample=false", "generation.num_beams=4")
# parameter -> what is alike, and two values; each answer is sampled with the same seed
GENERATING: dict[str, tuple[Sequence[str], str, str]] = {
    "do_sample": ((), "true", "false"),
    "temperature": (WIDE, "0.01", "2"),
    "top_p": (("generation.top_k=0",), "0.001", "1"),
    "top_k": (("generation.top_p=1",), "1", "0"),
    "num_beams": (("generation.do_sample=false",), "1", "4"),
    "max_length": (("generation.max_new_tokens=0",), "40", "50"),
    "max_new_tokens": ((), "3", "9"),
    "repetition_penalty": (("generation.do_sample=false",), "1", "3"),
}  # fmt: skip


@pytest.mark.parametrize("name", GENERATING)
def test_a_setting_decides_the_answer(
    name: str, endless: TransformersEngine, config: Callable[..., Config]
) -> None:
    alike, *values = GENERATING[name]
    most = () if any("max_" in word for word in (*alike, name)) else ("generation.max_new_tokens=12",)

    def answer(value: str) -> str:
        cfg = config("job=api", "model=tiny", *alike, *most, f"generation.{name}={value}")
        prompt = endless.prompt([{"role": "user", "content": "the sea"}])
        return endless.generate([Request(prompt, Decoding.of(cfg.generation, seed=1))])[0].text

    first, second = map(answer, values)
    assert first != second
    assert (answer(values[0]), answer(values[1])) == (first, second)


def test_special_tokens_are_left_out_or_shown(
    endless: TransformersEngine, config: Callable[..., Config]
) -> None:
    tokenizer = endless.loaded.tokenizer
    (special,) = tokenizer.encode("<|im_start|>", add_special_tokens=False)
    for value, shown in (("true", ""), ("false", "<|im_start|>")):
        cfg = config("job=api", "model=tiny", f"generation.skip_special_tokens={value}")
        text = Text(tokenizer, Decoding.of(cfg.generation), Ends(frozenset(), None))
        assert text.add(special, limit=5) == (shown, None)


def test_a_length_penalty_chooses_among_beams(
    engine: TransformersEngine, config: Callable[..., Config]
) -> None:
    def lengths(penalty: float) -> list[int]:
        cfg = config("job=api", "model=tiny", *BEAMS, "generation.max_new_tokens=12",
                     f"generation.length_penalty={penalty}")  # fmt: skip
        asked = [
            engine.prompt([{"role": "user", "content": text}]) for text in ("a", "Lima", "go on and on", "!")
        ]
        decoding = Decoding.of(cfg.generation)
        return [len(one.tokens) for one in engine.generate([Request(ids, decoding) for ids in asked])]

    assert sum(lengths(-30.0)) < sum(lengths(30.0))


def test_the_system_message_stands_before_the_dialogue(config: Callable[..., Config]) -> None:
    made = []
    for words in ((), ("generation.default_system=Be brief.",)):
        engine = TransformersEngine(load(config("job=api", "model=tiny", *words)), slots=1)
        made.append(engine.loaded.tokenizer.decode(engine.prompt([{"role": "user", "content": "a"}])))
        engine.close()
    assert "Be brief." not in made[0] and "Be brief." in made[1]


def test_address_name_and_size_are_those_of_the_config(serve: Serve, engine: TransformersEngine) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    words = ("serve.host=127.0.0.2", f"serve.port={port}", "serve.model_name=mine", "serve.max_body_mb=0.001")
    with serve(engine, *words) as started:
        with bound(replace(started.cfg.serve, port=0)) as door:
            assert door.getsockname()[0] == "127.0.0.2"
        given = replace(started, url=f"http://127.0.0.2:{port}")
        with given.client() as client:
            assert client.get("/v1/models").json()["data"][0]["id"] == "mine"
            for size, status in ((100, 200), (1100, 413)):
                body = {"messages": [{"role": "user", "content": "a" * size}], "max_tokens": 1}
                assert client.post("/v1/chat/completions", json=body).status_code == status, size
    with serve(engine) as started, started.client() as client:
        assert client.get("/v1/models").json()["data"][0]["id"].endswith("/run")
