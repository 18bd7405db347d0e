"""A language model run by transformers in this process: on a CPU, or on a GPU without vLLM."""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any

from mkailin_resources.models import model_files
from mkailin_resources.models.interface import GenerationResult, ModelUnavailable
from mkailin_resources.models.language_model import Prompt
from mkailin_resources.models.model_name import ModelName

if TYPE_CHECKING:
    import torch
    from llguidance import LLMatcher
    from peft import PeftModel

_NEEDED = ("torch", "transformers", "peft", "llguidance")
_BATCHES_IN_WINDOW = 8


@dataclass(frozen=True)
class TransformersModel:
    """A `LanguageModel` in this process, `batch_size` prompts at once, for one thread.

    Loaded when the first prompt comes: weights from safetensors alone, no code of the model's; bfloat16 on a
    GPU, float32 on a CPU. Models over one base share its weights; one base is held at a time.

    Replies are held to the JSON Schema of their prompt token by token. A draw depends on the seed and the
    logits of its own prompt; beside others in a batch, logits differ by rounding, which can tip a draw.
    """

    model: ModelName
    batch_size: int = 8

    @property
    def name(self) -> str:
        """The model as it is asked for, without the place of a folder."""
        return self.model.shown

    @property
    def version(self) -> str:
        """The model as it is asked for, and whether the files of a folder changed."""
        return self.model.version()

    @property
    def identity(self) -> tuple[str, ...]:
        """Name, revision and hash of the adapter; `ModelUnavailable` where they cannot be found out."""
        return model_files.identity(self.model)

    def check(self) -> None:
        """Raise `ModelUnavailable` where a package, folder or adapter is missing; downloads nothing."""
        missing = [package for package in _NEEDED if find_spec(package) is None]
        if missing:
            raise ModelUnavailable(
                f"running {self.model} in this process needs {', '.join(missing)}: "
                "pip install 'mkailin[train]', or set MKAILIN_ENDPOINT to a server that runs it"
            )
        model_files.check_files(self.model)

    def complete(self, prompts: Iterable[Prompt]) -> Iterator[GenerationResult]:
        """One result for each prompt, a batch after the other; see `LanguageModel`.

        Prompts are taken eight batches at a time, and those of like length share a batch. Raises
        `ModelUnavailable` where the model cannot be loaded or runs out of memory.
        """
        prompts = iter(prompts)
        while window := list(islice(prompts, self.batch_size * _BATCHES_IN_WINDOW)):
            engine = _engine(self.model)
            rows = []
            for prompt in window:
                row = engine.row(prompt)
                if row.failure:
                    yield row.result()
                else:
                    rows.append(row)
            rows.sort(key=lambda row: len(row.tokens))
            for start in range(0, len(rows), self.batch_size):
                yield from engine.write(rows[start : start + self.batch_size], self.model)


