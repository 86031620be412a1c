"""Group `serve`: HTTP API and web UI (spec table environment, API and Web UI)."""

from dataclasses import dataclass
from pathlib import Path

from llmf_hydra.config.names import names
from llmf_hydra.config.param import param

API, WEB = ("api",), ("webui",)


@dataclass
class ServeConfig:
    host: str = param(
        "127.0.0.1",
        "Address the API binds to; 0.0.0.0 (the specification's default) opens it to the network: set api_key then.",
        env="API_HOST",
        jobs=API,
    )
    port: int = param(8000, "Port of the API; 0 takes a free one.", env="API_PORT", ge=0, le=65535, jobs=API)
    api_key: str | None = param(
        None, "API key that clients must send as a bearer token.", env="API_KEY", secret=True, jobs=API
    )
    model_name: str | None = param(
        None,
        "Model name reported by the API; null uses the run's or the model's.",
        env="API_MODEL_NAME",
        jobs=API,
    )
    verbose: bool = param(True, "Log requests and responses.", env="API_VERBOSE", jobs=API)
    root_path: str = param("", "Root path of the API behind a proxy.", env="FASTAPI_ROOT_PATH", jobs=API)
    max_concurrent: int = param(
        1,
        "Maximum requests answered at the same time, in one batch; further ones wait.",
        env="MAX_CONCURRENT",
        ge=1,
        jobs=API,
    )
    max_waiting: int = param(
        64,
        "Maximum requests that wait for a free place; further ones get 429 with Retry-After.",
        ge=0,
        jobs=API,
    )
    max_body_mb: float = param(4.0, "Maximum size of a request's body in megabytes.", gt=0, jobs=API)
    max_tokens: int | None = param(
        None, "Maximum tokens of an answer that a request may ask for; null: as many as the model takes.", ge=1,
        jobs=API,
    )  # fmt: skip
    gradio_share: bool = param(
        False,
        "Create a public link to the web UI through Gradio's share server; needs serve.gradio_password.",
        env="GRADIO_SHARE",
        jobs=WEB,
    )
    gradio_server_name: str = param(
        "127.0.0.1",
        "Address the web UI binds to. Others than this machine's own need serve.gradio_password: whoever reaches the "
        "page starts processes.",
        env="GRADIO_SERVER_NAME",
        jobs=WEB,
    )
    gradio_server_port: int = param(
        7860, "Port of the web UI; 0 picks a free one.", env="GRADIO_SERVER_PORT", ge=0, le=65535, jobs=WEB
    )
    gradio_root_path: str = param(
        "",
        "Root path of the web UI behind a proxy: /PATH, or the whole address.",
        env="GRADIO_ROOT_PATH",
        jobs=WEB,
    )
    gradio_ipv6: bool = param(
        False,
        "Bind the web UI to IPv6: to ::1, or the address in serve.gradio_server_name.",
        env="GRADIO_IPV6",
        jobs=WEB,
    )
    gradio_password: str | None = param(
        None, "Password of the web UI, at least 8 characters.", env="GRADIO_PASSWORD", secret=True, jobs=WEB
    )
    gradio_allowed_paths: str | None = param(
        None,
        "Folders outside the working directory that fields of the web UI may name, separated by commas.",
        env="GRADIO_ALLOWED_PATHS",
        jobs=WEB,
    )

    @property
    def allowed_folders(self) -> list[str]:
        """The folders of `gradio_allowed_paths`, as absolute paths."""
        return [str(Path(name).expanduser().absolute()) for name in names(self.gradio_allowed_paths)]
