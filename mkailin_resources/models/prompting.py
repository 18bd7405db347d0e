"""From a request to what a language model reads, and from its reply to what it says.

Whatever stands in a citation is data: it is shown between lines that it cannot forge, a section or a sentence
a line, without invisible characters, and without the special tokens of chat formats. Nothing but white space
is put in and nothing but white space and invisible characters is taken out, so a sentence shown is one of the
source for whoever compares them without these.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from mkailin_resources.models.interface import (
    Answer,
    Decision,
    Document,
    Entailment,
    EntailmentLabel,
    GenerationRequest,
    Task,
    Verdict,
)
from mkailin_resources.models.language_model import Message

_FOLDER = Path(__file__).parent / "prompts"
_HEADER = re.compile(r"\{#-?\s*version:\s*(\d+)\s*-?#\}")
# What the user block of each task must name: a prompt that forgets one would ask about nothing.
_VARIABLES: dict[Task, set[str]] = {
    "question": {"code", "document"},
    "evaluation": {"code", "document", "question", "rival"},
    "answer": {"code", "document", "passages", "question"},
    "entailment": {"code", "document", "passages", "question", "decision", "answer"},
}
# These show contexts too, and number each sentence; a judge of answers reads what the answerer read.
_FROM_SENTENCES: tuple[Task, ...] = ("answer", "entailment")

# Control characters, lone surrogates, and Unicode's Default_Ignorable_Code_Point: bidirectional overrides,
# zero width, variation selectors, tags and fillers, all of which can carry text that nobody sees.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
# Where a space goes in, that no tokenizer reads a special token: <|im_start|>, DeepSeek's full-width bars,
# <s>, </think>, <start_of_turn>, <<SYS>>, [INST], [TOOL_CALLS], >>QUESTION<<. HTML that PubMed prints stays.
_SPECIAL = re.compile(
    r"<(?=[|\uff5c])|\|(?=>)"
    r"|<(?!/?(?:sup|sub|i|b|u|em|strong|br|p)/?>)(?=/?\w[\w:.-]{0,63}>)"
    r"|\[(?=/?(?:INST|SYS|THINK|IMG|PREFIX|SUFFIX|MIDDLE|ARGS|IMAGE|AUDIO|BOS|EOS|PAD|CLS|SEP|MASK|UNK|gMASK|sMASK"
    r"|[A-Z]+(?:_[A-Z]+)+)\])"
    r"|>>(?=[A-Z_]+<<)"
)
_CODE_BYTES = 6
_CUT = " [...]"
_NOTHING = "(none)"
_LABEL_CHARACTERS = 80
# What a line takes besides its text: a number of up to four digits in brackets, a space, the line's end.
_LINE = 8

_THOUGHT = "</think>"
_FENCE = "```"
_DIGITS = re.compile(r"\s*\[?(\d{1,6})\]?\s*", re.ASCII)


class PromptError(ValueError):
    """A prompt file is not what it must be; the message names it and says what is wrong."""


class QuestionReply(BaseModel):
    """What a questioner writes. One question mark, at the end; no quotation mark, which JSON would escape."""

    model_config = ConfigDict(extra="forbid")

    # xgrammar 0.2.8 wants the whole text matched, fails on {1,400}, and reads no maxLength beside a pattern;
    # there the limit of tokens is what ends a question.
    question: str = Field(max_length=400, pattern=r'^[^"\\?\x00-\x1f]+\?$')


class EvaluationReply(BaseModel):
    """What an evaluator writes: the reason first, so that the choice follows from it."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=400)
    preferred: Literal["first", "second"]


class AnswerReply(BaseModel):
    """What an answerer writes: the numbers of sentences first, so that the rest follows from them."""

    model_config = ConfigDict(extra="forbid")

    evidence: list[int] = Field(min_length=1, max_length=8)
    long_answer: str = Field(min_length=1, max_length=1500)
    decision: Decision


