"""MoSLoRA (mixture-of-subspaces LoRA) and its family as a plug-in for Hugging Face PEFT.

`import moslora` is cheap: it loads no torch. It makes PEFT know the adapter type, whichever of the two is imported
first; the public names below are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from moslora.adapter.config import MosloraConfig as MosloraConfig
    from moslora.adapter.export import fold as fold
    from moslora.adapter.export import save_folded as save_folded
    from moslora.adapter.export import save_merged as save_merged
    from moslora.adapter.importing import import_adapter as import_adapter
    from moslora.adapter.inspection import inspect_adapter as inspect_adapter
    from moslora.adapter.tuner import MosloraModel as MosloraModel
    from moslora.errors import MosloraError as MosloraError
    from moslora.records import RunRecord as RunRecord
    from moslora.runs.recipe import Recipe as Recipe
    from moslora.runs.recipe import load_recipe as load_recipe
    from moslora.runs.run import run_recipe as run_recipe

__version__ = "0.1.0"

_HOMES = {
    "MosloraConfig": "moslora.adapter.config",
    "MosloraModel": "moslora.adapter.tuner",
    "fold": "moslora.adapter.export",
    "save_folded": "moslora.adapter.export",
    "save_merged": "moslora.adapter.export",
    "import_adapter": "moslora.adapter.importing",
    "inspect_adapter": "moslora.adapter.inspection",
    "MosloraError": "moslora.errors",
    "RunRecord": "moslora.records",
    "Recipe": "moslora.runs.recipe",
    "load_recipe": "moslora.runs.recipe",
    "run_recipe": "moslora.runs.run",
}
__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'moslora' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _register_with_peft(_peft: Any) -> None:
    import_module("moslora.adapter.registration").register()


wrapt.register_post_import_hook(_register_with_peft, "peft")
