"""The API as its users see it: the openai client, many clients at once, and what is refused."""

import http.client
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.taught_model import ASKS_FOR_A_TOOL, CALL, KNOWN, WEATHER, Serve, Served

from llmf_hydra.config.schema import Config
from llmf_hydra.serve import transformers_engine
from llmf_hydra.serve.engine import Decoding, Request, Token
from llmf_hydra.serve.transformers_engine import TransformersEngine

if TYPE_CHECKING:
    import openai

TOOLS: Any = [{"type": "function", "function": WEATHER}]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PERU = "What is the capital of Peru?"


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def client(served: Served) -> "Iterator[openai.OpenAI]":
    import openai  # a second, in each process of the tests

    with served.client() as http_client:
        yield openai.OpenAI(
            base_url=f"{served.url}/v1", api_key="any", http_client=http_client, max_retries=0
        )


def test_the_openai_client_chats(client: "openai.OpenAI") -> None:
    assert [model.id for model in client.models.list()] == ["taught"]
    for question, answer in KNOWN.items():
        done = client.chat.completions.create(model="taught", messages=user(question))
        assert done.choices[0].message.content == answer and done.choices[0].finish_reason == "stop"
        assert done.usage is not None and done.usage.completion_tokens > 4
    cut = client.chat.completions.create(
        model="taught", messages=user(PERU), max_tokens=3, n=2, logprobs=True
    )
    assert [choice.finish_reason for choice in cut.choices] == ["length"] * 2
    assert cut.choices[0].logprobs is not None and len(cut.choices[0].logprobs.content or []) == 3
    stopped = client.chat.completions.create(model="taught", messages=user(PERU), stop=[" is Lima"])
    assert stopped.choices[0].message.content == "The capital of Peru"


def test_the_openai_client_streams(client: "openai.OpenAI") -> None:
    chunks = list(client.chat.completions.create(
        model="taught", messages=user(PERU), stream=True, stream_options={"include_usage": True}, n=2
    ))  # fmt: skip
    for number in range(2):
        parts = [choice for chunk in chunks for choice in chunk.choices if choice.index == number]
        assert "".join(part.delta.content or "" for part in parts) == KNOWN[PERU]
        assert parts[-1].finish_reason == "stop" and len(parts) > 5
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 10


def test_the_openai_client_calls_a_tool(client: "openai.OpenAI") -> None:
    done = client.chat.completions.create(model="taught", messages=user(ASKS_FOR_A_TOOL), tools=TOOLS)
    (call,) = done.choices[0].message.tool_calls or []
    assert call.type == "function" and done.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == (CALL["name"], CALL["arguments"])
    chunks = client.chat.completions.create(
        model="taught", messages=user(ASKS_FOR_A_TOOL), tools=TOOLS, stream=True
    )
    calls = [one for chunk in chunks for choice in chunk.choices for one in choice.delta.tool_calls or []]
    assert [one.function.name for one in calls if one.function] == ["get_weather"]
    turn: Any = {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]}
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "5 degrees"}
    more = client.chat.completions.create(
        model="taught", messages=[*user(ASKS_FOR_A_TOOL), turn, result], tools=TOOLS, max_tokens=4
    )
    assert more.usage is not None and more.usage.prompt_tokens > (
        done.usage.prompt_tokens if done.usage else 0
    )


