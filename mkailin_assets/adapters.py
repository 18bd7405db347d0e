"""What trainings of language models share: base, adapters, arguments, and the folder that comes of one.

adapter/        LoRA weights, safetensors; over the small random Llama also its embeddings, trained in full
model/          instead of an adapter: a model all of whose weights were trained, and its tokenizer
base/           where the base is a model of the platform's own: that model and its tokenizer
training.json   a `CheckpointRecord`

On a CPU trainings are in single precision. On a GPU the base is in bfloat16, or in 4 bits where bitsandbytes
is installed (QLoRA, arXiv 2305.14314); there two trainings need not give the same weights.
"""

import ctypes
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, Field

from mkailin_assets.trainer import TrainingCourse
from mkailin_assets.training.embedded_llama import SMALL, Shape, build_base
from mkailin_assets.training.tokenizer import train_tokenizer
from mkailin_resources.models import model_files
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.training_checkpoints import sha256

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

BASE, ADAPTER, MODEL = "base", "adapter", "model"
RECORD = "training.json"
WEIGHTS = f"{ADAPTER}/adapter_model.safetensors"
PACKAGES = ("torch", "transformers", "peft", "trl", "tokenizers")
# A head that writes text, or one number for a text (a reward).
Head = Literal["CAUSAL_LM", "SEQ_CLS"]


class UntrainableBase(ValueError):
    """A base model lacks what a training needs."""


class AdapterTuning(BaseModel, extra="forbid"):
    """What the trainings of adapters share of their settings."""

    seed: int = Field(default=20, description="Seed of the adapters, the order and the small Llama")
    max_length: int = Field(default=1024, ge=64, description="Tokens of prompt and reply together")
    epochs: int = Field(default=1, ge=1, description="Passes over what is trained on, up to max_steps")
    max_steps: int = Field(default=2000, ge=1, description="Most optimizer steps: what bounds the time")
    batch_size: int = Field(default=16, ge=1, description="Examples in memory at once")
    accumulation: int = Field(default=4, ge=1, description="Batches an optimizer step")
    learning_rate: float = Field(default=5e-4, gt=0, description="Peak of the cosine schedule")
    warmup_steps: int = Field(
        default=100, ge=0, description="Steps up to the peak, at most a tenth of all steps"
    )
    checkpoint_steps: int = Field(default=100, ge=1, description="Steps between two checkpoints")

    def steps(self, examples: int) -> int:
        """Optimizer steps of a training on so many examples."""
        return min(self.max_steps, self.epochs * math.ceil(examples / (self.batch_size * self.accumulation)))


class NewAdapterTuning(AdapterTuning):
    """The same where a new adapter is put on a base."""

    lora_rank: int = Field(default=8, ge=1, description="Rank of the adapters")
    lora_alpha: int = Field(default=16, ge=1, description="Scale of the adapters: alpha / rank")


class CheckpointRecord(BaseModel):
    """What a checkpoint's `training.json` says, whatever was trained."""

    name: str = Field(description="What it is: domain, evaluator, finetuned ...")
    fingerprint: str = Field(description="Hash of base, data, settings, seed and recipe; names the folder")
    recipe: str = Field(description="Version of the code that trained it")
    base: str = Field(description="Base model; empty: a small Llama of random weights")
    revision: str = Field(description="Commit of a base on the hub, hash of the content of a folder")
    parameters: int
    trained_parameters: int
    course: TrainingCourse
    packages: dict[str, str] = Field(description="Versions that decide the last digits of the weights")
    sha256: dict[str, str] = Field(description="Of each file beside training.json")


class AdapterRecord(CheckpointRecord):
    """The same of an adapter that reads a prompt of ours."""

    prompt: str = Field(description="Version of the prompt it was trained to read")
    max_characters: int = Field(description="Characters of a document that the prompt showed")


Record = TypeVar("Record", bound=CheckpointRecord)


