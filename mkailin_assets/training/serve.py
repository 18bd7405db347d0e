"""The fine-tuned checkpoint behind an OpenAI-compatible endpoint, on this machine alone by default.

    python -m mkailin_assets.training.serve [--checkpoint CHECKPOINT] [--host HOST] [--port PORT]

On a GPU by vLLM, where it is installed: an adapter over its base, or a whole model. Else by the server of
transformers, for one person: it answers one request after another, and knows no schema to answer by.
"""

import argparse
import ctypes
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import requests

from mkailin_assets.adapters import base_of, model_of
from mkailin_assets.release.notice import NOT_CLINICAL
from mkailin_assets.training.card import CARD, QUESTION, TEXT, facts, served_name
from mkailin_assets.training.checkpoints import TrainingRecord, weights_sha256
from mkailin_assets.training.export import (
    CHECKPOINT_HELP,
    CheckpointError,
    checked,
    find_checkpoint,
    write_settings,
    write_whole,
    writing,
)
from mkailin_resources.models.interface import ModelUnavailable
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.models.vllm_model import VllmModel
from mkailin_resources.profiles import InvalidSetting, Settings
from mkailin_resources.storage import Storage, StorageError

_ENDING = (signal.SIGINT, signal.SIGTERM)
_END_S = 30  # for requests that are being answered, and for vLLM to give the GPU back
_TOKENS = 200  # of the reply that is shown how to ask for


class CannotServe(RuntimeError):
    """An endpoint cannot be started, or ended by itself; the message says what to do."""


class Server(NamedTuple):
    """A program that serves: its name, what starts it, and what its environment has more than ours."""

    engine: str
    command: list[str]
    environment: dict[str, str]


class Trained(NamedTuple):
    """A checkpoint, and what is made of it to serve it, once, in the storage's scratch folder."""

    checkpoint: Path
    record: TrainingRecord
    storage: Storage

    def whole(self) -> Path:
        """The checkpoint as one model."""
        return self._once("model", partial(write_whole, self.checkpoint, self.record, link=True))

    def settings(self) -> Path:
        """What an adapter's model needs beside weights."""
        return self._once("settings", partial(write_settings, self.checkpoint))

    def hub(self) -> Path:
        """A cache of the Hub that holds the model by the name it is served by, and nothing else."""
        whole = self.whole()
        hub = whole.parent / "hub"
        cached = hub / f"models--{served_name(self.record)}"
        for part in ("refs", "snapshots"):
            (cached / part).mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            (cached / "snapshots" / self.record.fingerprint).symlink_to(Path("../../..") / whole.name)
        (cached / "refs" / "main").write_text(self.record.fingerprint)
        return hub

    def _once(self, name: str, write: Callable[[Path], None]) -> Path:
        known = f"{self.record.fingerprint}-{weights_sha256(self.record)[:8]}"
        folder = self.storage.scratch() / "served" / known
        target = folder / name
        with self.storage.turn("served"), writing(target):
            is_whole = target.is_dir() and all(path.exists() for path in target.iterdir())
            if not is_whole:  # a checkpoint that is linked to may have moved
                shutil.rmtree(target, ignore_errors=True)
                folder.mkdir(parents=True, exist_ok=True)
                with self.storage.scratch_folder("serving") as scratch:
                    write(scratch / name)
                    (scratch / name).rename(target)
        return target


