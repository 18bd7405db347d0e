"""The MeSH headings that a text names."""

from collections.abc import Mapping, Sequence

import polars as pl

from mkailin_assets.corpus.decontamination import normalised


class Mentions:
    """Finds descriptors by the names that a release has for them, whole words in any case. Immutable."""

    def __init__(self, names: Mapping[str, str]) -> None:
        """`names`: UI of each preferred name and entry term (`MeshHierarchy.names`)."""
        plain = pl.DataFrame({"name": list(names)}, schema={"name": pl.String}).select(
            normalised(pl.col("name"))
        )
        # Of names that differ in punctuation alone the first counts.
        by_words = reversed(list(zip(plain.to_series().str.strip_chars(), names.values(), strict=True)))
        self._uis = {words: ui for words, ui in by_words if words}
        self._longest = max((words.count(" ") + 1 for words in self._uis), default=0)

    def named_in(self, texts: Sequence[str]) -> list[list[str]]:
        """UIs of the descriptors that each text names, in its order, each once.

        Of overlapping names the one that begins first counts, and the longest of those: "breast cancer" is
        not cancer as well. Words only: "AIDS" is found in "hearing aids".
        """
        plain = pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(normalised(pl.col("text")))
        return [self._in(text.split()) for text in plain.to_series()]

    def _in(self, words: list[str]) -> list[str]:
        found: dict[str, None] = {}
        start = 0
        while start < len(words):
            for end in range(min(start + self._longest, len(words)), start, -1):
                if ui := self._uis.get(" ".join(words[start:end])):
                    found[ui] = None
                    start = end
                    break
            else:
                start += 1
        return list(found)
