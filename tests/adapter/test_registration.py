"""`import moslora` is cheap, and PEFT knows the type whichever of the two is imported first: in fresh processes."""

import subprocess
import sys

import pytest

ORDERS = {
    "moslora first": "import moslora, peft",
    "peft first": "import peft, moslora",
    "peft through transformers": "import moslora\nfrom peft import PeftConfig",
    "only a name of ours": "from moslora import MosloraConfig\nMosloraConfig()",
}
CHECK = """
import json, sys, tempfile, pathlib
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
for mapping in (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING):
    assert "MOSLORA" in mapping
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "adapter_config.json").write_text(json.dumps({"peft_type": "MOSLORA", "r": 4, "mixer": "orthogonal"}))
print(type(PeftConfig.from_pretrained(str(folder))).__name__)
"""


def run(code):
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("order", ORDERS)
def test_peft_knows_the_type_in_either_order(order):
    done = run(ORDERS[order] + CHECK)
    assert done.stdout.strip() == "MosloraConfig", done.stderr


def test_importing_moslora_loads_neither_torch_nor_peft():
    done = run("import moslora, sys\nprint(sorted({'torch', 'peft', 'transformers', 'pydantic'} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_is_there_and_unknown_ones_are_not():
    import moslora

    for name in moslora.__all__:
        assert getattr(moslora, name) is not None
    assert set(moslora.__all__) <= set(dir(moslora))
    with pytest.raises(AttributeError, match="module 'moslora' has no attribute 'MoSLoraConfig'"):
        moslora.MoSLoraConfig  # noqa: B018
