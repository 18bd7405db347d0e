"""The files LICENSE and NOTICE of a release: under which terms it comes, and to whom it owes what."""

import re
from itertools import groupby
from textwrap import fill

from mkailin_assets.release.facts import ReleaseFacts
from mkailin_resources.models.prompting import visible

CC_BY = "https://creativecommons.org/licenses/by/4.0/"
COURTESY = "courtesy of the U.S. National Library of Medicine"
NOT_CLINICAL = "Not for clinical use."
_PUBMED_FILE = re.compile(r"(pubmed\d\dn)(\d+)")


def is_cc_by(facts: ReleaseFacts) -> bool:
    """Whether CC BY 4.0 is all there is to say of the release's licence.

    It is not where the release holds abstracts, or text of a model whose licence does not simply allow it.
    """
    return facts.form == "pmids" and all(model.may_train == "yes" for model in facts.models if model.wrote)


def licence_text(facts: ReleaseFacts) -> str:
    """The file LICENSE: our own words, and a link to the licence."""
    if facts.form == "full":
        of_others = (
            "This does not cover the titles and abstracts of citations, nor passages of them, in the columns "
            "context, messages, long_answer and text. They belong to their authors or publishers, may be "
            "under copyright, and are not ours to license: to use them or pass them on takes a permission or "
            "a statutory right of your own."
        )
    else:
        of_others = (
            "Titles and abstracts of citations are not in this release, but a question may be made of the "
            "words of a title, or of a sentence of an abstract. This does not cover those words. Whoever "
            "puts titles and abstracts back takes them from a copy of PubMed of their own. They belong to "
            "their authors or publishers, and may be under copyright."
        )
    terms = dict.fromkeys(
        f"- {model.name}: {model.licence}; {model.condition}"
        + (f"; exception stated by whoever made the release: {model.exception}" if model.exception else "")
        for model in facts.models
        if model.wrote
    )
    return _document(
        f"Licence of {facts.name}",
        "What was made for this release (questions, answers, decisions, measurements, reports) is licensed "
        "under Creative Commons Attribution 4.0 International, CC BY 4.0, as far as there are rights in it:",
        f"{CC_BY}legalcode",
        f"To attribute it, name {facts.name} and its source: PubMed, {COURTESY}.",
        of_others,
        "What wrote the questions and answers, and what its licence says of its outputs:",
        *terms,
        "The release comes as it is, without warranty of any kind.",
        NOT_CLINICAL,
    )


def notice_text(facts: ReleaseFacts) -> str:
    """The file NOTICE: what the National Library of Medicine asks for, and what the release was made with."""
    return _document(
        facts.name,
        f"PubMed and MeSH: {COURTESY}. The library does not endorse this release, nor what is done with it.",
        f"The data are not current. They come from the PubMed files {', '.join(file_ranges(facts))}. "
        f"{taken_back_until(facts)} NLM has the current data: https://pubmed.ncbi.nlm.nih.gov/",
        f"MeSH: release of {facts.mesh_year} ({facts.mesh.name}), unmodified; home branches and coverage are "
        "computed from it.",
        "Made with m-KAILIN (Apache-2.0), after the method of arXiv 2504.19565.",
        NOT_CLINICAL,
    )


def taken_back_until(facts: ReleaseFacts) -> str:
    """Up to when it is known what PubMed took back, as a sentence."""
    dated = f" of {facts.retraction_cutoff}" if facts.retraction_cutoff else ""
    return (
        f"What PubMed retracted or deleted up to {visible(facts.last_update_file)}{dated} is left out; what "
        "it retracted or deleted after that is not known here."
    )


def file_ranges(facts: ReleaseFacts) -> list[str]:
    """The PubMed files by name, those with running numbers as one range; then those without a number."""
    names = sorted({visible(file.name) for file in facts.pubmed_files})
    numbered = [(match[1], int(match[2]), match[0]) for name in names if (match := _PUBMED_FILE.match(name))]
    runs = groupby(enumerate(numbered), key=lambda item: (item[1][0], item[1][1] - item[0]))
    ends = [[name for _, (_, _, name) in run] for _, run in runs]
    ranges = [run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in ends]
    return [*ranges, *(name for name in names if not _PUBMED_FILE.match(name))]


def _document(*paragraphs: str) -> str:
    lines = (fill(visible(text), 100, break_long_words=False, break_on_hyphens=False) for text in paragraphs)
    return "\n\n".join(lines) + "\n"
