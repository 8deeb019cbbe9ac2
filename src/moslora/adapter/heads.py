"""Which class of transformers an adapter's base model is loaded with, and how many labels its head has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from safetensors import safe_open

from moslora.errors import ConfigError

# PEFT's task types and what loads a base model for them; encoder-decoders are left to Python.
AUTO_CLASSES = MappingProxyType(
    {
        "CAUSAL_LM": "AutoModelForCausalLM",
        "SEQ_CLS": "AutoModelForSequenceClassification",
        "TOKEN_CLS": "AutoModelForTokenClassification",
        "QUESTION_ANS": "AutoModelForQuestionAnswering",
        "FEATURE_EXTRACTION": "AutoModel",
    }
)
_OWN_CLASSES = ("LMHeadModel", "Model", *(name[len("AutoModel") :] for name in AUTO_CLASSES.values() if "For" in name))
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Head:
    """The class that a base model is loaded with, and the shapes of the tensors that its adapter brings, by name."""

    class_name: str = AUTO_CLASSES["CAUSAL_LM"]
    task_type: str | None = "CAUSAL_LM"
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def is_language_model(self) -> bool:
        """Whether the model continues text."""
        return self.class_name.endswith(("ForCausalLM", "LMHeadModel", "ForImageTextToText"))

    @property
    def auto_class(self) -> Any:
        """The class itself."""
        return getattr(transformers, self.class_name)

    def options(self, config: Any) -> dict[str, Any]:
        """`num_labels` for a base whose `config` knows fewer or more labels than the adapter's head has."""
        if self.is_language_model:
            return {}
        with torch.device("meta"):
            bare = getattr(self.auto_class, "from_config", self.auto_class)(config)
        sizes = {
            self.shapes[name][0]
            for name, tensor in bare.named_parameters()
            if self.shapes.get(name, tensor.shape) != tensor.shape and tensor.shape[0] == config.num_labels
        }
        return {"num_labels": sizes.pop()} if len(sizes) == 1 else {}


def head_of(fields: Mapping[str, Any], weights: Path) -> Head:
    """The head that an adapter's configuration and weights ask for; a language model's where they do not say.

    Raises ConfigError for an encoder-decoder or another model that does not take text alone.
    """
    task_type = fields.get("task_type")
    own = (fields.get("auto_mapping") or {}).get("base_model_class")
    name = own if task_type is None and own else AUTO_CLASSES.get(task_type or "CAUSAL_LM")
    if name is None or not (name.endswith(_OWN_CLASSES) and hasattr(transformers, name)):
        kind = f"task_type {task_type}" if name is None else f"a {name}"
        raise ConfigError(
            f"{weights.parent} is an adapter for a model that the commands do not load ({kind}; allowed: task_type"
            f" {', '.join(AUTO_CLASSES)}): load it in Python, and use moslora.save_folded or save_merged there"
        )
    with safe_open(weights, framework="pt") as tensors:
        keys = tensors.keys()
        shapes = {key.removeprefix(_PREFIX): tuple(tensors.get_slice(key).get_shape()) for key in keys}
    return Head(name, task_type, shapes)
