"""Checkpoints of a training that was cut off: which of them are whole.

Transformers 5.19 writes the files of a checkpoint one after another into their final folder. Resumed from one
that a kill cut off, a training crashes (half a file) or goes on as another one (no optimizer.pt). Here a
list of all files is written last, and a checkpoint that does not match its list is not resumed from.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback

MANIFEST = "manifest.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def manifest_writer() -> "TrainerCallback":
    """A callback that lists size and SHA-256 of a checkpoint's files once all are written.

    For a training of one process. Its `save_total_limit` is 2 at least: the trainer removes an older
    checkpoint before the newer has its list.
    """
    from transformers import TrainerCallback

    class ManifestWriter(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            part = folder / f"{MANIFEST}.part"
            part.write_text(json.dumps(_files(folder), indent=2))
            os.replace(part, folder / MANIFEST)

    return ManifestWriter()


def last_whole(folder: Path, log: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint in a trainer's `output_dir`; None if there is none.

    Newer ones that are not whole are removed, and `log` is told why. Older ones are left unread.
    """
    found = [(match, path) for path in folder.glob("*") if (match := _CHECKPOINT.fullmatch(path.name))]
    for _, path in sorted(found, key=lambda one: int(one[0][1]), reverse=True):
        fault = _fault(path)
        if fault is None:
            return path
        log(f"{path.name} is removed, a kill cut it off: {fault}")
        shutil.rmtree(path)
    return None


def _fault(folder: Path) -> str | None:
    try:
        listed = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return f"it has no {MANIFEST}"
    # Sizes first: a file that is cut off is found without reading gigabytes.
    wrong = [name for name, (size, _) in listed.items() if _size(folder / name) != size]
    wrong = wrong or [name for name, (_, digest) in listed.items() if sha256(folder / name) != digest]
    return f"{wrong[0]} is not as it was written" if wrong else None


def _files(folder: Path) -> dict[str, tuple[int, str]]:
    paths = sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(MANIFEST)
    )
    return {str(path.relative_to(folder)): (path.stat().st_size, sha256(path)) for path in paths}


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
