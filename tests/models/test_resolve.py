from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import graft.models.resolve as resolve_module
from graft.errors import ConfigError
from graft.models.resolve import resolve, weight_files

COMMIT = "a" * 40
PROBE = "from graft.models.resolve import resolve; print(resolve('{name}', package={package!r}))"


def model_folder(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", *files):
        (folder / file).write_text("{}", encoding="utf-8")
    return folder


@dataclass
class Hub:
    """A hub on the loopback that holds one model, or answers every question with one error."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    error: tuple[int, str] | None = None
    fetched: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers for a path without its query."""
        name = path.rpartition(f"/{COMMIT}/")[2]
        if path == "/":
            return 200, b"", {}
        if self.error is not None:
            return self.error[0], b"{}", {"X-Error-Code": self.error[1]}
        if "/tree/" in path:
            listed = [{"type": "file", "path": name, "size": 2, "oid": "1"} for name in self.files]
            return 200, json.dumps(listed).encode(), {}
        if path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in self.files]
            return 200, json.dumps({"id": "acme/tiny", "sha": COMMIT, "siblings": siblings}).encode(), {}
        if name in self.files:
            return 200, self.files[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT}
        return 404, b"{}", {}


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            status, body, headers = state.answer(self.path.partition("?")[0] or "/")
            if self.command == "GET" and "ETag" in headers:
                state.fetched.append(headers["ETag"].strip('"'))
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


def ask(endpoint: str, cache: Path, *, name: str = "acme/tiny", package: str | None = None) -> tuple[int, str]:
    """Resolve in a fresh process, since huggingface_hub reads its settings once."""
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(name=name, package=package)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.strip() or done.stderr.strip()


def closed_endpoint() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "mine", "model.safetensors")
    assert resolve(str(folder)) == folder.resolve()


def test_folder_without_weights_is_refused_unless_none_are_needed(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"lacks model\.safetensors"):
        resolve(str(folder))
    assert resolve(str(folder), want="config") == folder.resolve()


def test_folder_that_lacks_a_shard_is_refused_with_its_name(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "mine", "model-1-of-2.safetensors")
    shards = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"lacks model-2-of-2\.safetensors\."):
        resolve(str(folder))
    assert [file.name for file in weight_files(folder)] == sorted(shards.values())


def test_adapter_folder_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds an adapter, not a model"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_path_that_does_not_exist_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        resolve(name)


def test_name_that_no_hub_allows_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither a folder nor a name on the hub"):
        resolve("two words")


def test_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "graft_test_carrier" / "weights", "model.safetensors")
    (tmp_path / "graft_test_carrier" / "__init__.py").write_text("raise RuntimeError", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("acme/tiny", package="graft_test_carrier/weights") == folder
    assert "graft_test_carrier" not in sys.modules


def test_pinned_revision_is_not_taken_from_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_folder(tmp_path / "graft_test_pinned" / "weights", "model.safetensors")
    (tmp_path / "graft_test_pinned" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="offline is set"):
        resolve("acme/tiny", package="graft_test_pinned/weights", revision="v1", offline=True)


def test_offline_says_so_at_once_with_all_ways_out() -> None:
    start = time.monotonic()
    with pytest.raises(ConfigError, match="offline is set") as caught:
        resolve("acme/tiny", package="not_installed_anywhere/model", offline=True)
    assert time.monotonic() - start < 3
    assert 'pip install "graft[demo]"' in str(caught.value)
    assert "model.name=/path/to/a/folder" in str(caught.value)


def test_closed_endpoint_gives_one_error_without_retries(tmp_path: Path) -> None:
    start = time.monotonic()
    status, said = ask(closed_endpoint(), tmp_path)
    assert status == 1
    assert "model.name: acme/tiny is not a folder, not in the Hugging Face cache" in said
    assert "Connection refused" in said
    assert time.monotonic() - start < 15  # imports included; the retries of from_pretrained alone take 25 s


def test_silent_endpoint_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve_module, "_REACH_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        reason = resolve_module._unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert reason is not None
    assert "no answer from http://127.0.0.1" in reason
    assert time.monotonic() - start < 2


def test_download_takes_one_form_of_the_weights_and_the_cache_serves_the_next_time(hub: Hub, tmp_path: Path) -> None:
    names = ("config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json", "onnx/model.onnx")
    hub.files = {name: b"{}" for name in names}
    status, said = ask(hub.url, tmp_path)
    assert status == 0, said
    assert sorted(os.listdir(said)) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(hub.fetched) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert ask(closed_endpoint(), tmp_path) == (0, said)
    (Path(said) / "model.safetensors").unlink()
    status, said = ask(closed_endpoint(), tmp_path)
    assert status == 1
    assert "not in the Hugging Face cache" in said


def test_unknown_name_on_the_hub_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.error = (404, "RepoNotFound")
    status, said = ask(hub.url, tmp_path)
    assert status == 1
    assert "acme/tiny is neither a local folder nor a model on" in said


def test_gated_model_says_how_to_get_it(hub: Hub, tmp_path: Path) -> None:
    hub.error = (403, "GatedRepo")
    status, said = ask(hub.url, tmp_path)
    assert status == 1
    assert "asks you to accept its terms" in said
    assert "hf auth login" in said