def test_what_is_said_before_a_call_is_streamed_and_kept(
    client: "openai.OpenAI", engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's call, behind a sentence that it is made to say first."""
    said = "Let me look."
    written = engine.generate([_asking_for_a_tool(engine)])[0].ids
    before = engine.tokenize(said)
    script = [*before, *written]

    def scripted(logits: object, choosers: object, rows: Sequence[Sequence[int]]) -> list[Token]:
        return [Token(script[len(row) - length]) for row in rows]

    length = len(_asking_for_a_tool(engine).prompt)
    monkeypatch.setattr(transformers_engine, "choose", scripted)
    asked: dict[str, Any] = {"model": "taught", "messages": user(ASKS_FOR_A_TOOL), "tools": TOOLS}
    message = client.chat.completions.create(**asked).choices[0].message
    assert message.content == said and message.tool_calls
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
    texts = [chunk.delta.content for chunk in chunks if chunk.delta.content]
    assert "".join(texts) == said and len(texts) > 2, "as it grows"
    (calls,) = [chunk.delta.tool_calls for chunk in chunks if chunk.delta.tool_calls]
    told, whole = calls[0].function, message.tool_calls[0].function  # pyright: ignore
    assert told is not None and (told.name, told.arguments) == (whole.name, whole.arguments)
    assert chunks[-1].finish_reason == "tool_calls"


def _asking_for_a_tool(engine: TransformersEngine) -> Request:
    prompt = engine.prompt([{"role": "user", "content": ASKS_FOR_A_TOOL}], TOOLS)
    return Request(prompt, Decoding(do_sample=False))


def test_completions_take_texts_and_token_ids(client: "openai.OpenAI", engine: TransformersEngine) -> None:
    ids = engine.prompt(user(PERU))
    done = client.completions.create(model="taught", prompt=[ids, ids], logprobs=1, max_tokens=30)
    assert [choice.text for choice in done.choices] == [KNOWN[PERU]] * 2
    assert done.choices[0].logprobs is not None and len(done.choices[0].logprobs.tokens or []) > 4
    text = engine.loaded.tokenizer.decode(ids)
    streamed = client.completions.create(model="taught", prompt=str(text), stream=True, max_tokens=30)
    assert "".join(chunk.choices[0].text for chunk in streamed) == KNOWN[PERU]


def test_many_clients_get_their_own_answers_or_429(served: Served, engine: TransformersEngine) -> None:
    questions = [*KNOWN, *(f"Number {number}?" for number in range(37))]
    decoding = Decoding(do_sample=False, max_new_tokens=10)
    alone = {
        question: engine.generate([Request(engine.prompt(user(question)), decoding)])[0].text
        for question in questions
    }

    def ask(number: int, client: httpx.Client) -> tuple[str, httpx.Response]:
        question = questions[number % len(questions)]
        body = {"messages": user(question), "max_tokens": 10, "temperature": 0}
        return question, client.post(CHAT, json=body)

    with served.client(limits=httpx.Limits(max_connections=32)) as client, ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda number: ask(number, client), range(200)))
        metrics = client.get("/metrics").text
    assert {response.status_code for _, response in answers} <= {200, 429}
    done = [(question, response.json()) for question, response in answers if response.status_code == 200]
    assert len(done) >= 20
    assert [one["choices"][0]["message"]["content"] for _, one in done] == [
        alone[question] for question, _ in done
    ]
    for _, response in answers:
        if response.status_code == 429:
            assert int(response.headers["Retry-After"]) >= 1 and response.json()["error"]["message"]
    assert "llmf_requests_running 0.0" in metrics and "llmf_time_to_first_token_seconds_count" in metrics


def test_what_is_wrong_is_refused_in_openais_form(served: Served) -> None:
    cases: list[tuple[str, dict[str, object], int, str]] = [
        (CHAT, {"messages": user("a"), "model": "other"}, 404, "no model 'other'"),
        (CHAT, {"messages": user("a"), "best_of": 2}, 400, "best_of: is no field"),
        (CHAT, {"messages": user("a"), "frequency_penalty": 0.5}, 400, "frequency_penalty"),
        (CHAT, {"messages": user("a"), "tool_choice": "required"}, 400, "tool_choice"),
        (CHAT, {"messages": []}, 400, "messages"),
        (CHAT, {"messages": [{"role": "user"}]}, 400, "messages.0.content is missing"),
        (CHAT, {"messages": user("long " * 3000)}, 400, "the model takes 2048"),
        (CHAT, {"messages": user("a"), "temperature": 3}, 400, "temperature"),
        (CHAT, {"messages": user("a"), "stop": ["a"] * 17}, 400, "stop: List should have at most 16 items"),
        (CHAT, {"messages": user("a"), "top_logprobs": 2}, 400, "top_logprobs acts only with logprobs=true"),
        (CHAT, {"messages": user("a"), "tool_choice": "auto"}, 400, "tool_choice acts only with tools"),
        (
            CHAT,
            {"messages": user("a"), "stream_options": {}},
            400,
            "stream_options acts only with stream=true",
        ),
        (COMPLETIONS, {"prompt": [9_999_999]}, 400, "above"),
        (COMPLETIONS, {"prompt": ""}, 400, "the prompt is empty"),
        ("/v1/score", {"input": ["a"]}, 400, "stage=rm"),
    ]
    with served.client() as client:
        for path, body, status, said in cases:
            response = client.post(path, json=body)
            error = response.json()["error"]
            assert (response.status_code, said in error["message"]) == (status, True), (body, response.text)
            assert set(error) == {"message", "type", "param", "code"}
        assert client.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
        assert (
            client.post(CHAT, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
        )


def test_tools_may_have_any_schema(served: Served) -> None:
    """What the model's own template can't write is refused; whatever it writes, an answer is read back by it."""
    with served.client() as client:
        for schema in (
            {"properties": {"a": 5}},
            {"properties": [1]},
            {"required": 5},
            {"properties": {"a": None}},
        ):
            tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
            response = client.post(CHAT, json={"messages": user(PERU), "tools": tools, "max_tokens": 2})
            assert response.status_code in (200, 400), schema


def test_the_lowest_temperature_is_greedy(served: Served) -> None:
    with served.client() as client:
        for temperature in (0, 1e-30, 1e-320):
            answer = client.post(CHAT, json={"messages": user(PERU), "temperature": temperature}).json()
            assert answer["choices"][0]["message"]["content"] == KNOWN[PERU], temperature


def test_a_body_of_100_mb_is_refused_unread(served: Served) -> None:
    told = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=30)
    told.putrequest("POST", CHAT)
    told.putheader("Content-Length", "100000000")
    told.endheaders()
    assert told.getresponse().status == 413
    told.close()
    with served.client() as client:
        chunks = (b"x" * 1_000_000 for _ in range(100))  # without a length
        with suppress(httpx.WriteError):  # the server may close the connection while the rest is sent
            assert client.post(CHAT, content=chunks).status_code == 413