class _Row:
    """A prompt and what has been written of its reply; `failure` once there is a reason for none."""

    def __init__(self, engine: "_Engine", prompt: Prompt) -> None:
        import torch

        self._engine, self._prompt = engine, prompt
        self.tokens = engine.conversations.tokens(prompt.messages)
        self.sampling = prompt.sampling
        self.written: list[int] = []
        self.done = False
        self._complete = False
        self.matcher = engine.matcher(prompt.json_schema)
        self.chance = torch.Generator(engine.device).manual_seed(self.sampling.seed)
        self.failure = model_files.too_long(len(self.tokens), self.sampling.max_tokens, engine.limit)
        self._note_matcher()

    def take(self, token: int) -> None:
        """Add a token, unless the reply is done."""
        if self.done:
            return
        self.written.append(token)
        if token in self._engine.ends:
            self.done = self._complete = True
            return
        self.matcher.consume_token(token)
        self._note_matcher()
        # A finished object is done without the model's leave: what could follow is an end token alone.
        self._complete = self.matcher.is_accepting()
        self.done |= self.matcher.is_stopped() or len(self.written) == self.sampling.max_tokens

    def fill_mask(self, masks: Any, place: int) -> None:
        """Set the bits of the tokens that may come next, in row `place` of the masks."""
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self.matcher, masks, place)
        self._note_matcher()

    def draw(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Scores, of shape (vocabulary,), whose greatest is a draw (the Gumbel-max trick)."""
        import torch

        scores = logits / self.sampling.temperature
        if self.sampling.top_p < 1:
            ordered, places = scores.sort(descending=True)
            probabilities = ordered.softmax(-1)
            beyond = probabilities.cumsum(-1) - probabilities >= self.sampling.top_p
            scores[places[beyond]] = -torch.inf
        noise = torch.empty_like(scores).exponential_(generator=self.chance)
        return scores - noise.clamp_min(torch.finfo(noise.dtype).tiny).log()

    def result(self) -> GenerationResult:
        """What became of the prompt."""
        text = None if self.failure else self._engine.text(self.written)
        return GenerationResult(
            self._prompt.key,
            text=text,
            failure=self.failure,
            truncated=text is not None and not self._complete,
            tokens_in=len(self.tokens),
            tokens_out=len(self.written),
        )

    def _note_matcher(self) -> None:
        if self.matcher.is_error():
            self.failure = self.failure or f"the JSON Schema cannot be followed: {self.matcher.get_error()}"
            self.done = True


@dataclass(frozen=True)
class _Batch:
    """What generation asks at each step: which token comes next in each row, and which rows are done."""

    rows: Sequence[_Row]
    words: int

    def choose(self, tokens: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """Scores of shape (rows, vocabulary), from logits, whose greatest in each row comes next."""
        import numpy as np
        import torch

        masks = np.full((len(self.rows), self.words), -1, np.int32)
        for place, row in enumerate(self.rows):
            if not row.done:
                row.fill_mask(masks, place)
        allowed = np.unpackbits(masks.view(np.uint8), axis=1, count=scores.shape[1], bitorder="little")
        forbidden = torch.from_numpy(allowed == 0).to(scores.device)
        scores = scores.masked_fill(forbidden, -torch.inf)
        for place, row in enumerate(self.rows):
            if row.sampling.temperature > 0 and not row.done:
                scores[place] = row.draw(scores[place])
        return scores

    def stop(self, tokens: "torch.Tensor", scores: object, **_: object) -> "torch.Tensor":
        """Take the tokens just chosen, the last column; for each row whether it is done."""
        import torch

        for row, token in zip(self.rows, tokens[:, -1].tolist(), strict=True):
            row.take(token)
        return torch.tensor([row.done for row in self.rows], device=tokens.device)


class _Engine:
    """A base model with its tokenizer, and the adapters that have been asked for over it."""

    def __init__(self, model: ModelName) -> None:
        import torch
        from llguidance.hf import from_tokenizer
        from transformers import (
            AutoModelForCausalLM,
            AutoTokenizer,
            GenerationConfig,
            PreTrainedTokenizerFast,
        )

        where: dict[str, Any] = {"revision": model_files.commit(model), "trust_remote_code": False}
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(model.name, **where)
        if not isinstance(self.tokenizer, PreTrainedTokenizerFast):
            raise ValueError("it has no fast tokenizer (tokenizer.json), which guided JSON needs")
        base: Any = AutoModelForCausalLM.from_pretrained(
            model.name,
            dtype=torch.bfloat16 if self.device == "cuda" else torch.float32,
            use_safetensors=True,
            **where,
        )
        self._base = base.to(self.device).eval()
        self._adapted: PeftModel | None = None
        config = self._base.config.get_text_config()
        self.limit: int | None = getattr(config, "max_position_embeddings", None)
        ends = self._base.generation_config.eos_token_id
        listed = ends if isinstance(ends, list) else [ends]
        self.ends = {token for token in (*listed, self.tokenizer.eos_token_id) if token is not None}
        # What the model's makers set for sampling (repetition penalty and the like) is none of ours.
        self._base.generation_config = GenerationConfig()
        self.conversations = model_files.Conversations(self.tokenizer)
        vocabulary = max(config.vocab_size, len(self.tokenizer))
        self._words = -(-vocabulary // 32)
        self._guide = from_tokenizer(self.tokenizer, vocabulary, sorted(self.ends))
        self._matchers: dict[str, LLMatcher] = {}

    def text(self, tokens: Sequence[int]) -> str:
        """What the tokens say, without the special ones."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def row(self, prompt: Prompt) -> _Row:
        """A prompt, ready to be written; its failure is set if it cannot be."""
        return _Row(self, prompt)

    def matcher(self, json_schema: str) -> "LLMatcher":
        """A new matcher for a schema; objects are written without spaces, as vLLM does it."""
        from llguidance import LLMatcher

        if json_schema not in self._matchers:
            # Else a model may write spaces without end between the parts of an object.
            grammar = LLMatcher.grammar_from_json_schema(
                json_schema, overrides={"whitespace_flexible": False}
            )
            self._matchers[json_schema] = LLMatcher(self._guide, grammar, log_level=0)
        return self._matchers[json_schema].deep_copy()

    def write(self, rows: Sequence[_Row], model: ModelName) -> Iterator[GenerationResult]:
        """The results of a batch; `model` names the adapter."""
        import torch

        longest = max(len(row.tokens) for row in rows)
        batch = _Batch(rows, self._words)
        # What stands in the padding is never looked at.
        padded = torch.tensor([[0] * (longest - len(row.tokens)) + row.tokens for row in rows])
        seen = torch.tensor([[0] * (longest - len(row.tokens)) + [1] * len(row.tokens) for row in rows])
        try:
            with torch.inference_mode(), self._using(model) as network:
                network.generate(
                    input_ids=padded.to(self.device),
                    attention_mask=seen.to(self.device),
                    max_new_tokens=max(row.sampling.max_tokens for row in rows),
                    do_sample=False,
                    logits_processor=[batch.choose],
                    stopping_criteria=[batch.stop],
                )
        except torch.OutOfMemoryError as error:
            raise ModelUnavailable(
                f"{model} ran out of GPU memory with {len(rows)} prompts of up to {longest} tokens; "
                "use a smaller model, set MKAILIN_BATCH_SIZE to fewer prompts at once, or use vLLM"
            ) from error
        for row in rows:
            yield row.result()

    @contextmanager
    def _using(self, model: ModelName) -> Iterator[Any]:
        """The network with the adapter of the model, loaded if it is new, or with none."""
        if not model.adapter:
            if self._adapted is None:
                yield self._base
            else:
                with self._adapted.disable_adapter():
                    yield self._adapted
            return
        self._load_adapter(model)
        assert self._adapted is not None
        self._adapted.set_adapter(model.adapter_hash())
        yield self._adapted

    def _load_adapter(self, model: ModelName) -> None:
        from pathlib import Path

        from peft import PeftModel

        folder, name = str(Path(model.adapter).expanduser()), model.adapter_hash()
        try:
            if self._adapted is None:
                self._adapted = PeftModel.from_pretrained(self._base, folder, adapter_name=name)
            elif name not in self._adapted.peft_config:
                self._adapted.load_adapter(folder, adapter_name=name)
        except (OSError, ValueError, RuntimeError) as error:
            raise model_files.unavailable(model, error) from error
        self._adapted.eval()


# The one base that is loaded, by name and commit.
_loaded: dict[tuple[str, str], _Engine] = {}


def release() -> None:
    """Free the memory of the base that is loaded, if one is."""
    import torch

    if _loaded:
        _loaded.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _engine(model: ModelName) -> _Engine:
    from safetensors import SafetensorError

    base = model_files.identity(model)[:2]
    if base not in _loaded:
        release()  # before the next is loaded: one model fits a GPU, not two
        try:
            _loaded[base] = _Engine(model)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise model_files.unavailable(model, error) from error
    return _loaded[base]