def fingerprint(*made_of: Any) -> str:
    """Hash of what decides a checkpoint, given as what JSON can write; 32 hexadecimal digits."""
    payload = json.dumps(made_of, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(payload.encode(), digest_size=16).hexdigest()


def window(config: "PretrainedConfig", settings: AdapterTuning) -> int:
    """Tokens of a training example: as the settings say, but no more than a base of that config can read."""
    limit: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min(settings.max_length, limit or settings.max_length)


def make_base(texts: Iterable[str], vocabulary: int, max_length: int, seed: int, folder: Path) -> None:
    """Write a small Llama of random weights and a tokenizer learnt from the texts, to `base/` of a folder."""
    write_base(train_tokenizer(texts, vocabulary), SMALL, max_length, seed, folder)


def write_base(
    tokenizer: "PreTrainedTokenizerFast", shape: Shape, max_length: int, seed: int, folder: Path
) -> None:
    """Write a small Llama of random weights for the tokenizer, and that, to `base/` of a folder."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # of each file that is written
    build_base(tokenizer, shape, max_length, seed).save_pretrained(folder / BASE)
    tokenizer.save_pretrained(folder / BASE)


def load_tokenizer(base: ModelName, head: Head = "CAUSAL_LM") -> "PreTrainedTokenizerFast":
    """The tokenizer of a base, its end token for padding where it has no other.

    Raises `UntrainableBase` for one that lacks the end token that a text needs, or both where padding alone
    is needed; `ModelUnavailable` where it cannot be read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if base.adapter:
        raise UntrainableBase(f"{base}: a base is a model without adapter; leave out +{base.adapter}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            base.name, revision=model_files.commit(base), trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise model_files.unavailable(base, error) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UntrainableBase(
            f"{base}: it has no fast tokenizer (tokenizer.json), which guided JSON needs; take another base"
        )
    if tokenizer.eos_token is None and (head == "CAUSAL_LM" or tokenizer.pad_token is None):
        raise UntrainableBase(
            f"{base}: its tokenizer names no end token (eos_token in tokenizer_config.json), so no reply "
            "could end; name one there, or take another base"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def can_hold_in_4_bits() -> bool:
    """Whether there is a GPU here, and bitsandbytes."""
    import torch

    return torch.cuda.is_available() and find_spec("bitsandbytes") is not None


def load_base(  # noqa: PLR0917
    base: ModelName,
    head: Head,
    seed: int,
    in_4_bits: bool | None = None,
    dtype: "torch.dtype | None" = None,
    device_map: str | None = None,
) -> "PreTrainedModel":
    """A base to train, or to put adapters on; a head for rewards is drawn by the seed.

    Unless told otherwise in 4 bits where that can be, else in bfloat16 on a GPU and single precision on a
    CPU; `device_map`: where its layers go, for one that is asked only. Raises `ModelUnavailable`.
    """
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        BitsAndBytesConfig,
        set_seed,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()
    usual = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    options: dict[str, Any] = {"dtype": dtype or usual}
    if can_hold_in_4_bits() if in_4_bits is None else in_4_bits:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_quant_storage=torch.bfloat16,  # FSDP shares out no integers
        )
    kind: Any = AutoModelForCausalLM
    if head == "SEQ_CLS":
        kind, options["num_labels"] = AutoModelForSequenceClassification, 1
    set_seed(seed)
    try:
        return kind.from_pretrained(
            base.name,
            revision=model_files.commit(base),
            trust_remote_code=False,
            use_safetensors=True,
            device_map=device_map,
            **options,
        )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise model_files.unavailable(base, error) from error


def lora(rank: int, alpha: int, head: Head, base_is_random: bool) -> "LoraConfig":
    """Adapters on every linear layer but the head.

    Low-rank updates of random matrices cannot teach a model words: over a random base the embeddings, in and
    out, are trained in full. PEFT adds the head of rewards by itself.
    """
    from peft import LoraConfig

    embeddings = ["embed_tokens", "lm_head"] if head == "CAUSAL_LM" else ["embed_tokens"]
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules="all-linear",
        modules_to_save=embeddings if base_is_random else None,
        task_type=head,
    )


def load_trainable(folder: Path, head: Head, seed: int) -> tuple["PeftModel", "PreTrainedTokenizerFast"]:
    """The model of a checkpoint, whose adapter can be trained further, and its tokenizer."""
    from peft import PeftModel

    base, adapter = base_of(folder), model_of(folder).adapter
    network = PeftModel.from_pretrained(load_base(base, head, seed), adapter, is_trainable=True)
    return network, load_tokenizer(base, head)


def arguments(settings: AdapterTuning, examples: int, held_out: int, checkpoints: Path) -> dict[str, Any]:
    """What the trainings of adapters share of TRL's arguments, by their names there.

    The held-out examples, if there are any, are looked at before, after, and three times between.
    """
    import torch

    steps = settings.steps(examples)
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(checkpoints),
        "max_steps": steps,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": min(settings.warmup_steps, steps // 10),
        "max_length": settings.max_length,
        "logging_steps": max(1, steps // 25),
        # The default replaces a loss that is not a number by a mean that is.
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if held_out else "no",
        "eval_steps": math.ceil(steps / 4),
        "eval_on_start": held_out > 0,
        "prediction_loss_only": True,
        "save_strategy": "steps",
        "save_steps": settings.checkpoint_steps,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "use_cpu": not on_gpu,
        "bf16": on_gpu and torch.cuda.is_bf16_supported(),
        "gradient_checkpointing": on_gpu,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "disable_tqdm": True,
    }


