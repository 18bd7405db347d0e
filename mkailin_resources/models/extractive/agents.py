"""The embedded default: agents that extract questions and answers from an abstract by rule.

No model weights, no network; the same text gives the same result. Each is a `TextGenerator`. The rules
are imported when the first request comes: they compile hundreds of patterns.
"""

from collections.abc import Callable, Iterable, Iterator

from mkailin_resources.models.interface import GenerationRequest, GenerationResult


class StatementTitleQuestioner:
    """Asks what the title states (the heuristic of PubMedQA's artificial set)."""

    name = "extractive-statement-title"
    prompt_version = "rules-1"

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """One question, or the reason why the title gives none, for each request, in order."""
        from mkailin_resources.models.extractive.statement_titles import question_from_title

        return _results(requests, lambda request: question_from_title(request.document))


class ConclusionQuestioner:
    """Asks about the main claim of the conclusion."""

    name = "extractive-conclusion"
    prompt_version = "rules-1"

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """One question, or the reason why the conclusion gives none, for each request, in order."""
        from mkailin_resources.models.extractive.conclusions import question_from_conclusion

        return _results(requests, lambda request: question_from_conclusion(request.document))


class ConclusionAnswerer:
    """Answers with the conclusion; reads yes, no or maybe from its polarity; cites what it rests on."""

    name = "extractive-conclusion-answer"
    prompt_version = "rules-1"

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
        """The JSON of an `Answer`, or the reason why there is none, for each request, in order."""
        from mkailin_resources.models.extractive.answers import answer_from_conclusion

        return _results(
            requests,
            lambda request: answer_from_conclusion(request.document, request.question).model_dump_json(),
        )


def _results(
    requests: Iterable[GenerationRequest], write: Callable[[GenerationRequest], str]
) -> Iterator[GenerationResult]:
    from mkailin_resources.models.extractive.clauses import NotAClaim

    for request in requests:
        try:
            yield GenerationResult(request.key, text=write(request))
        except NotAClaim as reason:
            yield GenerationResult(request.key, failure=str(reason))