def server_of(trained: Trained, vllm: Mapping[str, Any], host: str, port: int) -> Server:
    """What serves a checkpoint here, by its `served_name`; `vllm` are arguments of vLLM's engine.

    What it needs beside the checkpoint is made once, see `Trained`. Raises `CannotServe`, `CheckpointError`,
    `ModelUnavailable`.
    """
    checkpoint, name = trained.checkpoint, served_name(trained.record)
    address = ("--host", host, "--port", str(port))
    arguments = tuple(sorted(vllm.items()))
    try:
        VllmModel(model_of(checkpoint), engine_arguments=arguments).check()
    except ModelUnavailable:
        _check_transformers()
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", name, *address]
        # It calls a model as the Hub does, lists those of the Hub's cache, and would fetch others.
        return Server("transformers", command, {"HF_HUB_CACHE": str(trained.hub()), "HF_HUB_OFFLINE": "1"})
    if trained.record.method == "full" or _has_more_than_adapters(checkpoint):
        model, more = ModelName(str(trained.whole())), ["--served-model-name", name]
    else:
        model, settings = model_of(checkpoint), str(trained.settings())
        more = ["--served-model-name", base_of(checkpoint).shown, "--lora-modules", f"{name}={model.adapter}"]
        more += ["--tokenizer", settings, "--generation-config", settings]
    flags = _flags(VllmModel(model, engine_arguments=arguments).arguments())
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *address, *more, *flags]
    return Server("vLLM", command, {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"})


def _check_transformers() -> None:
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        raise CannotServe(
            "there is no vLLM with a GPU here, and the server of transformers lacks packages: "
            "pip install 'mkailin[serve]'"
        )


def _has_more_than_adapters(checkpoint: Path) -> bool:
    """Whether embeddings were trained in full beside the adapters, which vLLM does not take."""
    settings = json.loads((Path(model_of(checkpoint).adapter) / "adapter_config.json").read_text())
    return bool(settings.get("modules_to_save"))


def _flags(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Arguments of `vllm.LLM` as options of its server."""
    for name, value in arguments.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{option}" if value else f"--no-{option}"
        elif value is not None:
            yield f"--{option}"
            yield value if isinstance(value, str) else json.dumps(value)


def run(server: Server, url: str, ready: str) -> None:
    """Start it, print `ready` once it answers, and wait for Ctrl-C or SIGTERM; nothing of it is left then.

    Raises `CannotServe` where it ends by itself.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = subprocess.Popen(
        server.command,
        env=os.environ | server.environment,
        start_new_session=True,  # so that its processes can be ended together
        preexec_fn=_end_with_parent(),  # noqa: PLW1509 (it calls the C library alone)
    )
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy stands between this machine and itself
            while process.poll() is None and not _answers(session, url):
                time.sleep(0.3)
        if process.returncode is None:
            print(ready, flush=True)
        code: int | None = process.wait()
    except KeyboardInterrupt:
        code = None
    finally:
        _end(process)
        for number, handler in before.items():
            signal.signal(number, handler)
    if code is not None:
        raise CannotServe(
            f"{server.engine} ended with {code}; why stands above. If memory is short, serve a smaller model "
            "or lower gpu_memory_utilization or max_model_len of vLLM in MKAILIN_VLLM_ARGUMENTS"
        )


def _end_with_parent() -> Callable[[], object] | None:
    """What has a child end when its parent was killed; Linux alone can."""
    if sys.platform != "linux":
        return None
    set_signal_of_the_parents_death = 1
    return partial(ctypes.CDLL(None).prctl, set_signal_of_the_parents_death, signal.SIGTERM)


def _answers(session: requests.Session, url: str) -> bool:
    try:
        return session.get(f"{url}/health", timeout=5).ok
    except requests.RequestException:
        return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to end, then end what is left of its session."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)  # another Ctrl-C would leave processes
    with suppress(subprocess.TimeoutExpired):
        process.terminate()
        process.wait(_END_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _check_address(host: str, port: int) -> None:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        raise CannotServe(
            f"{host}, port {port}, cannot be listened on: {error.strerror}; end what uses it, or name "
            "another port: --port (with make: PORT=...)"
        ) from error


def _asked(record: TrainingRecord, url: str) -> str:
    """A command that asks the endpoint, to be pasted into a shell."""
    asked: dict[str, Any] = {"model": served_name(record), "max_tokens": _TOKENS, "temperature": 0}
    if record.name == "pretrained":
        path, asked["prompt"] = "completions", TEXT
    else:
        path, asked["messages"] = "chat/completions", [{"role": "user", "content": QUESTION}]
    return (
        f"curl {url}/v1/{path} -H 'Content-Type: application/json' \\\n  -d {shlex.quote(json.dumps(asked))}"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: it was ended by Ctrl-C or SIGTERM; 1: it could not be served."""
    parser = argparse.ArgumentParser(
        prog="python -m mkailin_assets.training.serve",
        description="Serve a trained checkpoint behind an OpenAI-compatible endpoint.",
    )
    parser.add_argument("--checkpoint", default="finetuned", help=CHECKPOINT_HELP)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 127.0.0.1: this machine")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args(arguments)
    try:
        _check_address(given.host, given.port)
        settings = Settings.from_environment()
        storage = Storage(root=settings.storage)
        checkpoint = find_checkpoint(storage, given.checkpoint)
        record = checked(checkpoint)
        name = served_name(record)
        print("\n".join([name, *(f"  {what}: {told}" for what, told in facts(record).items())]))
        print(f"{NOT_CLINICAL} Its card: {checkpoint / CARD}")
        if not _is_loopback(given.host):
            print(f"Whoever reaches {given.host} may ask it: there is no key.")
        trained = Trained(checkpoint, record, storage)
        server = server_of(trained, settings.vllm, given.host, given.port)
        print(f"{server.engine} is starting, which takes seconds to minutes ...", flush=True)
        reached = "127.0.0.1" if given.host == "0.0.0.0" else given.host
        url = f"http://{f'[{reached}]' if ':' in reached else reached}:{given.port}"
        run(
            server,
            url,
            f"\n{name} answers at {url}/v1 until Ctrl-C. For instance:\n\n{_asked(record, url)}\n",
        )
    except (CannotServe, CheckpointError, InvalidSetting, ModelUnavailable, StorageError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{name}: ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
