"""The models of the demos, which come with ordinary packages and are made once into folders that transformers loads."""

import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

PROJECTOR = "vision-demo-projector.safetensors"
# SmolLM2's own without the system prompt that it puts first, which would make every question a third longer.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ message['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vision_model(name: str, cache: Path) -> Path:
    """SmolLM2 with a ViT-S/14 before it: with the trained projector that moslora ships, or with a fresh one.

    Pictures become 42 x 42 pixels, 9 tokens, from the tower's eighth block, where colours and shapes are plainest.
    Raises MissingDependencyError for a package that is not installed.
    """
    from moslora.runs.assembling import AssemblyPlan, assemble
    from moslora.runs.towers import tower_folder

    projector: Any = None
    key = "fresh"
    if not name.endswith(key):
        projector = resources.files("moslora.recipes") / PROJECTOR
        key = hashlib.sha256(projector.read_bytes()).hexdigest()[:12]
    folder = cache / f"smollm2-vision-{key}"
    if not (folder / "config.json").is_file():
        plan = AssemblyPlan(
            feature_layer=8,
            strategy="default",
            image_size=42,
            pad="square",
            dtype="float32",
            chat_template=CHAT_TEMPLATE,
        )
        assemble("smollm2", str(tower_folder()), folder=folder, projector=projector, plan=plan)
    return folder