class EntailmentReply(BaseModel):
    """What a judge of answers writes: the reason first, so that the label follows from it."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=400)
    label: EntailmentLabel


_REPLIES: dict[Task, type[BaseModel]] = {
    "question": QuestionReply,
    "evaluation": EvaluationReply,
    "answer": AnswerReply,
    "entailment": EntailmentReply,
}


@dataclass(frozen=True)
class Rendered:
    """A request as a model reads it.

    `json_schema` is the schema of the reply as compact JSON; `sentences` are those numbered from 1 in the
    messages, of an answer's or entailment's request only.
    """

    messages: tuple[Message, ...]
    json_schema: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class PromptFile:
    """A prompt: a Jinja2 file with a version, a system message that never varies, and a user message."""

    name: str
    version: str
    task: Task
    system: str
    _user: Callable[..., Iterator[str]] = field(repr=False, compare=False)
    _context: Callable[..., Any] = field(repr=False, compare=False)

    @classmethod
    @cache
    def load(cls, name: str) -> "PromptFile":
        """The prompt of that name in the folder of prompts; raises `PromptError`."""
        path = _FOLDER / f"{name}.jinja"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in _FOLDER.glob("*.jinja")))
            raise PromptError(f"there is no prompt named {name!r}; there are {known}")
        return cls.parse(name, path.read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, name: str, text: str) -> "PromptFile":
        """A prompt from its text; raises `PromptError`.

        The version is name, number and a hash of the text: a prompt edited without a new number is another.
        """
        # Jinja2 takes a tenth of a second to import; profiles without language models need not wait for it.
        from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
        from jinja2.meta import find_undeclared_variables
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
        )
        header = _HEADER.match(text)
        if not header:
            raise PromptError(f"prompt {name}: it must begin with its version, as in {{# version: 1 #}}")
        task = next((task for task in _VARIABLES if name.split("_", maxsplit=1)[0] == task), None)
        if task is None:
            raise PromptError(f"prompt {name}: its name must begin with one of {', '.join(_VARIABLES)}")
        try:
            named = find_undeclared_variables(environment.parse(text))
            template = environment.from_string(text)
        except TemplateSyntaxError as error:
            raise PromptError(f"prompt {name}, line {error.lineno}: {error.message}") from None
        for block in ("system", "user"):
            if block not in template.blocks:
                raise PromptError(f"prompt {name}: it has no block named {block!r}")
        if named != _VARIABLES[task]:
            raise PromptError(
                f"prompt {name}: it must name {', '.join(sorted(_VARIABLES[task]))}; "
                f"it names {', '.join(sorted(named)) or 'nothing'}"
            )
        try:
            system = "".join(template.blocks["system"](template.new_context({}))).strip()
        except TemplateError as error:
            raise PromptError(f"prompt {name}: its system block must be the same for all: {error}") from None
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        version = f"{name}-{header[1]}-{digest}"
        return cls(name, version, task, system, template.blocks["user"], template.new_context)

    def render(self, request: GenerationRequest, max_characters: int) -> Rendered:
        """What a model reads of a request; the same request gives the same.

        Source and contexts take at most `max_characters` together, their numbers and labels included; the
        source at least half of them if it needs that many. What does not fit is marked by "[...]": of the
        source the part before the conclusion, of each context as much from its end. Questions, and an answer
        to be checked, take at most `max_characters` each. Raises `ValueError` for a request of another task
        or without its questions or answer.
        """
        if request.task != self.task:
            raise ValueError(f"prompt {self.name} asks for another task than {request.task!r}")
        shown: dict[str, str] = {}
        sentences: list[str] = []
        if self.task in _FROM_SENTENCES:
            shown["document"], shown["passages"] = _numbered(request, max_characters, sentences)
        else:
            shown["document"] = _plain(request.document, max_characters)
        for name in ("question", "rival", "answer"):
            if name in _VARIABLES[self.task]:
                asked = getattr(request, name)
                if not asked:
                    raise ValueError(f"prompt {self.name}: the request has no {name}")
                shown[name] = _at_most(_unspecial(visible(asked)), max_characters)
        if self.task == "entailment":
            shown["decision"] = request.decision or _NOTHING
        schema = _schema(self.task, len(sentences), is_cut=shown.get("answer", "").endswith(_CUT))
        shown["code"] = _code(shown)
        user = "".join(self._user(self._context(shown, shared=True))).strip()
        messages = (Message("system", self.system), Message("user", user))
        return Rendered(messages, schema, tuple(sentences))


def read_reply(task: Task, rendered: Rendered, text: str) -> str:
    """What a reply says: the question, or the JSON of a `Verdict`, `Entailment` or `Answer`.

    Numbers of sentences become the sentences, each once; sentences written out stay. A reply may come after
    thoughts or inside a code fence. One that is no such thing, rests on a sentence that was not shown, or
    gives a label that was not to be had, comes back as it is.
    """
    reply = _object(text)
    if reply is None:
        return text
    try:
        if task == "question":
            return _Question.model_validate(reply).question
        if task == "evaluation":
            return Verdict.model_validate(reply).model_dump_json()
        if task == "entailment":
            entailment = Entailment.model_validate(reply)
            labels = json.loads(rendered.json_schema)["properties"]["label"]["enum"]
            return entailment.model_dump_json() if entailment.label in labels else text
        evidence = _evidence(reply.get("evidence"), rendered.sentences)
        answer = Answer.model_validate(reply | {"evidence": evidence})
    except ValidationError:
        return text
    return text if answer.decision is None else answer.model_dump_json()


def visible(text: str) -> str:
    """A text as people see it: one line, single spaces, composed (Unicode NFC), nothing invisible."""
    text = " ".join(text.split())
    if text.isascii() and text.isprintable():
        return text
    text = _INVISIBLE.sub("", text)
    return " ".join(unicodedata.normalize("NFC", text).split())


class _Question(BaseModel):
    """A question as it was written, whatever its form: who wanted it says what is wrong with it."""

    model_config = ConfigDict(extra="forbid")

    question: str


class _Part(NamedTuple):
    """A sentence under the label of its section, if it has one; `extra` is what it takes besides its text."""

    label: str
    text: str
    extra: int
    concludes: bool = False
    is_cut: bool = False


def _unspecial(text: str) -> str:
    if "<" in text or "[" in text or "|" in text or "\uff5c" in text:
        return _SPECIAL.sub(r"\g<0> ", text)
    return text


def _code(shown: Mapping[str, str]) -> str:
    """What the fence's lines carry: made of the texts, and in none of them."""
    digest = hashlib.blake2b("\0".join(shown.values()).encode(), digest_size=_CODE_BYTES)
    while any(digest.hexdigest() in text for text in shown.values()):
        digest.update(b"again")
    return digest.hexdigest()