@contextmanager
def labels_alone() -> Iterator[None]:
    """Within it TRL projects the positions with a label onto the vocabulary, and no others.

    TRL 1.16 does so with Triton alone; elsewhere a step takes two or three times as long.
    """
    from trl.trainer import utils

    chosen = utils._use_triton
    utils._use_triton = lambda device: True
    try:
        yield
    finally:
        utils._use_triton = chosen


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within it this process keeps what it frees, for its next tensors of the same size.

    On a CPU glibc gives larger blocks back to the system, which has to clear them for the next step: over a
    third of a step of a small model. Elsewhere it does nothing.
    """
    import torch

    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" and not torch.cuda.is_available() else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    trim_threshold, mmap_max = -1, -4  # as malloc.h numbers them
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(mmap_max, 65536)
        libc.mallopt(trim_threshold, 128 * 1024)
        libc.malloc_trim(0)


def own_trainer(trainer: Any) -> Any:
    """A trainer of TRL that calls nobody, and whose checkpoints hold what is trained, no more."""

    class OwnTrainer(trainer):
        def _send_telemetry(self) -> None:
            """TRL 1.16 reports each training to the Hub unless a variable was set before its import."""

        def create_model_card(self, *arguments: Any, **options: Any) -> None:
            """No card: nobody would read it."""

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            from peft import PeftModel

            assert output_dir is not None
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            if isinstance(model, PeftModel):
                _save_adapter(model, Path(output_dir), state_dict)
            else:
                model.save_pretrained(output_dir, state_dict=state_dict)

    return OwnTrainer


def write_adapter(model: "PeftModel", base: ModelName, folder: Path) -> dict[str, str]:
    """Write the trained adapter to `adapter/` of a folder; SHA-256 of all files that the folder has then."""
    name_base(model, base, folder)
    _save_adapter(model, folder / ADAPTER)
    return files_of(folder)


def name_base(model: "PeftModel", base: ModelName, folder: Path) -> None:
    """Let an adapter that is to be written to `adapter/` of a folder say what it sits on."""
    embedded = (folder / BASE).is_dir()
    model.peft_config["default"].base_model_name_or_path = f"../{BASE}" if embedded else base.name


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 of all files of a folder, which then can be read by everybody."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        path.chmod(0o644)  # safetensors 0.8 writes files that only their owner can read
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def described(model: "PeftModel", base: ModelName, folder: Path) -> dict[str, Any]:
    """What a record says of base, parameters and packages, as its fields."""
    trained, parameters = model.get_nb_trainable_parameters()
    embedded = (folder / BASE).is_dir()
    return {
        "base": "" if embedded else base.name,
        "revision": "" if embedded else model_files.identity(base)[1],
        "parameters": parameters,
        "trained_parameters": trained,
        "packages": packages(),
    }


def packages() -> dict[str, str]:
    """Versions of the packages that decide the last digits of weights."""
    return {package: version(package) for package in PACKAGES}


def write_record(record: CheckpointRecord, folder: Path) -> None:
    """Write `training.json`, last of a checkpoint's files."""
    (folder / RECORD).write_text(record.model_dump_json(indent=2))


def read_record(folder: Path, kind: type[Record]) -> Record:
    """The record of a checkpoint, or the part of it that a more general kind has."""
    return kind.model_validate_json((folder / RECORD).read_text())


def altered_files(folder: Path) -> list[str]:
    """The files of a checkpoint that are not as its record says, or missing."""
    listed = read_record(folder, CheckpointRecord).sha256
    return [
        name
        for name, digest in listed.items()
        if not (folder / name).is_file() or sha256(folder / name) != digest
    ]


def model_of(folder: Path) -> ModelName:
    """How the model of a checkpoint is asked for."""
    if (folder / MODEL).is_dir():
        return ModelName(str(folder / MODEL))
    adapter = str(folder / ADAPTER)
    if (folder / BASE).is_dir():
        return ModelName(str(folder / BASE), "", adapter)
    return replace(named_base(read_record(folder, CheckpointRecord)), adapter=adapter)


def base_of(folder: Path) -> ModelName:
    """What the adapter of a checkpoint sits on."""
    return replace(model_of(folder), adapter="")


def named_base(record: CheckpointRecord) -> ModelName:
    """The base that a record names, as it was."""
    base = ModelName(record.base)
    return base if base.is_folder else replace(base, revision=record.revision)


def _save_adapter(model: "PeftModel", folder: Path, state_dict: Any = None) -> None:
    # "auto" would ask the Hub whether the base's vocabulary was resized.
    model.save_pretrained(
        str(folder), selected_adapters=["default"], save_embedding_layers=False, state_dict=state_dict
    )
    (folder / "README.md").unlink()  # PEFT's template of a model card, unfilled
    config = folder / "adapter_config.json"
    # A set in PEFT: in another process it would be written in another order.
    read = json.loads(config.read_text())
    read["target_modules"].sort()
    config.write_text(json.dumps(read, indent=2, sort_keys=True))
