"""`job=api from_run=RUN` as a process: the openai client with a DPO adapter, and the end by SIGTERM."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from support.command_line import Cli
from support.taught_model import ASKS_FOR_A_TOOL, CALL, KNOWN, WEATHER
from support.web_page import wait_for

from llmf_hydra.serve.api.server import ended_by_signals

if TYPE_CHECKING:
    import openai

PERU = "What is the capital of Peru?"
PAIRS = [{"instruction": "Good or bad?", "chosen": "Good.", "rejected": "Bad."},
         {"instruction": "Left or right?", "chosen": "Left.", "rejected": "Right."}]  # fmt: skip
DPO = ("stage=dpo", "method=lora", "model=path", "data.dataset=pairs.jsonl", "data.val_size=0", "training.max_steps=2",
       "training.eval_strategy=no", "training.learning_rate=1e-5", "hydra.run.dir=dpo")  # fmt: skip

MAIN_JOB = ("stage=dpo", "method=lora", "data.max_samples=24", "training.max_steps=3", "training.eval_strategy=no",
            "training.save_strategy=no", "training.plot_loss=false", "hydra.run.dir=dpo")  # fmt: skip


@pytest.mark.timeout(300)
def test_the_openai_client_talks_to_the_adapter_of_a_dpo_run(
    taught: Path, cli: Cli, environment: dict[str, str], tmp_path: Path
) -> None:
    import openai  # a second, in each process of the tests

    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    done = cli(*DPO, f"model.model_name_or_path={taught}/final")
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "llmf_hydra", "job=api", "from_run=dpo", "serve.port=0"]
    with (tmp_path / "api.txt").open("wb") as output:
        server = subprocess.Popen(
            command, cwd=tmp_path, env={**environment, "API_KEY": "of-the-test"}, stdout=output, stderr=output
        )
    try:
        said = wait_for(lambda: _served(tmp_path / "api.txt", server), 120)
        client = openai.OpenAI(base_url=said[0], api_key="of-the-test", max_retries=0)
        _talk(client)
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=said[0], api_key="of-another", max_retries=0).models.list()
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0, (tmp_path / "api.txt").read_text()
    finally:
        server.kill()
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # its connections linger
        door.bind(("127.0.0.1", int(said[1])))
        door.listen()
    log = (tmp_path / "api.txt").read_text()
    assert "Traceback" not in log and "Warning" not in log and "of-the-test" not in log, log


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_adapter_of_the_main_job_chats_streams_and_calls_a_tool(
    cli: Cli, environment: dict[str, str], tmp_path: Path
) -> None:
    """SmolLM2 calls no tool of its own accord: it is made to, and finds the city itself."""
    import openai

    done = cli(*MAIN_JOB, timeout=600)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "llmf_hydra", "job=api", "from_run=dpo", "serve.port=0"]
    with (tmp_path / "api.txt").open("wb") as output:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
    try:
        said = wait_for(lambda: _served(tmp_path / "api.txt", server), 120)
        client = openai.OpenAI(base_url=said[0], api_key="any", max_retries=0)
        asked: dict[str, Any] = {
            "model": client.models.list().data[0].id, "temperature": 0, "max_tokens": 40,
        }  # fmt: skip
        whole = client.chat.completions.create(messages=[{"role": "user", "content": PERU}], **asked)
        chunks: Any = client.chat.completions.create(
            messages=[{"role": "user", "content": PERU}], stream=True, **asked
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == whole.choices[0].message.content and "Lima" in text
        called: Any = client.chat.completions.create(
            messages=[{"role": "user", "content": "What is the weather in Paris?"}],
            tools=[{"type": "function", "function": WEATHER}],  # pyright: ignore
            tool_choice="required",
            **asked,
        )
        (call,) = called.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)["city"]) == ("get_weather", "Paris")
    finally:
        server.kill()


def test_a_signal_that_comes_before_the_server_listens_ends_it() -> None:
    async def nothing(scope: object, receive: object, send: object) -> None: ...

    for number in (signal.SIGINT, signal.SIGTERM):
        server, before = (
            uvicorn.Server(uvicorn.Config(nothing, port=0, log_config=None)),
            signal.getsignal(number),
        )
        with ended_by_signals(server):
            signal.raise_signal(number)
            server.run()  # it would not end
        assert signal.getsignal(number) == before


def _served(log: Path, server: "subprocess.Popen[bytes]") -> "re.Match[str] | None":
    text = log.read_text(encoding="utf8")
    assert server.poll() is None, text
    return re.search(r"http://127\.0\.0\.1:(\d+)/v1", text)


def _talk(client: "openai.OpenAI") -> None:
    (model,) = [model.id for model in client.models.list()]
    asked: dict[str, Any] = {"model": model, "temperature": 0}
    messages: Any = [{"role": "user", "content": PERU}]
    whole = client.chat.completions.create(messages=messages, **asked).choices[0].message
    assert whole.content == KNOWN[PERU]
    stream: Any = client.chat.completions.create(messages=messages, stream=True, **asked)
    parts = [chunk.choices[0].delta.content for chunk in stream]
    assert "".join(part or "" for part in parts) == KNOWN[PERU] and len(parts) > 5
    tools: Any = [{"type": "function", "function": WEATHER}]
    messages = [{"role": "user", "content": ASKS_FOR_A_TOOL}]
    called: Any = client.chat.completions.create(messages=messages, tools=tools, **asked).choices[0].message
    (call,) = called.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (CALL["name"], CALL["arguments"])
