"""What a model's licence says of training other models on what it wrote.

Facts as read in the sources named, by November 2026; no legal advice. A name tells the family alone: what
the publisher of a derived model adds to the licence of its base is not seen here. Where no source was read,
or the licence asks more of a trained model than a notice or a name, the answer is "ask".
"""

import re
from dataclasses import dataclass
from typing import Literal

_APACHE = "Apache-2.0"
_OPEN = "no condition on outputs"
# Of a name, characters that are looked at; some patterns take the square of it.
_LONGEST = 200


@dataclass(frozen=True)
class Licence:
    """Licence of a family of models: its id (of SPDX where there is one), and the terms for its outputs.

    `may_train`: whether other models may be trained on its outputs: "yes", under the condition; "no"; or
    "ask", where a person has to read the terms.
    """

    family: str
    licence: str
    may_train: Literal["yes", "no", "ask"]
    condition: str
    source: str


_UNKNOWN = Licence("unknown", "unknown", "ask", "read the licence of the model", "")
_LLAMA_NAME = 'the name of a model trained on outputs begins with "Llama"; show "Built with Llama"'
_NO_OTHER_MODEL = "1.b.v: outputs must not improve any other large language model"
_QWEN_RESEARCH = (
    'research licence, not for commercial use; a model trained on outputs shows "Built with Qwen"'
)

