"""The help: complete, wrapped, and fast."""

import subprocess
import sys
import time

import pytest

from llmf_hydra.cli import help as manual
from llmf_hydra.cli.help import group_page, overview
from llmf_hydra.config.conf_files import choices
from llmf_hydra.config.schema import GROUPS, entries
from llmf_hydra.errors import Refused
from llmf_hydra.paths import conf_dir


@pytest.fixture(autouse=True)
def forget_width(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LLMF_CONF", raising=False)
    yield
    manual._width.cache_clear()


def test_overview_names_every_group_and_every_choice():
    text = " ".join(overview().split())
    for group in GROUPS:
        assert f" {group} " in text
        for file in (conf_dir() / group).glob("*.yaml"):
            assert file.stem in text


def test_overview_names_the_commands_of_the_command_line():
    from llmf_hydra.cli.commands import COMMANDS

    text = overview()
    for command in COMMANDS:
        assert f"llmf {command}" in text


@pytest.mark.parametrize("group", GROUPS)
def test_page_shows_every_parameter(group: str):
    text = " ".join(group_page(group).split())
    for entry in entries().values():
        if entry.group == group:
            assert f"{entry.name} {entry.type_name}, default" in text
            assert entry.param.help in text


def test_page_marks_what_is_not_built_and_what_acts_only_sometimes():
    lines = group_page("rlhf").split("\n\n")
    [weight] = [part for part in lines if part.strip().startswith("kto_chosen_weight")]
    assert "only with stage=kto" in " ".join(weight.split())
    planned = {entry.group for entry in entries().values() if entry.param.planned}
    assert {group for group in GROUPS if "not built yet" in group_page(group)} == planned


def test_unknown_group_gets_the_nearest_name():
    with pytest.raises(Refused, match="did you mean 'rlhf'"):
        group_page("rlfh")


@pytest.mark.parametrize("width", [60, 100])
def test_lines_fit_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(width))
    manual._width.cache_clear()
    too_long = [line for group in GROUPS for line in group_page(group).splitlines() if len(line) > width]
    assert too_long == []


def test_bold_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    assert "\033" not in overview() + group_page("data")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033[1mdata\033[0m" in group_page("data")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in group_page("data")


def test_own_conf_folder_adds_choices(tmp_path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("model_name_or_path: x\n")
    monkeypatch.setenv("LLMF_CONF", str(tmp_path))
    assert {"mine", "tiny"} <= set(choices("model"))


def test_help_is_fast_and_light():
    code = (
        "import sys; from llmf_hydra.cli import help; help.overview(); help.group_page('rlhf');"
        "print([m for m in ('torch', 'hydra', 'omegaconf', 'yaml', 'transformers') if m in sys.modules])"
    )
    took = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        took.append(time.perf_counter() - start)
        assert done.stdout.strip() == "[]"
    assert min(took) < 0.5  # 0.12 s on an idle machine; the bound leaves room for a busy one
