"""`ensure_weight_tying`: what is trained in place of tied weights stays tied; adapters are not."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import LlamaForCausalLM

from moslora import MosloraError, save_folded, save_merged

TIED = [
    {"modules_to_save": ["embed_tokens"]},
    {"modules_to_save": ["embed_tokens", "lm_head"]},
    {"trainable_token_indices": [5, 7, 9]},
]


@pytest.fixture
def tied_base(tiny_llama, tmp_path):
    tiny_llama.config.tie_word_embeddings = True
    tiny_llama.tie_weights()
    tiny_llama.save_pretrained(tmp_path / "tied")
    return lambda: LlamaForCausalLM.from_pretrained(tmp_path / "tied").eval()


@pytest.mark.filterwarnings("ignore:You have requested `ensure_weight_tying`, but no tied modules")  # sees no tokens
@pytest.mark.parametrize("options", TIED, ids=str)
def test_what_is_tied_trains_saves_folds_and_merges_as_one(tied_base, config, train, logits, tmp_path, options):
    model = train(get_peft_model(tied_base(), config(ensure_weight_tying=True, **options)))
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    expected = logits(model)
    if "modules_to_save" in options:
        assert head.modules_to_save["default"].weight is embedding.modules_to_save["default"].weight
    model.save_pretrained(tmp_path / "adapter")
    save_folded(model, tmp_path / "folded")
    save_merged(model, tmp_path / "merged")
    for folder in ("adapter", "folded"):
        torch.testing.assert_close(logits(PeftModel.from_pretrained(tied_base(), tmp_path / folder)), expected)
    torch.testing.assert_close(logits(LlamaForCausalLM.from_pretrained(tmp_path / "merged")), expected)


def test_adapters_on_tied_layers_cannot_be_tied(tied_base, config):
    message = "ensure_weight_tying cannot tie adapters with a mixer, since lm_head would need it transposed"
    with pytest.raises(MosloraError, match=message):
        get_peft_model(tied_base(), config(ensure_weight_tying=True, target_modules=["embed_tokens", "q_proj"]))