def test_media_are_neither_fetched_nor_opened(served: Served) -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1/")
            self.end_headers()

    trap = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=trap.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{trap.server_port}"
    urls = [
        "file:///etc/passwd",
        address,
        f"{address}/redirect",
        "http://169.254.169.254/",
        "../../etc/passwd",
    ]
    with served.client() as client:
        for url in urls:
            for part in (
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "video_url", "video_url": url},
            ):
                response = client.post(CHAT, json={"messages": [{"role": "user", "content": [part]}]})
                assert (
                    response.status_code == 400 and "reads text alone" in response.json()["error"]["message"]
                )
    trap.shutdown()
    assert asked == []


def test_the_key_is_asked_for(serve: Serve, endless: TransformersEngine) -> None:
    with serve(endless, "serve.api_key=s3cret-key", "serve.root_path=/llm", "serve.max_tokens=5") as started:
        with started.client() as client:
            assert client.get("/health").status_code == 200
            for given in (None, "Bearer wrong", "s3cret-key", "Basic s3cret-key"):
                headers = {"Authorization": given} if given else {}
                for path in ("/v1/models", "/metrics", "/nothing"):
                    assert client.get(path, headers=headers).status_code == 401, (given, path)
        with started.client(headers={"Authorization": "Bearer s3cret-key"}) as client:
            assert client.get("/v1/models").status_code == 200
            assert client.get("/openapi.json").json()["servers"] == [{"url": "/llm"}]
            assert client.get("/llm/v1/models").status_code == 200  # a proxy that leaves the path as it is
            above = client.post(CHAT, json={"messages": user(PERU), "max_tokens": 6})
            assert above.status_code == 400 and "serve.max_tokens" in above.text
            done = client.post(CHAT, json={"messages": user(PERU)}).json()
            assert done["usage"]["completion_tokens"] == 5
            sampled = {"prompt": "The", "temperature": 1.5, "top_p": 1, "top_k": 0, "n": 2}
            seeded = [client.post(COMPLETIONS, json={**sampled, "seed": seed}).json() for seed in (1, 1, 2)]
            texts = [[choice["text"] for choice in one["choices"]] for one in seeded]
            assert texts[0] == texts[1] != texts[2] and texts[0][0] != texts[0][1]


def test_a_client_that_goes_away_frees_its_place(serve: Serve, endless: TransformersEngine) -> None:
    with (
        serve(endless, "serve.max_concurrent=1", "serve.max_waiting=0") as started,
        started.client() as client,
    ):
        long = {"messages": user("go on"), "max_tokens": 1900, "temperature": 0}
        with client.stream("POST", CHAT, json={**long, "stream": True}) as response:
            lines = response.iter_lines()  # held: httpx closes the connection of one that is dropped
            next(lines)
            assert client.post(CHAT, json=long).status_code == 429
        _until(lambda: endless.load == (0, 0))
        with pytest.raises(httpx.ReadTimeout):
            client.post(CHAT, json=long, timeout=0.3)
        _until(lambda: endless.load == (0, 0))
        assert client.post(CHAT, json={**long, "max_tokens": 2}).status_code == 200


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.05)


def test_requests_are_logged_where_it_is_asked_for(
    serve: Serve, engine: TransformersEngine, caplog: pytest.LogCaptureFixture
) -> None:
    for verbose in (True, False):
        caplog.clear()
        with (
            caplog.at_level("INFO", "llmf_hydra"),
            serve(engine, f"serve.verbose={str(verbose).lower()}") as started,
            started.client() as client,
        ):
            client.post(CHAT, json={"messages": user("Say hello."), "temperature": 0})
        said = caplog.text
        assert ("how are you today" in said and "POST /v1/chat/completions 200" in said) == verbose


@pytest.mark.filterwarnings("ignore")
def test_no_request_that_the_schema_allows_makes_the_server_fail(
    config: Callable[..., Config], engine: TransformersEngine
) -> None:
    import schemathesis

    from llmf_hydra.serve.api.app import build

    cfg = config(
        "job=api", "model=tiny", "generation.max_new_tokens=2", "serve.max_tokens=2", "serve.verbose=false"
    )
    app = build(cfg, engine)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    failed: list[tuple[object, str]] = []

    for operation in schema.get_all_operations():
        _fuzz_operation(operation.ok(), failed)
    assert not failed, failed[:3]


def _fuzz_operation(operation: Any, failed: list[tuple[object, str]]) -> None:
    from hypothesis import HealthCheck, Phase, given, settings

    @settings(
        max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate], database=None,
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def fuzz(case: Any) -> None:
        response = case.call()
        if response.status_code >= 500:
            failed.append((case.as_curl_command(), response.text))

    fuzz()
