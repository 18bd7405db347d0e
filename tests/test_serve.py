"""The trained model answers behind an OpenAI-compatible endpoint, and nothing is left when that is ended."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import requests
from tiny_checkpoint import Sort, load_trained, tiny_checkpoint
from tiny_model import REPOSITORY

from mkailin_assets.training import serve
from mkailin_assets.training.card import QUESTION, served_name
from mkailin_assets.training.checkpoints import read_record
from mkailin_assets.training.export import write_settings
from mkailin_assets.training.serve import CannotServe, Server, Trained, main, run, server_of
from mkailin_resources.models.vllm_model import VllmModel
from mkailin_resources.storage import Storage

# A server with a process of its own, as vLLM has; once it was asked, it writes the numbers of both.
PROGRAM = """
import os, signal, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

port, file, stubborn = int(sys.argv[1]), sys.argv[2], len(sys.argv) > 3
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        with open(f"{file}.part", "w") as part:
            part.write(f"{os.getpid()} {own.pid}")
        os.replace(f"{file}.part", file)

    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("checkpoints")
    return SimpleNamespace(**{sort: tiny_checkpoint(root / sort, sort) for sort in get_args(Sort)})


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


def trained(checkpoint: Path, root: Path) -> Trained:
    return Trained(checkpoint, read_record(checkpoint), Storage(root=str(root)))