# The first that is found in the name decides, so a derived family stands before the one it is made of.
_FAMILIES: tuple[tuple[str, Licence], ...] = (
    (
        r"^extractive-",
        Licence("extractive agents", _APACHE, "yes", "rules of this project, no model", "LICENSE"),
    ),
    (
        r"^mkailin-\w+-[0-9a-f]{8} \(random weights\)$",
        Licence(
            "trained here from random weights",
            "none but that of its data",
            "yes",
            "what it was trained on: your citations, and BioASQ's questions if you named them",
            "training.json of the checkpoint",
        ),
    ),
    (
        r"biomistral",
        Licence(
            "BioMistral",
            _APACHE,
            "yes",
            f"{_OPEN}; its authors advise to use it strictly as a research tool",
            "https://huggingface.co/BioMistral",
        ),
    ),
    (
        r"meditron-?\d+b",
        Licence(
            "Meditron",
            "Llama 2 Community License",
            "no",
            _NO_OTHER_MODEL,
            "https://huggingface.co/TheBloke/meditron-7B-GGUF/blob/main/Notice",
        ),
    ),
    (
        r"meditron",
        Licence("Meditron 3", "of its base", "ask", "each has the licence of its base", ""),
    ),
    (
        r"openbiollm",
        Licence(
            "OpenBioLLM",
            "Llama 3 Community License",
            "no",
            _NO_OTHER_MODEL,
            "https://huggingface.co/aaditya/Llama3-OpenBioLLM-8B",
        ),
    ),
    (
        r"medgemma|txgemma",
        Licence(
            "Health AI Developer Foundations",
            "HAI-DEF terms",
            "ask",
            "Google's terms for health models; read what they call a model derivative",
            "https://ollama.com/library/medgemma:4b/blobs/12cef37dd827",
        ),
    ),
    (
        r"deepseek-r1-distill-qwen",
        Licence(
            "DeepSeek-R1 distilled into Qwen 2.5",
            "MIT, of base Apache-2.0",
            "yes",
            "distillation for training other models is allowed expressly",
            "https://github.com/deepseek-ai/DeepSeek-R1#7-license",
        ),
    ),
    (
        r"deepseek-r1-distill-llama",
        Licence(
            "DeepSeek-R1 distilled into Llama 3.1 and 3.3",
            "MIT, of base Llama 3.1 or 3.3 Community License",
            "yes",
            _LLAMA_NAME,
            "https://github.com/deepseek-ai/DeepSeek-R1#7-license",
        ),
    ),
    (
        r"deepseek-r1(?!.*(?:qwen|llama))",
        Licence(
            "DeepSeek-R1",
            "MIT",
            "yes",
            "distillation for training other models is allowed expressly",
            "https://github.com/deepseek-ai/DeepSeek-R1#7-license",
        ),
    ),
    (
        r"deepseek",
        Licence(
            "DeepSeek",
            "DeepSeek License or MIT, by version",
            "ask",
            "the DeepSeek License of V3 calls a model trained on outputs a derivative, which passes on its "
            "restrictions of use",
            "https://github.com/deepseek-ai/DeepSeek-V3/blob/main/LICENSE-MODEL",
        ),
    ),
    (
        r"gpt-oss",
        Licence(
            "gpt-oss", _APACHE, "yes", _OPEN, "https://developers.openai.com/api/docs/models/gpt-oss-20b"
        ),
    ),
    (r"(?:code|tiny|open)[-_]?llama", _UNKNOWN),
    (
        r"llama[-_ ]?v?(?:3(?:[._p][123](?![\db])|-[123]-\d)|4(?![\db]))",
        Licence(
            "Llama 3.1 and later",
            "Llama 3.1 to 4 Community License",
            "yes",
            _LLAMA_NAME,
            "https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/LICENSE",
        ),
    ),
    (
        r"llama[-_ ]?v?3(?![\db])",
        Licence(
            "Llama 3",
            "Llama 3 Community License",
            "no",
            _NO_OTHER_MODEL,
            "https://github.com/meta-llama/llama3/blob/main/LICENSE",
        ),
    ),
    (
        r"llama[-_ ]?v?2(?![\db])",
        Licence(
            "Llama 2",
            "Llama 2 Community License",
            "no",
            _NO_OTHER_MODEL,
            "https://ai.meta.com/llama/license/",
        ),
    ),
    (
        r"qwen2\.5(?!.*-(?:omni|max|plus|turbo)).*[-:]3b",
        Licence(
            "Qwen2.5 of 3B",
            "Qwen Research License",
            "ask",
            _QWEN_RESEARCH,
            "https://huggingface.co/Qwen/Qwen2.5-3B/discussions/3",
        ),
    ),
    (
        r"qwen2\.5(?!.*-(?:omni|max|plus|turbo)).*[-:]72b",
        Licence(
            "Qwen2.5 of 72B",
            "Qwen License",
            "yes",
            'a model trained on outputs shows "Built with Qwen" or "Improved using Qwen"',
            "https://huggingface.co/Qwen/Qwen2.5-72B-Instruct/discussions/18",
        ),
    ),
    (
        r"qwen2\.5.*[-:](?:0\.5|1\.5|7|14|32)b",
        Licence("Qwen2.5", _APACHE, "yes", _OPEN, "https://qwenlm.github.io/blog/qwen2.5/"),
    ),
    (
        r"qwen2(?!\.).*[-:]72b",
        Licence(
            "Qwen2 of 72B",
            "Tongyi Qianwen License",
            "ask",
            "read what it says of training other models",
            "https://huggingface.co/Qwen/Qwen2-72B/discussions/1",
        ),
    ),
    (
        r"qwen2(?!\.).*[-:](?:0\.5|1\.5|7)b",
        Licence("Qwen2", _APACHE, "yes", _OPEN, "https://huggingface.co/Qwen/Qwen2-72B/discussions/1"),
    ),
    (
        r"qwen3(?!\.).*[-:]\d[\d.]*b",
        Licence("Qwen3", _APACHE, "yes", _OPEN, "https://github.com/QwenLM/Qwen3#license-agreement"),
    ),
    # The models that Mistral serves itself come under the terms of its service.
    (r"open-mi[sx]tral|mistral.*-latest", _UNKNOWN),
    (
        r"mistral-7b|mixtral-8x|mistral-nemo|mathstral|codestral-mamba",
        Licence(
            "Mistral 7B, Mixtral, Mistral Nemo",
            _APACHE,
            "yes",
            _OPEN,
            "https://docs.mistral.ai/getting-started/open_weight_models/",
        ),
    ),
    (
        r"mistral-small-(?:3\.\d-)?24b",
        Licence(
            "Mistral Small 3",
            _APACHE,
            "yes",
            _OPEN,
            "https://huggingface.co/mistralai/Mistral-Small-24B-Instruct-2501",
        ),
    ),
    (
        r"(?:mis|minis|magis|codes|devs|mix)tral",
        Licence(
            "Mistral, others",
            "by model, some the Mistral Research License",
            "ask",
            "some are for research and tests only, unless Mistral licenses more",
            "https://docs.mistral.ai/getting-started/open_weight_models/",
        ),
    ),
    (
        r"(?<![a-z])gemma-?4(?![\db])",
        Licence("Gemma 4", _APACHE, "yes", _OPEN, "https://ai.google.dev/edge/litert-lm/models/gemma-4"),
    ),
    (
        r"gemma",
        Licence(
            "Gemma 1 to 3",
            "Gemma Terms of Use",
            "ask",
            "a model trained on outputs to perform like Gemma is a derivative under these terms",
            "https://ai.google.dev/gemma/terms",
        ),
    ),
    (
        r"(?<![a-z])phi-?(?:3\.5|3|4)(?![\d.])",
        Licence("Phi-3 and Phi-4", "MIT", "yes", _OPEN, "https://huggingface.co/microsoft/phi-4"),
    ),
    (
        r"smollm2?-",
        Licence(
            "SmolLM", _APACHE, "yes", _OPEN, "https://huggingface.co/HuggingFaceTB/SmolLM2-1.7B-Instruct"
        ),
    ),
    (
        r"(?<![a-z])olmo-(?!3)",
        Licence("OLMo", _APACHE, "yes", _OPEN, "https://huggingface.co/allenai/OLMo-2-1124-7B-GGUF"),
    ),
    (
        r"^(?:chatgpt|gpt-?[345](?!\d)|o[134](?![a-z\d]))|^openai/",
        Licence(
            "OpenAI API",
            "OpenAI Services Agreement",
            "no",
            "output must not be used to develop models that compete with OpenAI",
            "https://openai.com/policies/services-agreement/",
        ),
    ),
    (
        r"^claude|^anthropic/",
        Licence(
            "Anthropic API",
            "Anthropic Commercial Terms",
            "no",
            "D.4: not to build a competing product or service, including to train competing AI models",
            "https://www.anthropic.com/legal/commercial-terms",
        ),
    ),
    (
        r"^gemini",
        Licence(
            "Gemini API",
            "Gemini API Additional Terms",
            "no",
            "not to develop models that compete with the services",
            "https://ai.google.dev/gemini-api/terms",
        ),
    ),
)
_COMPILED = tuple((re.compile(pattern), licence) for pattern, licence in _FAMILIES)


def licence_of(model_name: str) -> Licence:
    """The licence of a model by its name, `NAME[@REVISION][+ADAPTER]`; an adapter has that of its base.

    The last part of a name or path decides, and if it says nothing the part before it.
    """
    name = re.split(r"[@+]", model_name.strip().casefold(), maxsplit=1)[0].strip("/")
    last, of_publisher = name.rpartition("/")[2], "/".join(name.split("/")[-2:])
    for text in (last[:_LONGEST], of_publisher[:_LONGEST]):
        for pattern, licence in _COMPILED:
            if pattern.search(text):
                return licence
    return _UNKNOWN
