"""Transformers as encoders, through sentence-transformers: one for all texts, or another for questions."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mkailin_resources.embeddings.interface import EncoderError, Pooling, of_length_one
from mkailin_resources.models.model_name import ModelName

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Halved by accelerate where the memory does not hold it; a CPU gains nothing from more.
_WINDOWS_PER_BATCH = {"cpu": 32, "cuda": 512}


class SentenceEncoder:
    """A sentence-transformers model or a pair of them, as DPR and MedCPT are.

    Prompts and routes that a model brings for queries and documents are used. A text longer than the window
    of its model is cut between words into pieces that fit, and its vector is their mean, weighted by tokens:
    nothing of it is lost.
    """

    def __init__(
        self, documents: "SentenceTransformer", queries: "SentenceTransformer | None" = None
    ) -> None:
        """`queries`: the model for questions, if it is another; raises `EncoderError` if they do not fit."""
        self.documents = documents
        self.queries = queries or documents
        dimensions = [int(model.get_embedding_dimension() or 0) for model in (self.documents, self.queries)]
        if dimensions[0] != dimensions[1]:
            raise EncoderError(
                f"the encoder gives documents vectors of {dimensions[0]} numbers and questions of "
                f"{dimensions[1]}: name two models that were trained together"
            )
        if dimensions[0] % 8:
            raise EncoderError(
                f"the encoder gives vectors of {dimensions[0]} numbers, and an index needs a multiple of 8"
            )
        self.dimension = dimensions[0]
        digest = hashlib.blake2b(digest_size=8)
        for model in (documents, queries):
            if model is not None:
                digest.update(_identity(model))
        self.fingerprint = f"st-{digest.hexdigest()}"

    @classmethod
    def load(cls, name: str, query_name: str = "", pooling: Pooling = "") -> "SentenceEncoder":
        """Models by `NAME[@REVISION]` or folder; raises `EncoderError` when a package or a model is missing.

        Weights are read from safetensors alone, and no code of a model's is run.

        `pooling` makes an encoder of a plain transformer that has none of its own: MedCPT and DPR want `cls`.
        """
        documents = _load(name, pooling)
        return cls(documents, _load(query_name, pooling) if query_name and query_name != name else None)

    def save(self, folder: Path) -> None:
        """Write the model into a folder, in safetensors; only for one model for all texts."""
        self.documents.save(str(folder), create_model_card=False)
        for path in folder.rglob("*"):
            if path.is_file():
                path.chmod(0o644)  # safetensors 0.8 writes files that only their owner can read

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, dimension)."""
        return self._encode(texts, self.documents, is_query=False)

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, dimension)."""
        return self._encode(texts, self.queries, is_query=True)

    def _encode(self, texts: Sequence[str], model: "SentenceTransformer", is_query: bool) -> np.ndarray:
        import torch
        from accelerate.utils import find_executable_batch_size

        prompt = model.prompts.get("query" if is_query else "document") or ""
        pieces = _pieces(texts, model, prompt)
        sums = np.zeros((len(texts), self.dimension), np.float32)
        if not pieces:
            return sums
        encode = model.encode_query if is_query else model.encode_document
        windows = [text for _, text, _ in pieces]

        @find_executable_batch_size(starting_batch_size=_WINDOWS_PER_BATCH.get(model.device.type, 32))
        def in_batches(batch_size: int) -> np.ndarray:
            # Weights stay as they are everywhere, so that a checkpoint is the same on every machine.
            with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
                made = encode(windows, batch_size=batch_size, show_progress_bar=False)
            return np.asarray(made, np.float32)

        owners = np.array([owner for owner, _, _ in pieces])
        tokens = np.array([count for _, _, count in pieces], np.float32)
        np.add.at(sums, owners, of_length_one(in_batches()) * tokens[:, None])
        return of_length_one(sums)


def _load(name: str, pooling: Pooling) -> "SentenceTransformer":
    try:
        import torch
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling as PoolingModule
        from sentence_transformers.sentence_transformer.modules import Transformer
        from transformers.utils import logging
    except ImportError as error:
        raise EncoderError(
            f"encoder {name!r} needs sentence-transformers: pip install 'mkailin[encoder]', "
            "or set the encoder to 'corpus'"
        ) from error
    logging.disable_progress_bar()  # of each weight that is read
    try:
        model = ModelName.parse(name)
        if model.adapter:
            raise ValueError("an adapter cannot be given here: merge it into its model")
        kinds = {"dtype": torch.float32, "use_safetensors": True}
        revision = model.revision or None
        if not pooling:
            loaded = SentenceTransformer(model.name, revision=revision, model_kwargs=kinds)
        else:
            options = {"revision": revision} if revision else {}
            transformer = Transformer(
                model.name, model_kwargs=kinds | options, config_kwargs=options, processor_kwargs=options
            )
            width = transformer.get_embedding_dimension()
            loaded = SentenceTransformer(modules=[transformer, PoolingModule(width, pooling_mode=pooling)])
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise EncoderError(
            f"loading encoder {name!r}: {error}; give a sentence-transformers name that can be "
            "reached from here, the folder of one, or 'corpus'"
        ) from error
    if getattr(getattr(loaded[0], "config", None), "model_type", "") == "dpr":
        raise EncoderError(
            f"encoder {name!r} is a raw DPR checkpoint, which transformers takes for one of questions, "
            "whatever it is: name its conversion to sentence-transformers"
        )
    if not getattr(loaded.tokenizer, "is_fast", False):
        raise EncoderError(f"encoder {name!r} has no fast tokenizer, which alone says where words are")
    return loaded


def _pieces(texts: Sequence[str], model: "SentenceTransformer", prompt: str) -> list[tuple[int, str, int]]:
    """Texts as pieces that fit the window of the model: whose each is, the piece, its tokens."""
    tokenizer = model.tokenizer
    window = min(model.max_seq_length or 512, tokenizer.model_max_length)
    room = window - len(tokenizer(prompt)["input_ids"])
    pending = [(owner, text) for owner, text in enumerate(texts) if text.strip()]
    fitting: list[tuple[int, str, int]] = []
    while pending:
        encoded = tokenizer(
            [text for _, text in pending],
            add_special_tokens=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        too_long = []
        for (owner, text), offsets in zip(pending, encoded["offset_mapping"], strict=True):
            if len(offsets) <= room:
                fitting.append((owner, text, len(offsets)))
            else:
                # Looked at again, since a piece cut within a word may have other tokens.
                too_long += [(owner, piece) for piece in _cut(text, offsets, room) if piece.strip()]
        pending = too_long
    return fitting


def _cut(text: str, offsets: Sequence[tuple[int, int]], room: int) -> list[str]:
    """A text cut after at most `room` tokens each, before a word where there is one."""
    ends = [end for _, end in offsets]
    cuts, token = [0], room
    while token < len(offsets):
        start = offsets[token][0]
        word = text.rfind(" ", cuts[-1] + 1, start + 1)
        at = word if word > 0 else max(start, cuts[-1] + 1)
        cuts.append(at)
        token = bisect_right(ends, at) + room
    return [text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]


def _identity(model: "SentenceTransformer") -> bytes:
    """Hash of modules, window, prompts, tokenizer and weights, wherever they came from."""
    import torch

    modules = [
        (
            type(module).__name__,
            getattr(module, "pooling_mode", None),
            getattr(module, "include_prompt", None),
        )
        for module in model
    ]
    said = [modules, model.max_seq_length, sorted(model.prompts.items())]
    digest = hashlib.blake2b(json.dumps(said).encode())
    # How it cuts and pads is what its last use left behind.
    tokenizer = json.loads(model.tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    digest.update(json.dumps(tokenizer, sort_keys=True).encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.digest()
