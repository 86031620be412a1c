"""A chat's model doesn't outlive the page, however that ends; a run does. What the model's server says, read."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmf_hydra.errors import LlmfError
from llmf_hydra.runs.folder import process_identity
from llmf_hydra.runs.opening import opened
from llmf_hydra.webui import commands, talk
from llmf_hydra.webui.fields import Place

TETHER = """
import sys
from llmf_hydra.runs import isolation
long = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
isolation.command = lambda *words: [sys.executable, "-c", long]
from llmf_hydra.webui import tether
sys.exit(tether.main([]))
"""
PAGE = f"""
import subprocess, sys
held = subprocess.Popen([sys.executable, "-c", {TETHER!r}], stdin=subprocess.PIPE)
held.wait()
"""


def test_a_model_ends_with_a_page_that_is_killed() -> None:
    page = subprocess.Popen([sys.executable, "-c", PAGE], stdout=subprocess.PIPE, text=True)
    assert page.stdout is not None
    model = int(page.stdout.readline())
    assert process_identity(model) is not None
    page.kill()
    page.wait()
    end = time.monotonic() + 20
    while process_identity(model) is not None:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_command_outlives_who_started_it_and_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "sft, lora of builtin:tiny on rows -> outputs/sft/a"
    line = [sys.executable, "-c", f"import time; print({said!r}, flush=True); time.sleep(60)"]
    monkeypatch.setattr(commands.isolation, "command", lambda *_: line)
    place = Place(tmp_path)
    started = commands.start(["stage=sft", "model.hf_hub_token=hf_abcdefghijklmnop"], place)
    try:
        assert os.getsid(started.pid) == started.pid  # a session of its own
        end = time.monotonic() + 20
        while started.run(place) is None:
            assert time.monotonic() < end
            time.sleep(0.05)
        (found,) = commands.all_started(place)  # as another page would find it
        assert found == started and found.running and found.output == f"{said}\n"
        assert found.run(place) == tmp_path / "outputs/sft/a"
        assert found.shown == "python -m llmf_hydra stage=sft 'model.hf_hub_token=***'"
        assert "hf_abc" not in (found.folder / "command.json").read_text()
    finally:
        os.kill(started.pid, signal.SIGKILL)
    while commands.all_started(place)[0].running:
        time.sleep(0.05)


def test_the_line_that_opens_a_run() -> None:
    cwd = Path("/work")
    assert opened("sft, lora of m -> n on data -> outputs/sft/a\n", cwd) == cwd / "outputs/sft/a"
    assert opened("refused: nothing was started", cwd) is None and opened("", cwd) is None


def test_what_a_models_server_streams() -> None:
    assert talk._piece('data: {"choices": [{"delta": {"content": "so"}}]}') == "so"
    assert talk._piece('data: {"choices": [{"delta": {"role": "assistant"}}]}') == ""
    assert [talk._piece(line) for line in ("data: [DONE]", "", ": ping", 'data: {"choices": []}')] == [""] * 4
    with pytest.raises(LlmfError, match="too long"):
        talk._piece('data: {"error": {"message": "too long"}}')
    assert talk._reason('{"detail": "no such model"}') == "no such model"
    assert talk._reason("<html>") == "<html>"
