"""Variables of the environment are the defaults of their parameters; a word of the command line wins over them."""

import pytest

from llmf_hydra.config import compose
from llmf_hydra.config.schema import Entry, entries, value_at

READ = {entry.param.env: entry for entry in entries().values() if entry.param.env}


def other_value(entry: Entry) -> tuple[str, object]:
    """What a variable is set to, and the value that stands for."""
    if isinstance(entry.param.default, bool):
        return ("0", False) if entry.param.default else ("1", True)
    if entry.param.choices:
        text = next(str(choice) for choice in entry.param.choices if choice != entry.param.default)
        return text, text
    return ("7", 7) if entry.type_name.startswith("int") else ("of-the-environment", "of-the-environment")


def test_each_variable_gives_its_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in READ:
        monkeypatch.delenv(name, raising=False)
    without = compose.typed(compose.composed(["model=tiny"]))
    given = {name: other_value(entry) for name, entry in READ.items()}
    for name, (text, _) in given.items():
        monkeypatch.setenv(name, text)
    cfg = compose.typed(compose.composed(["model=tiny", "serve.port=9"]))
    for name, entry in READ.items():
        assert value_at(without, entry.key) == entry.param.default, name
        wanted = 9 if name == "API_PORT" else given[name][1]
        assert value_at(cfg, entry.key) == wanted != entry.param.default, name