def _plain(document: Document, room: int) -> str:
    """Title and sections, a line each."""
    title = _title(document.title, room)
    sections = [
        (_label(section.label), _unspecial(visible(section.text)), section) for section in document.sections
    ]
    lines = [_labelled(label, text) for label, text, _ in sections if text]
    room -= len(title) + _LINE
    if sum(len(line) + _LINE for line in lines) > room:
        lines = _lines(_fitted(_source(document, extra=1), room))
    return "\n".join([f"TITLE: {title}", *lines] if title else lines)


def _numbered(request: GenerationRequest, room: int, sentences: list[str]) -> tuple[str, str]:
    """Source and contexts, a sentence a line under running numbers; the sentences go into `sentences`."""
    title = _title(request.document.title, room)
    source = _source(request.document, extra=_LINE)
    contexts = [_context(context, room) for context in request.contexts]
    costs = [len(name) + 2 * _LINE + _cost(parts) for name, parts in contexts]
    used = len(title) + _LINE
    source = _fitted(source, max(room // 2, room - sum(costs)) - used)
    shares = _even_shares(costs, room - used - _cost(source))
    lines = [f"TITLE: {title}"] if title else []
    lines += _numbered_lines(source, sentences)
    passages: list[str] = []
    for place, ((name, parts), share) in enumerate(zip(contexts, shares, strict=True), start=1):
        shown = _beginning(parts, share - len(name) - 2 * _LINE)
        if shown:
            passages.append(f"PASSAGE {place}: {name}".rstrip())
            passages += _numbered_lines(shown, sentences)
    return "\n".join(lines), "\n".join(passages) or _NOTHING


def _source(document: Document, extra: int) -> list[_Part]:
    from mkailin_resources.models.extractive.sentences import is_concluding

    parts = []
    for section in document.sections:
        label, concludes = _label(section.label), is_concluding(section)
        parts += [_Part(label, sentence, extra, concludes) for sentence in _sentences(section.text)]
    return parts


def _context(context: str, room: int) -> tuple[str, list[_Part]]:
    """Title and sentences of a context, which is its title, a line's end and its text."""
    title, end, text = context.partition("\n")
    title, text = (title, text) if end else ("", title)
    return _title(title, room // 2), [_Part("", sentence, _LINE) for sentence in _sentences(text)]


# A paper is a context of many questions, and the source of one.
@lru_cache(maxsize=8_192)
def _sentences(text: str) -> tuple[str, ...]:
    from mkailin_resources.models.extractive.sentences import split_sentences

    # Special tokens are broken last: splitting takes white space out.
    return tuple(_unspecial(sentence) for sentence in split_sentences(visible(text)))


def _title(title: str | None, room: int) -> str:
    return _head(_unspecial(visible(title or "")), room // 4 - _LINE)


@lru_cache(maxsize=1_024)
def _label(label: str | None) -> str:
    return _head(_unspecial(visible(label or "")), _LABEL_CHARACTERS).rstrip(":. ")


def _labelled(label: str, text: str) -> str:
    return f"{label}: {text}" if label else text


def _cost(parts: Sequence[_Part], before: _Part | None = None) -> int:
    """Characters that parts take when they are shown after another, labels where they change."""
    cost = 0
    for part in parts:
        cost += len(part.text) + part.extra + (len(part.label) + _LINE if _is_new(part, before) else 0)
        before = part
    return cost


def _is_new(part: _Part, before: _Part | None) -> bool:
    """Whether a label has to be printed above a part."""
    return bool(part.label) and (before is None or part.label != before.label)


def _fitted(parts: list[_Part], room: int) -> list[_Part]:
    """As much of a source as there is room for: at least half of it for the conclusion, if that is so long.

    Where no section is called the conclusion, it is what stands in the last third of the room.
    """
    if _cost(parts) <= room:
        return parts
    if not any(part.concludes for part in parts):
        place, tail = len(parts) - 1, _cost(parts[-1:])
        while place > 1 and (tail := tail + _cost([parts[place - 1]])) <= room // 3:
            place -= 1
        parts = [*parts[:place], *(part._replace(concludes=True) for part in parts[place:])]
    before = [part for part in parts if not part.concludes]
    concluding = [part for part in parts if part.concludes]
    end = _beginning(concluding, max(room // 2, room - _cost(before)))
    return [*_beginning(before, room - _cost(end)), *end]


def _beginning(parts: list[_Part], room: int) -> list[_Part]:
    """The parts that fit, from the first; the first is cut at a word if even that does not fit."""
    if not parts or _cost(parts) <= room:
        return parts
    kept: list[_Part] = []
    room -= len(_CUT)
    for part in parts:
        room -= _cost([part], kept[-1] if kept else None)
        if room < 0:
            break
        kept.append(part)
    if kept:
        return [*kept[:-1], kept[-1]._replace(is_cut=True)]
    text = _head(parts[0].text, room + len(parts[0].text))
    return [parts[0]._replace(text=text, is_cut=True)] if text else []


def _head(text: str, room: int) -> str:
    """The beginning of a text that is no longer than `room`, up to a word's end if one is near."""
    if len(text) <= room:
        return text
    room = max(room, 0)
    space = text.rfind(" ", 0, room + 1)
    return text[: space if space > room // 2 else room].rstrip()


def _at_most(text: str, room: int) -> str:
    """A text, or as much of its beginning as there is room for, marked as cut."""
    return text if len(text) <= room else _head(text, room - len(_CUT)) + _CUT


def _even_shares(costs: Sequence[int], room: int) -> list[int]:
    """Room for each: all it costs where that is less than an even share, whose rest goes to the others."""
    shares = [0] * len(costs)
    left = len(costs)
    for place in sorted(range(len(costs)), key=costs.__getitem__):
        shares[place] = min(costs[place], max(room, 0) // left)
        room -= shares[place]
        left -= 1
    return shares


def _lines(parts: Sequence[_Part]) -> list[str]:
    """Sentences of one section on one line, after its label."""
    lines: list[str] = []
    label: str | None = None
    for part in parts:
        text = part.text + _CUT if part.is_cut else part.text
        if part.label == label:
            lines[-1] += f" {text}"
        else:
            lines.append(_labelled(part.label, text))
        label = part.label
    return lines


def _numbered_lines(parts: Sequence[_Part], sentences: list[str]) -> list[str]:
    """Each sentence on its line after its number; a label on a line before its first sentence."""
    lines: list[str] = []
    for part, before in zip(parts, [None, *parts], strict=False):
        if _is_new(part, before):
            lines.append(f"{part.label}:")
        sentences.append(part.text)
        lines.append(f"[{len(sentences)}] {part.text}{_CUT if part.is_cut else ''}")
    return lines


@cache
def _schema(task: Task, sentences: int, is_cut: bool) -> str:
    """The schema of a reply as JSON, its properties in the order in which they are to be written."""
    schema = _REPLIES[task].model_json_schema()
    properties = schema["properties"]
    for described in properties.values():
        described.pop("title", None)
    if task == "answer":
        # Each number of sentences has its schema, so that no other number can be written: one more costs
        # xgrammar 0.05 s, since it shares the rest, and llguidance nothing. With no sentence at all, every
        # answer is refused.
        properties["evidence"]["items"] = {"enum": list(range(1, max(sentences, 1) + 1)), "type": "integer"}
    if task == "entailment" and is_cut:
        # What nobody read cannot be said to follow, whatever a model makes of the beginning.
        properties["label"]["enum"].remove("entailed")
    bare = {
        "type": "object",
        "properties": properties,
        "required": schema["required"],
        "additionalProperties": False,
    }
    return json.dumps(bare, separators=(",", ":"))


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that a reply is, after its thoughts and inside its fence."""
    after = text.rpartition(_THOUGHT)[2].strip()
    fenced = after.removeprefix(_FENCE).removesuffix(_FENCE).strip().removeprefix("json")
    for candidate in (text, after, fenced):
        try:
            # Unlike json, it refuses half a surrogate pair and bottomless nesting.
            found = from_json(candidate)
        except ValueError:
            continue
        return found if isinstance(found, dict) else None
    return None


def _evidence(cited: Any, sentences: Sequence[str]) -> Any:
    """Sentences in place of their numbers, each once; None where there is one that was not shown."""
    if not isinstance(cited, list):
        return None
    evidence: list[Any] = []
    for entry in cited:
        # A model that writes "[3]" means the number.
        digits = _DIGITS.fullmatch(entry) if isinstance(entry, str) else None
        number = int(digits[1]) if digits else entry
        if isinstance(number, int):
            if isinstance(number, bool) or not 1 <= number <= len(sentences):
                return None
            number = sentences[number - 1]
        evidence.append(number)
    return list(dict.fromkeys(evidence)) if all(isinstance(entry, str) for entry in evidence) else None