def within(seconds: float, is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_gone(process: int) -> bool:
    """Whether it has ended; where nobody asks how it ended, its number stays."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def texts_of(stream: str) -> list[str]:
    parts = [
        json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: {")
    ]
    return [choice["delta"].get("content") or "" for part in parts for choice in part["choices"]]


@pytest.mark.slow
def test_a_trained_model_can_be_talked_to(made: SimpleNamespace, tmp_path: Path, port: int) -> None:
    name = served_name(read_record(made.over))
    command = [sys.executable, "-m", "mkailin_assets.training.serve", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--checkpoint", str(made.over)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"MKAILIN_STORAGE": str(tmp_path)},
    )
    assert process.stdout is not None
    try:
        ready = f"{name} answers at http://127.0.0.1:{port}/v1 until Ctrl-C. For instance:\n"
        before = list(takewhile(lambda line: line != ready, process.stdout))
        assert "transformers is starting, which takes seconds to minutes ...\n" in before
        (server,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        curl = shlex.split("".join(process.stdout.readline() for _ in range(3)))
        url, asked = curl[1], json.loads(curl[-1])
        models = requests.get(f"http://127.0.0.1:{port}/v1/models", timeout=20).json()
        reply = requests.post(url, json=asked, timeout=60).json()
        stream = requests.post(url, json=asked | {"stream": True}, timeout=60).text
        other = requests.post(url, json=asked | {"model": "gpt2"}, timeout=20)
    finally:
        process.terminate()
        after, _ = process.communicate(timeout=60)
    assert f"Not for clinical use. Its card: {made.over}/README.md\n" in before
    assert [model["id"] for model in models["data"]] == [name]
    assert other.status_code == 400
    # What adapter and base say together, word for word.
    network, tokenizer = load_trained(made.over)
    messages = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    tokens = network.generate(**prompt, max_new_tokens=asked["max_tokens"], do_sample=False)
    said = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert reply["choices"][0]["message"]["content"] == said
    assert "".join(texts_of(stream)) == said
    assert process.returncode == 0
    assert after.endswith(f"{name}: ended\n")
    assert is_gone(int(server))


@pytest.mark.parametrize(
    ("number", "is_stubborn"),
    [(signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGKILL, False)],
    ids=["SIGTERM", "Ctrl-C", "stubborn", "kill -9"],
)
def test_no_process_is_left(number: int, is_stubborn: bool, tmp_path: Path, port: int) -> None:
    file = tmp_path / "processes"
    arguments = [str(port), str(file), *(["stubborn"] if is_stubborn else [])]
    child = os.fork()
    if not child:
        try:
            serve._END_S = 1
            signal.signal(signal.SIGINT, signal.default_int_handler)
            run(Server("it", [sys.executable, "-c", PROGRAM, *arguments], {}), f"http://127.0.0.1:{port}", "")
            os._exit(0)
        finally:
            os._exit(1)
    assert within(20, file.exists)
    server, its_own = map(int, file.read_text().split())
    try:
        time.sleep(0.5)  # until it waits for the end
        os.kill(child, number)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == (-number if number == signal.SIGKILL else 0)
        assert within(5, lambda: is_gone(server))
        # Where it was killed itself, the server that it asked to end has to end its own.
        assert number == signal.SIGKILL or within(5, lambda: is_gone(its_own))
    finally:
        for process in (server, its_own):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def test_a_server_that_ends_by_itself_is_told_of(port: int) -> None:
    with pytest.raises(CannotServe, match=r"^vLLM ended with 3; why stands above\."):
        run(Server("vLLM", [sys.executable, "-c", "raise SystemExit(3)"], {}), f"http://127.0.0.1:{port}", "")


@pytest.fixture
def _vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a GPU and vLLM."""
    monkeypatch.setattr(VllmModel, "check", lambda self: None)


@pytest.mark.usefixtures("_vllm")
def test_vllm_serves_an_adapter_over_its_base(made: SimpleNamespace, tmp_path: Path) -> None:
    it = trained(made.over, tmp_path)
    vllm = {"tensor_parallel_size": 2, "enforce_eager": True, "hf_overrides": {"a": 1}}
    engine, command, environment = server_of(it, vllm, "127.0.0.1", 8000)
    told = shlex.join(command)
    [settings] = (tmp_path / ".scratch" / "served").glob(f"{it.record.fingerprint}-*")
    base = made.over.with_name("base")
    for part in (
        "-m vllm.entrypoints.openai.api_server --host 127.0.0.1 --port 8000",
        f"--model {base}",
        "--served-model-name base",
        "--enable-lora --max-loras 1 --max-lora-rank 8",
        f"--lora-modules {served_name(it.record)}={made.over}/adapter",
        f"--tokenizer {settings}/settings --generation-config {settings}/settings",
        "--no-trust-remote-code",
        "--load-format safetensors",
        """--hf-overrides '{"a": 1}'""",
        "--tensor-parallel-size 2",
        "--enforce-eager",
    ):
        assert f" {part} " in f"{told} "
    assert "--revision" not in told
    assert engine == "vLLM"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"


@pytest.mark.usefixtures("_vllm")
@pytest.mark.parametrize("sort", ["whole", "small"])
def test_vllm_serves_one_model_where_more_than_adapters_was_trained(
    sort: Sort, made: SimpleNamespace, tmp_path: Path
) -> None:
    it = trained(getattr(made, sort), tmp_path)
    command = server_of(it, {}, "127.0.0.1", 8000).command
    assert "--enable-lora" not in command
    assert command[command.index("--model") + 1] == str(it.whole())
    assert command[command.index("--served-model-name") + 1] == served_name(it.record)


def test_what_is_served_is_made_once(made: SimpleNamespace, tmp_path: Path) -> None:
    it = trained(made.over, tmp_path)
    weights = it.whole() / "model.safetensors"
    first = weights.stat()
    assert it.hub() == trained(made.over, tmp_path).hub()
    assert weights.stat() == first
    assert (it.hub() / f"models--{served_name(it.record)}/snapshots/{it.record.fingerprint}").samefile(
        it.whole()
    )


def test_a_whole_model_is_linked_to_and_found_again_where_it_moved(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    links = [path for path in trained(made.whole, tmp_path).whole().iterdir() if path.is_symlink()]
    assert {path.name for path in links} >= {"model.safetensors", "tokenizer.json"}
    assert all(path.resolve().parent == made.whole / "model" for path in links)
    moved = shutil.copytree(made.whole, tmp_path / "moved")
    (tmp_path / "gone").mkdir()
    links[0].unlink()
    links[0].symlink_to(tmp_path / "gone" / links[0].name)
    assert (trained(moved, tmp_path).whole() / links[0].name).resolve().parent == moved / "model"


def test_settings_of_an_adapter_are_those_of_its_base_and_its_own_tokenizer(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    write_settings(made.over, tmp_path / "settings")
    said = json.loads((tmp_path / "settings" / "generation_config.json").read_text())
    _, tokenizer = load_trained(made.over)
    assert said["eos_token_id"] == [tokenizer.eos_token_id]
    assert (tmp_path / "settings" / "tokenizer.json").is_file()
    assert not list((tmp_path / "settings").glob("*.safetensors"))


@pytest.mark.usefixtures("_vllm")
@pytest.mark.parametrize(
    ("host", "is_open"),
    [("127.0.0.1", False), ("0.0.0.0", True)],
)
def test_whoever_opens_it_to_others_is_warned(  # noqa: PLR0917
    host: str,
    is_open: bool,
    made: SimpleNamespace,
    tmp_path: Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(serve, "run", lambda *given: ran.append(given))
    monkeypatch.setenv("MKAILIN_STORAGE", str(tmp_path))
    assert main(["--checkpoint", str(made.small), "--host", host, "--port", str(port)]) == 0
    ((_, asked, ready),) = ran
    assert asked == f"http://127.0.0.1:{port}"
    assert f"curl http://127.0.0.1:{port}/v1/chat/completions" in ready
    assert ("there is no key" in capsys.readouterr().out) is is_open


def test_a_port_that_is_taken_is_named(
    made: SimpleNamespace, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", port)):
        assert main(["--checkpoint", str(made.small), "--port", str(port)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"127.0.0.1, port {port}, cannot be listened on: Address already in use")
    assert "--port" in told


def test_without_a_checkpoint_it_says_what_to_run(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MKAILIN_STORAGE", str(tmp_path))
    assert main(["--port", str(port)]) == 1
    assert "there is no finetuned checkpoint yet: run `make distill`" in capsys.readouterr().err


def test_an_altered_checkpoint_is_not_served(
    made: SimpleNamespace, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tiny_checkpoint(tmp_path, "whole")
    (checkpoint / "model" / "tokenizer.json").write_text("{}")
    assert main(["--checkpoint", str(checkpoint), "--port", str(port)]) == 1
    assert f"{checkpoint}/model/tokenizer.json: is missing, or not as it was" in capsys.readouterr().err


def test_missing_packages_are_named(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import import_utils

    monkeypatch.setattr(import_utils, "is_serve_available", lambda: False)
    with pytest.raises(CannotServe, match=re.escape("pip install 'mkailin[serve]'")):
        server_of(trained(made.whole, tmp_path), {}, "127.0.0.1", 8000)
