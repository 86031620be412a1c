"""The chat as it is typed, through a pipe and on a terminal."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.taught_model import ASKS_FOR_A_TOOL, KNOWN, WEATHER

from llmf_hydra.config.schema import Config
from llmf_hydra.serve.terminal.chat import chat
from llmf_hydra.serve.transformers_engine import TransformersEngine

PERU, HELLO = "What is the capital of Peru?", "Say hello."


@pytest.fixture
def talk(
    taught: Path, config: Callable[..., Config], engine: TransformersEngine, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> Callable[..., tuple[str, str]]:  # fmt: skip
    """`talk(line, ...)`: the answers, and what the program notes beside them."""
    cfg = config(
        "job=chat", f"from_run={taught}", "generation.do_sample=false", "generation.max_new_tokens=64"
    )

    def run(*lines: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        chat(cfg, engine, tmp_path)
        out, err = capfd.readouterr()
        return out, err

    return run


def test_answers_go_to_standard_output_alone(talk: Callable[..., tuple[str, str]]) -> None:
    out, noted = talk("/help", PERU, "", "/clear", HELLO, "/exit", "never read")
    assert out == f"{KNOWN[PERU]}\n{KNOWN[HELLO]}\n"
    assert "/system TEXT" in noted and "Ctrl-C" in noted and "begins anew" in noted


def test_the_dialogue_is_kept_retried_and_saved(talk: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    out, noted = talk("/retry", "/save", "/save early", "/nope", PERU, "/retry", "/system Be brief.", "/system",
                      "/save there", "/save chat.jsonl", "/save gone/chat.jsonl")  # fmt: skip
    assert out == f"{KNOWN[PERU]}\n" * 2
    for said in ("there is no answer yet", "name a file", "nothing was said yet", "/nope: no such command",
                 "system: Be brief.", "is there already", "saved to", "cannot be written"):  # fmt: skip
        assert said in noted
    assert (tmp_path / "there").read_text() == "mine"
    saved = json.loads((tmp_path / "chat.jsonl").read_text())
    assert saved["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PERU},
                                 {"role": "assistant", "content": KNOWN[PERU]}]  # fmt: skip


def test_tools_are_given_called_and_answered(talk: Callable[..., tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps([WEATHER]))
    (tmp_path / "bad.json").write_text("{")
    _, noted = talk("/tools gone.json", "/tools bad.json", "/tools tools.json", ASKS_FOR_A_TOOL, "5 degrees",
                    "/save chat.jsonl", "/tools -")  # fmt: skip
    for said in ("cannot be read", "is not JSON", "tools: get_weather", 'calls get_weather({"city": "Oslo"})',
                 "there are no tools"):  # fmt: skip
        assert said in noted, noted
    turns = json.loads((tmp_path / "chat.jsonl").read_text())["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert turns[1]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": {"city": "Oslo"}}


def test_what_can_not_be_answered_is_taken_back(talk: Callable[..., tuple[str, str]]) -> None:
    out, noted = talk("word " * 3000, HELLO)
    assert out == f"{KNOWN[HELLO]}\n" and "the model takes 2048" in noted


@pytest.mark.slow
def test_on_a_terminal_ctrl_c_stops_the_answer_and_not_the_chat(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The real command line, on a terminal of its own; the untrained model's answers have no end."""
    ours, theirs = pty.openpty()
    words = ["job=chat", "model=tiny", "generation.do_sample=false", "generation.max_new_tokens=0",
             "generation.max_length=2048"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "llmf_hydra", *words], cwd=tmp_path, env={**environment, "TERM": "dumb"},
        stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(theirs)
    try:
        _read_until(ours, "> ")
        os.write(ours, b"go on\n")
        _read_until(ours, "go on\r\n")
        time.sleep(0.5)
        os.write(ours, b"\x03")
        _read_until(ours, "stopped")
        os.write(ours, b"\x03")
        _read_until(ours, "ends the chat")
        os.write(ours, b"/exit\n")
        _read_until(ours, None)
        assert process.wait(30) == 0
    finally:
        process.kill()
        os.close(ours)
    assert list(tmp_path.iterdir()) == []  # no run folder


def _take_terminal() -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _read_until(terminal: int, wanted: str | None) -> str:
    """What was printed up to a text, or to the end."""
    seen, end = "", time.monotonic() + 120
    while wanted is None or wanted not in seen:
        assert time.monotonic() < end, seen[-2000:]
        if select.select([terminal], [], [], 1)[0]:
            try:
                new = os.read(terminal, 65536)
            except OSError:  # it hung up
                new = b""
            if not new:
                assert wanted is None, seen[-2000:]
                return seen
            seen += new.decode("utf8", errors="replace")
    return seen
