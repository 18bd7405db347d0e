"""What models decide on the items of a benchmark: yes, no or maybe.

Two protocols, as in PubMedQA: `reasoning_required` shows the abstract without its conclusion, `question_only`
does not. No model sees the long answer, which is the conclusion.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from mkailin_assets.corpus.chat import CONTEXT, DECIDE, QUESTION
from mkailin_assets.corpus.tables import DECISIONS
from mkailin_assets.evaluation.pubmedqa import PubMedQAItem
from mkailin_assets.trainer import one_thread
from mkailin_assets.training.encoding import Message, QuestionTooLong, encode_prompt
from mkailin_resources.generation import Ask
from mkailin_resources.models.interface import Answer, Document, GenerationRequest, Section, TextGenerator

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Protocol = Literal["reasoning_required", "question_only"]
PROTOCOLS: tuple[Protocol, ...] = ("reasoning_required", "question_only")
NLM_CATEGORIES = ("BACKGROUND", "OBJECTIVE", "METHODS", "RESULTS", "CONCLUSIONS")
_BATCH = 16


@dataclass(frozen=True)
class Predictions:
    """What one model decided under one protocol, in the order of the items; PMID to cause where it failed."""

    model: str
    protocol: Protocol
    decisions: list[str]
    failures: dict[int, str]


def predict_majority(items: Sequence[PubMedQAItem], protocol: Protocol) -> Predictions:
    """The most frequent decision of the benchmark itself, for every item: PubMedQA's own lower bound."""
    counted = Counter(str(item.decision) for item in items)
    return Predictions("majority", protocol, [counted.most_common(1)[0][0]] * len(items), {})


def predict_with_generator(
    generator: TextGenerator, items: Sequence[PubMedQAItem], protocol: Protocol, ask: Ask
) -> Predictions:
    """What a text generator answers; a failure, or an answer without a decision, counts as maybe."""
    requests = [_request(item, protocol) for item in items]
    replies = ask(generator, requests, lambda _, text: _no_decision(text))
    decisions: list[str] = []
    failures = {}
    for item, request in zip(items, requests, strict=True):
        reply = replies[request.key]
        decision = Answer.model_validate_json(reply.text).decision if reply.text is not None else None
        decisions.append(decision or "maybe")
        if reply.failure is not None:
            failures[item.pmid] = reply.failure
    return Predictions(generator.name, protocol, decisions, failures)


def predict_with_model(
    name: str,
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerFast",
    items: Sequence[PubMedQAItem],
    protocol: Protocol,
) -> Predictions:
    """The decision that a causal language model would most likely begin its answer with.

    Log-likelihood of each decision after the prompt it was trained on, divided by the decision's tokens.
    A context too long for the model loses its end; a question too long counts as maybe and as a failure.
    """
    import torch

    decisions = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in DECISIONS]
    limit = model.config.max_position_embeddings - max(len(tokens) for tokens in decisions)
    prompts: dict[int, list[int]] = {}
    failures: dict[int, str] = {}
    for index, item in enumerate(items):
        try:
            prompts[index] = encode_prompt(tokenizer, *chat(item, protocol), limit)
        except QuestionTooLong as error:
            failures[item.pmid] = str(error)
    # Prompts of like length share a batch, so that little of it is padding.
    by_length = sorted(prompts, key=lambda index: len(prompts[index]))
    chosen = ["maybe"] * len(items)
    with torch.inference_mode(), one_thread():
        for start in range(0, len(by_length), _BATCH):
            batch = by_length[start : start + _BATCH]
            scores = decision_scores(model, [prompts[index] for index in batch], decisions)
            for index, best in zip(batch, scores.argmax(dim=1).tolist(), strict=True):
                chosen[index] = DECISIONS[best]
    return Predictions(name, protocol, chosen, failures)


def chat(item: PubMedQAItem, protocol: Protocol) -> tuple[list[Message], str]:
    """The messages that ask for a decision, as `training_corpus` words them, and the context among them."""
    context = " ".join(item.contexts) if protocol == "reasoning_required" else ""
    shown = CONTEXT.format(context) if context else ""
    return [{"role": "user", "content": shown + QUESTION.format(item.question) + DECIDE}], context


def decision_scores(
    model: "PreTrainedModel | PeftModel", prompts: Sequence[list[int]], decisions: Sequence[list[int]]
) -> "torch.Tensor":
    """Mean log-likelihood in nats a token of each decision after each prompt, [prompts, decisions].

    Each prompt is read once; a decision of several tokens goes on from the keys and values it left.
    """
    import torch

    length = max(len(prompt) for prompt in prompts)
    tokens = torch.tensor([[0] * (length - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]).to(tokens)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    several = any(len(decision) > 1 for decision in decisions)
    read = model(
        input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=several, logits_to_keep=1
    )
    first = read.logits[:, -1].float().log_softmax(dim=-1)
    scores = []
    for decision in decisions:
        likelihood = first[:, decision[0]]
        if len(decision) > 1:
            fed = tokens.new_tensor(decision[:-1]).expand(len(prompts), -1)
            steps = torch.arange(1, len(decision), device=model.device)
            further = model(
                input_ids=fed,
                attention_mask=torch.cat([mask, torch.ones_like(fed)], dim=1),
                position_ids=positions[:, -1:] + steps,
                past_key_values=read.past_key_values,
                use_cache=True,
            )
            read.past_key_values.crop(-steps.numel())
            next_tokens = tokens.new_tensor(decision[1:]).expand(len(prompts), -1).unsqueeze(-1)
            following = further.logits.float().log_softmax(dim=-1).gather(-1, next_tokens)
            likelihood = likelihood + following.sum(dim=(1, 2))
        scores.append(likelihood / len(decision))
    return torch.stack(scores, dim=1)


def _request(item: PubMedQAItem, protocol: Protocol) -> GenerationRequest:
    sections: tuple[Section, ...] = ()
    if protocol == "reasoning_required":
        labels = item.labels or (None,) * len(item.contexts)
        sections = tuple(
            Section(label, label if label in NLM_CATEGORIES else None, text)
            for label, text in zip(labels, item.contexts, strict=True)
        )
    document = Document(title=item.question, sections=sections)
    return GenerationRequest(key=str(item.pmid), task="answer", document=document, question=item.question)


def _no_decision(text: str) -> str | None:
    """Why a text decides nothing; None when it is an answer with a decision."""
    try:
        decision = Answer.model_validate_json(text).decision
    except ValidationError as error:
        return f"not an answer: {error.errors()[0]['msg']}"
    return None if decision else "the answer has no decision"
