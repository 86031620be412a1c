"""What is masked, in each spelling in which it can stand in a word, a text or a mapping."""

import pytest

from llmf_hydra.config import secrets
from llmf_hydra.config.schema import Config, entries
from llmf_hydra.config.secrets import learn, learn_words, masked_text, masked_tree, masked_word

SECRET = "hf_SeCrEt0123"
WORDS = [
    "model.hf_hub_token={}",
    "+model.hf_hub_token={}",
    "++model.hf_hub_token={}",
    "model.hf_hub_token='{}'",
    'model.hf_hub_token="{}"',
    "model.hf_hub_token={},another_{}",
    "model.hf_hub_token='a {}','b {}'",
    "model.hf_hub_token=choice({},{})",
    "model.hf_hub_token@_global_={}",
    "'model.hf_hub_token={}'",
    "model={{name: x, hf_hub_token: {}}}",
    "model={{hf_hub_token:{}}}",
    "hydra.sweeper.params={{model.hf_hub_token: '{},b'}}",
    "hydra.sweeper.params.model.hf_hub_token=[{},b]",
    "hydra.job.env_set={{WANDB_API_KEY: x, tracking.wandb_api_key: [{}, {}]}}",
    "tracking.wandb_api_key={}",
    "serve.api_key={}",
    "tracking.mlflow_tracking_uri=http://me:{}@server:5000/x",
    "tracking.mlflow_tracking_uri=postgresql+psycopg2://me:p@{}/x@server/db",
    "tracking.mlflow_tracking_uri=https://:{}@server",
    "rlhf.reward_model='http://me:{}@localhost:8000/score'",
    "data.dataset=https://host/rows.jsonl?token={}&x=1",
]
PLAIN = [
    "model.model_name_or_path=builtin:tiny",
    "tracking.mlflow_tracking_uri=http://server:5000/x",
    "tracking.mlflow_tracking_uri=http://server:5000",
    "tracking.mlflow_tracking_uri=sqlite:////tmp/a@b.db",
    "rlhf.reward_model=http://localhost:8000/score?tokens=3",
    "training.learning_rate=1e-4,2e-4",
]


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_learned", set())


def test_a_word_holds_no_secret_in_any_spelling() -> None:
    left = [masked_word(word.format(SECRET, SECRET)) for word in WORDS]
    assert [word for word in left if SECRET in word or "SeCrEt" in word] == []
    assert [word for word in left if "***" not in word] == []
    assert [masked_word(word) for word in PLAIN] == PLAIN
    assert masked_word("tracking.mlflow_tracking_uri=http://me:pw@h:5000") == (
        "tracking.mlflow_tracking_uri=http://me:***@h:5000"
    )


def test_every_secret_parameter_is_masked_by_its_key() -> None:
    secret = [key for key, entry in entries().items() if entry.param.secret]
    assert len(secret) >= 5
    assert [masked_word(f"{key}=x") for key in secret] == [f"{key}=***" for key in secret]


def test_a_text_keeps_all_but_the_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "wandb_0123456789")
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    cases = {
        f"model.hf_hub_token={SECRET}: is wrong": "model.hf_hub_token=***: is wrong",
        "the key wandb_0123456789 is not known": "the key *** is not known",
        "hf_environment, twice hf_environment": "***, twice ***",
        "tracking.wandb_api_key: Key of wandb; null logs offline.": None,
        f'{{"hf_hub_token": "{SECRET} b", "x": 1}}': '{"hf_hub_token": ***, "x": 1}',
        "no route to http://me:pw@h/p, nor http://you:pw@h/": "no route to http://me:***@h/p, nor http://you:***@h/",
    }
    assert {text: masked_text(text) for text in cases} == {text: to or text for text, to in cases.items()}


def test_what_was_learned_is_masked_wherever_it_stands() -> None:
    cfg = Config()
    cfg.model.hf_hub_token, cfg.tracking.wandb_api_key = SECRET, "abc"
    learn(cfg)
    learn_words(["stage=sft", "model.ms_hub_token='a long one',another_one"])
    assert (
        masked_text(f"GET /x: {SECRET} refused; a long one or another_one")
        == "GET /x: *** refused; *** or ***"
    )
    assert masked_text("abc stage=sft") == "abc stage=sft"  # too short to be looked for in any text


def test_a_tree_is_masked_by_key_and_by_value() -> None:
    tree = {
        "model": {"hf_hub_token": SECRET, "ms_hub_token": None, "om_hub_token": "${oc.env:X,null}"},
        "tracking": {"mlflow_tracking_uri": "http://a:pw@h", "run_name": "run"},
        "model.hf_hub_token": SECRET,
        "overrides": ["model.hf_hub_token=x", "stage=sft", 3],
    }
    assert masked_tree(tree) == {
        "model": {"hf_hub_token": "***", "ms_hub_token": None, "om_hub_token": "${oc.env:X,null}"},
        "tracking": {"mlflow_tracking_uri": "http://a:***@h", "run_name": "run"},
        "model.hf_hub_token": "***",
        "overrides": ["model.hf_hub_token=***", "stage=sft", 3],
    }
