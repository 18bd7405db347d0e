"""Tables of the release stage."""

from typing import get_args

import dataframely as dy

from mkailin_assets.corpus.tables import CorpusRecall
from mkailin_assets.release.facts import Form
from mkailin_assets.tables import one_of

FORMS: tuple[str, ...] = get_args(Form)


class CorpusRelease(dy.Schema):
    """The releases that were made of the corpus, each a folder that never changes."""

    name = dy.String(primary_key=True, description="Name: the last PubMed file, and a hash of what is in it")
    uri = dy.String(description="Folder: data, card, Croissant metadata, manifest, hashes")
    form = one_of(FORMS, description="pmids: without the text of citations; full: with it")
    corpus = dy.String(description="Fingerprint of the training corpus")
    rows = dy.Int64(min=0, description="Examples")
    made_on = dy.String(description="Day it was made, YYYY-MM-DD")
    last_update_file = dy.String(description="PubMed file with the highest number it knows of")
    retraction_cutoff = dy.String(nullable=True, description="Day up to which retractions are known")
    sums_sha256 = dy.String(description="SHA-256 of SHA256SUMS, which covers every other file")
    is_current = dy.Bool(description="Whether it is that of the corpus as it stands")


class ReleaseRecall(CorpusRecall):
    """Rows of releases that rest on what PubMed has taken back since, and what trained on them."""

    release = dy.String(primary_key=True, description="Name of the release that holds the row")
    trained_on = dy.List(dy.String(), description="Checkpoints that were trained or validated on the row")
