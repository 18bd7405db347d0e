"""How a model is named in settings, `NAME[@REVISION][+ADAPTER]`, and what exactly that is.

NAME is one of the Hugging Face hub, a folder, or what an endpoint calls it; ADAPTER a folder with a LoRA
adapter. Folders are known by their content: another model at the same place has another identity.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_BLOCK = 1 << 20
_NAME = re.compile(r"(?P<name>[^@+\s]+)(?:@(?P<revision>[^@+\s]+))?(?:\+(?P<adapter>[^+]+))?")


@dataclass(frozen=True)
class ModelName:
    """A model as it is asked for; empty where nothing is said of revision or adapter."""

    name: str
    revision: str = ""
    adapter: str = ""

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """Read `NAME[@REVISION][+ADAPTER]`; raises `ValueError`."""
        parts = _NAME.fullmatch(text.strip())
        if not parts:
            raise ValueError(f"{text!r} names no model; write NAME, NAME@REVISION or NAME+FOLDER_OF_ADAPTER")
        return cls(parts["name"], parts["revision"] or "", parts["adapter"] or "")

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.name}{revision}{f'+{self.adapter}' if self.adapter else ''}"

    @property
    def is_folder(self) -> bool:
        """Whether the name is that of a folder on this machine."""
        return Path(self.name).expanduser().is_dir()

    def resolved_revision(self) -> str:
        """What exactly the name stands for: of a folder a hash of its content, of a hub model the commit.

        The commit is that of the revision asked for (`main` if none is), as it lies in the local cache of the
        hub, else as the hub tells; raises `OSError` where neither knows it.
        """
        return _folder_hash(self.name) if self.is_folder else _commit(self.name, self.revision or "main")

    def adapter_hash(self) -> str:
        """Hash of the adapter's files; empty where there is no adapter."""
        return _folder_hash(self.adapter) if self.adapter else ""


@cache
def _folder_hash(folder: str) -> str:
    """Hash of the settings and weights in a folder, those that decide what the model writes."""
    root = Path(folder).expanduser()
    files = sorted(
        path
        for path in root.iterdir()
        if path.suffix in (".json", ".safetensors", ".jinja", ".model", ".txt")
    )
    if not files:
        raise FileNotFoundError(f"{root}: there is no model in this folder")
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


@cache
def _commit(name: str, revision: str) -> str:
    from huggingface_hub import HfApi, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    if isinstance(cached, str):
        return Path(cached).parent.name
    try:
        return str(HfApi().model_info(name, revision=revision, timeout=30).sha)
    except Exception as error:  # its client's own errors of the network are no OSError
        raise OSError(f"{name}: its commit cannot be found out: {error}") from error
