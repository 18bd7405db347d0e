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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback

MANIFEST = "manifest.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def manifest_writer() -> "TrainerCallback":
    """A callback that lists size and SHA-256 of a checkpoint's files once all are written.

    Of several processes, on one disk, the first writes the list, when the others have written their files.
    Then older checkpoints are removed but one: that of the lowest held-out loss, or else the one before. The
    trainer itself removes none (`save_total_limit` None): it would do so before the newer has its list.
    """
    from torch import distributed
    from transformers import TrainerCallback

    class ManifestWriter(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            together = distributed.is_available() and distributed.is_initialized()
            if together:
                distributed.barrier()
            if together and distributed.get_rank() > 0:
                return
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            part = folder / f"{MANIFEST}.part"
            part.write_text(json.dumps(_files(folder), indent=2))
            os.replace(part, folder / MANIFEST)
            _remove_older(folder)

    return ManifestWriter()


def last_whole(folder: Path, log: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint in a trainer's `output_dir`; None if there is none.

    A whole one whose best checkpoint, with the weights to keep in the end, is not whole does not count.
    Newer ones that are not whole are removed, and `log` is told why. Older ones are left unread.
    """
    for path in _newest_first(folder):
        fault = _fault(path) or _fault_of_best(path)
        if fault is None:
            return path
        log(f"{path.name} is removed, a kill cut it off: {fault}")
        shutil.rmtree(path)
    return None


def _newest_first(folder: Path) -> list[Path]:
    found = [
        (int(match[1]), path) for path in folder.glob("*") if (match := _CHECKPOINT.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def _remove_older(newest: Path) -> None:
    older = [path for path in _newest_first(newest.parent) if path != newest]
    best = _best(newest)
    kept = best.name if best and best.name != newest.name else older[0].name if older else ""
    for path in older:
        if path.name != kept:
            shutil.rmtree(path, ignore_errors=True)


def _best(checkpoint: Path) -> Path | None:
    """The checkpoint of the lowest held-out loss, as one knows of it."""
    try:
        best: str | None = json.loads((checkpoint / "trainer_state.json").read_text())[
            "best_model_checkpoint"
        ]
    except FileNotFoundError:
        return None
    return Path(best) if best else None


def _fault(folder: Path) -> str | None:
    try:
        listed = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return f"it has no {MANIFEST}"
    # Sizes first: a file that is cut off is found without reading gigabytes.
    wrong = [name for name, (size, _) in listed.items() if _size(folder / name) != size]
    wrong = wrong or [
        name
        for name, digest in zip(listed, _sha256([folder / name for name in listed]), strict=True)
        if digest != listed[name][1]
    ]
    return f"{wrong[0]} is not as it was written" if wrong else None


def _fault_of_best(checkpoint: Path) -> str | None:
    best = _best(checkpoint)
    fault = _fault(best) if best and best != checkpoint else None
    return f"{fault} in {best}, whose weights it would end with" if fault else None


def _files(folder: Path) -> dict[str, tuple[int, str]]:
    paths = sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(MANIFEST)
    )
    return {
        str(path.relative_to(folder)): (path.stat().st_size, digest)
        for path, digest in zip(paths, _sha256(paths), strict=True)
    }


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _sha256(paths: list[Path]) -> list[str]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(sha256, paths))


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
