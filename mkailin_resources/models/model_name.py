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
_DECIDING = (".json", ".safetensors", ".jinja", ".model", ".txt")
_NAME = re.compile(r"(?P<name>[^@+\s]+)(?:@(?P<revision>[^@+\s]+))?(?:\+(?P<adapter>[^+]+))?")


@dataclass(frozen=True)
class ModelName:
    """A model as it is asked for; empty where nothing is said of revision or adapter."""

    name: str
    revision: str = ""
    adapter: str = ""

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """Read `NAME[@REVISION][+ADAPTER]`; raises `ValueError`.

        A folder that is there is a name as a whole, whatever characters its path has.
        """
        if text.strip() and _is_folder(text):
            return cls(text)
        parts = _NAME.fullmatch(text.strip())
        if not parts:
            raise ValueError(f"{text!r} names no model; write NAME, NAME@REVISION or NAME+FOLDER_OF_ADAPTER")
        return cls(parts["name"], parts["revision"] or "", parts["adapter"] or "")

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.name}{revision}{f'+{self.adapter}' if self.adapter else ''}"

    @property
    def shown(self) -> str:
        """The name without the places of folders: where they lie is nobody's business."""
        name, adapter = (_without_place(part) for part in (self.name, self.adapter))
        return str(ModelName(name, self.revision, adapter))

    @property
    def is_folder(self) -> bool:
        """Whether the name is that of a folder on this machine."""
        return _is_folder(self.name)

    def resolved_revision(self) -> str:
        """What exactly the name stands for: of a folder a hash of its content, of a hub model the commit.

        The commit is that of the revision asked for (`main` if none is), as it lies in the local cache of the
        hub, else as the hub tells; raises `OSError` where neither knows it.
        """
        return _folder_hash(self.name) if self.is_folder else _commit(self.name, self.revision or "main")

    def version(self) -> str:
        """The name, with sizes and times of the files in its folders: changes when they do; reads none."""
        files = [
            (path.name, path.stat().st_size, path.stat().st_mtime_ns)
            for folder in (self.name, self.adapter)
            if folder and _is_folder(folder)
            for path in _files(folder)
        ]
        changed = hashlib.blake2b(repr(files).encode(), digest_size=4).hexdigest() if files else ""
        return f"{self}{changed and f' ({changed})'}"

    def adapter_hash(self) -> str:
        """Hash of the adapter's files; empty where there is no adapter."""
        return _folder_hash(self.adapter) if self.adapter else ""


def _is_folder(text: str) -> bool:
    try:
        return Path(text).expanduser().is_dir()
    except (OSError, RuntimeError):  # too long for a path; no such user
        return False


def _without_place(name: str) -> str:
    """The last part of a path on this machine or another; a hub's OWNER/NAME as it is."""
    is_path = name.startswith(("/", "~", ".")) or _is_folder(name)
    return Path(name).name if is_path else name


def _files(folder: str) -> list[Path]:
    """The files of settings and weights in a folder, those that decide what the model writes."""
    found = Path(folder).expanduser().iterdir()
    return sorted(path for path in found if path.suffix in _DECIDING)


@cache
def _folder_hash(folder: str) -> str:
    """Hash of the files of a folder that decide what the model writes."""
    files = _files(folder)
    if not files:
        raise FileNotFoundError(f"{folder}: there is no model in this folder")
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

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(cached, str):
            return Path(cached).parent.name
        return str(HfApi().model_info(name, revision=revision, timeout=30).sha)
    except Exception as error:  # its client's own errors of the network are no OSError
        raise OSError(f"{name}: its commit cannot be found out: {error}") from error
