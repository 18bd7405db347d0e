"""Tiny language models with random weights, prompts for them, and a real vLLM server over them."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from mkailin_resources.models.language_model import Message, Prompt, Sampling

if TYPE_CHECKING:
    import polars as pl

REPOSITORY = Path(__file__).parents[1]
_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|pad|>",
)
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] | trim }}<|eot_id|>"
    "{% endgeneration %}{% else %}{{ message['content'] | trim }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_TEXTS = (
    "Does early physiotherapy shorten the stay in hospital of patients with a fracture of the hip?",
    "We compared two doses of the drug in 214 adults with asthma. Attacks were fewer with the higher dose.",
    "Survival did not differ between the groups (hazard ratio 0.97; 95% confidence interval 0.81 to 1.16).",
    "These findings suggest that screening may lower mortality, but further trials are needed.",
    '{"long_answer":"Yes, it does.","decision":"yes","evidence":["S1","S2"],"question":"Is it so?"}',
)


class Reply(BaseModel):
    """What the prompts below want; short, as a random model ends no text by itself."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1, max_length=40)
    decision: Literal["yes", "no", "maybe"]
    evidence: list[Annotated[str, Field(max_length=8)]] = Field(min_length=1, max_length=3)


def tiny_prompt(
    number: int, temperature: float = 0.0, seed: int = 0, max_tokens: int = 250, top_p: float = 1.0
) -> Prompt:
    """A prompt with the number as key, of one of five lengths, whose reply has to be a `Reply`."""
    asked = f"Patient {number}: was the new drug better than placebo? " * (1 + number % 5)
    return Prompt(
        str(number),
        (Message("system", "Answer in JSON."), Message("user", asked)),
        json.dumps(Reply.model_json_schema()),
        Sampling(max_tokens, temperature=temperature, top_p=top_p, seed=seed),
    )


def make_model(folder: Path, seed: int = 0, hidden: int = 64, positions: int = 4096) -> Path:
    """Write a Llama of random weights with a byte-level BPE tokenizer; the same seed, the same files."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=768, special_tokens=list(_SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(_TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|pad|>",
        additional_special_tokens=list(_SPECIAL),
        model_max_length=positions,
    )
    tokenizer.chat_template = _TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=hidden // 32,
        num_key_value_heads=max(1, hidden // 64),
        head_dim=32,
        max_position_embeddings=positions,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_bert(folder: Path, words: list[str], window: int) -> Path:
    """A randomly initialised BERT that knows these words, reads `window` tokens and gives 16 numbers."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(known))
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(known), max_position_embeddings=window, **size)
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=window).save_pretrained(folder)
    return folder


def make_adapter(model_folder: Path, folder: Path, seed: int = 1) -> Path:
    """Write a LoRA adapter of random weights, strong enough to change what the model writes."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(model_folder)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        adapted = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=targets))
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights, std=0.2)
    adapted.save_pretrained(folder)
    return folder


_DRUGS = ("amarin", "belotan", "cordex", "dromil", "elsuvar", "fenolin", "gastrel", "hydrovit")
_DISEASES = ("migraine", "asthma", "gout", "anaemia", "psoriasis")


def tiny_documents(number: int, first_pmid: int = 1) -> list[dict[str, object]]:
    """Documents of a drug and a disease each (pmid, title, abstract), and the `question` to ask of them."""
    return [
        {
            "pmid": pmid,
            "title": f"{drug.capitalize()} for {disease}",
            "abstract": [
                {"label": "METHODS", "category": "METHODS", "text": f"We gave {drug} to {pmid} adults."},
                {"label": "RESULTS", "category": "RESULTS", "text": f"With {drug}, {disease} was milder."},
            ],
            "question": f"Does {drug} relieve {disease}?",
        }
        for pmid in range(first_pmid, first_pmid + number)
        for drug, disease in [(_DRUGS[pmid % len(_DRUGS)], _DISEASES[pmid % len(_DISEASES)])]
    ]


def tiny_exemplars(experts: int = 14, titles: int = 6, held_out: int = 4) -> "pl.DataFrame":
    """A QuestionExemplar table; so many of the last rows are held out."""
    import polars as pl

    from mkailin_assets.questions.tables import QuestionExemplar

    documents = tiny_documents(experts + titles)
    rows = [
        document
        | {
            "exemplar_id": f"exemplar-{place:03}",
            "source": "bioasq" if place < experts else "title",
            "pubmed_file": "pubmed26n0001",
            "split": "held_out" if place >= len(documents) - held_out else "train",
            "reason": None,
        }
        for place, document in enumerate(documents)
    ]
    return QuestionExemplar.validate(pl.DataFrame(rows, schema=QuestionExemplar.create_empty().schema))


def vllm_python() -> Path | None:
    """The Python of the environment that `make vllm-env` makes, or that MKAILIN_VLLM_PYTHON names."""
    named = os.environ.get("MKAILIN_VLLM_PYTHON")
    if named:
        return Path(named)
    environment = REPOSITORY / ".venv-vllm"
    return environment / "bin" / "python" if any(environment.glob(".installed-*")) else None


def vllm_missing() -> str:
    """Why tests of vLLM are skipped, for the person who reads the report."""
    return (
        "vLLM WAS NOT TESTED: there is no finished .venv-vllm (make vllm-env makes it, and says "
        "where it cannot), and MKAILIN_VLLM_PYTHON names no Python either"
    )


def vllm_environment() -> dict[str, str]:
    """Environment of a process of vLLM on a CPU: no hub, no statistics sent, this repository on its path."""
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
    }


@dataclass
class VllmServer:
    """A running vLLM server of the OpenAI protocol; `url` ends in /v1, `model` is its name for the base."""

    url: str
    model: str
    log: Path
    _command: list[str]
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def start(self) -> None:
        """Start it and wait until it answers, at most three minutes."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=vllm_environment() | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"},
                cwd=self.log.parent,
                start_new_session=True,
            )
        deadline = time.monotonic() + 180
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"vLLM did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.2)

    def kill(self) -> None:
        """End all its processes with signal 9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and end what is left of it."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Start it again at the same address."""
        self.kill()
        self.start()

    def _end(self, first: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # Its session holds the processes of its engine too, which outlive a killed server.
        for number in (first, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                continue
        process.wait(10)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url.removesuffix("/v1") + "/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


@contextmanager
def vllm_server(
    model_folder: Path, tmp_path: Path, adapters: Mapping[str, Path] | None = None
) -> Iterator[VllmServer]:
    """Serve a model as `tiny`, and adapters under their names, on 127.0.0.1 while the block runs."""
    python = vllm_python()
    if python is None:
        raise RuntimeError(vllm_missing())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model_folder), "--served-model-name", "tiny"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--max-num-seqs", "64", "--kv-cache-memory-bytes", str(256 << 20)]
    command += ["--no-enable-chunked-prefill"]  # vLLM 0.32 on a CPU dies of it where a request has a seed
    command += ["--structured-outputs-config", '{"backend": "guidance", "disable_any_whitespace": true}']
    if adapters:
        command += ["--enable-lora", "--max-lora-rank", "8", "--max-loras", str(len(adapters))]
        command += ["--lora-modules", *(f"{name}={folder}" for name, folder in adapters.items())]
    server = VllmServer(f"http://127.0.0.1:{port}/v1", "tiny", tmp_path / "vllm-server.log", command)
    try:
        server.start()
        yield server
    finally:
        server.stop()
