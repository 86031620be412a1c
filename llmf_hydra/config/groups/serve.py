"""Group `serve`: HTTP API and web UI (spec table environment, API and Web UI)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param

API, WEB = ("api",), ("webui",)


@dataclass
class ServeConfig:
    host: str = param("0.0.0.0", "Address the API binds to.", env="API_HOST", jobs=API, planned=True)
    port: int = param(8000, "Port of the API.", env="API_PORT", ge=0, le=65535, jobs=API, planned=True)
    api_key: str | None = param(
        None, "API key that clients must send.", env="API_KEY", secret=True, jobs=API, planned=True
    )
    model_name: str | None = param(
        None, "Model name reported by the API.", env="API_MODEL_NAME", jobs=API, planned=True
    )
    verbose: bool = param(True, "Log requests and responses.", env="API_VERBOSE", jobs=API, planned=True)
    root_path: str = param(
        "", "Root path of the API behind a proxy.", env="FASTAPI_ROOT_PATH", jobs=API, planned=True
    )
    max_concurrent: int = param(
        1, "Maximum concurrent generation requests.", env="MAX_CONCURRENT", ge=1, jobs=API, planned=True
    )
    gradio_share: bool = param(
        False, "Create a public share link for the web UI.", env="GRADIO_SHARE", jobs=WEB, planned=True
    )
    gradio_server_name: str = param(
        "0.0.0.0", "Address the web UI binds to.", env="GRADIO_SERVER_NAME", jobs=WEB, planned=True
    )
    gradio_server_port: int = param(
        7860, "Port of the web UI.", env="GRADIO_SERVER_PORT", ge=0, le=65535, jobs=WEB, planned=True
    )
    gradio_root_path: str = param(
        "", "Root path of the web UI behind a proxy.", env="GRADIO_ROOT_PATH", jobs=WEB, planned=True
    )
    gradio_ipv6: bool = param(False, "Bind the web UI to IPv6.", env="GRADIO_IPV6", jobs=WEB, planned=True)
