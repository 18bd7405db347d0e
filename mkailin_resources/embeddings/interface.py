"""What an encoder is, whoever made it.

Vectors are float32, of length 1, so that a dot product is a cosine; a text that says nothing to an
encoder (empty, out of vocabulary) is the zero vector, which is similar to nothing.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import dagster as dg
import numpy as np
from pydantic import Field

LEARNT = "corpus"
Pooling = Literal["", "mean", "cls"]


class EncoderError(RuntimeError):
    """An encoder cannot be learnt, loaded or used; the message says what to do."""


class Encoder(Protocol):
    """Turns texts into vectors. `fingerprint` names what decides them and may name a folder."""

    fingerprint: str
    dimension: int

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, dimension), float32, each of length 1 or zero."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """The same for questions, whose model or prompt may be another."""
        ...


class EncoderSettings(dg.ConfigurableResource):
    """Which encoder retrieval uses: one learnt from the corpus, or a transformer, tuned if wanted."""

    name: str = Field(LEARNT, description="`corpus`, or NAME[@REVISION] of a transformer, or its folder")
    query_name: str = Field(
        "", description="Transformer for questions, where it is another than for documents"
    )
    pooling: Pooling = Field(
        "", description="How a plain transformer's token vectors become one; empty: mean"
    )
    tuning: dict[str, Any] | None = Field(
        None,
        description="Settings of a fine-tuning on question-abstract pairs of the corpus (RetrieverTuning), "
        "those not given as they are by default; null: no fine-tuning",
    )
    learn_from: int = Field(
        default=200_000, ge=1, description="Citations it is learnt from or tuned on at most, a seeded sample"
    )


def of_length_one(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their length; rows of zeros, and of rounding errors only, become zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled = vectors / np.maximum(lengths, 1e-6)
    # Written so that a row that is not a number stays one, for the caller to see.
    return np.where(lengths <= 1e-6, 0, scaled).astype(np.float32)
