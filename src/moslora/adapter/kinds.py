"""The class as which a base layer computes.

A subclass may compute something else than its parent, so classes are known by their exact names. The subclasses named
here were read in transformers 5.23: they compute what their parent computes, or `embed_scale` times it.
"""

from torch import nn

SCALED_EMBEDDINGS = {
    "bart": "Bart",
    "bigbird_pegasus": "BigBirdPegasus",
    "biogpt": "BioGpt",
    "blenderbot": "Blenderbot",
    "diffusion_gemma": "DiffusionGemmaText",
    "embedding_gemma2": "EmbeddingGemma2Text",
    "gemma": "GemmaText",
    "gemma2": "Gemma2Text",
    "gemma3": "Gemma3Text",
    "gemma3n": "Gemma3nText",
    "gemma4": "Gemma4Text",
    "gemma4_unified": "Gemma4UnifiedText",
    "m2m_100": "M2M100",
    "mbart": "MBart",
    "minicpm3": "MiniCPM3",
    "nllb_moe": "NllbMoe",
    "pegasus_x": "PegasusX",
    "plbart": "PLBart",
    "pp_formulanet": "PPFormulaNet",
    "seamless_m4t": "SeamlessM4T",
    "seamless_m4t_v2": "SeamlessM4Tv2",
    "trocr": "TrOCR",
    "vaultgemma": "VaultGemmaText",
    "xglm": "XGLM",
}
SUBCLASSES: dict[str, type[nn.Module]] = {
    "transformers.models.falcon.modeling_falcon.FalconLinear": nn.Linear,
    **{
        f"transformers.models.{model}.modeling_{model}.{prefix}ScaledWordEmbedding": nn.Embedding
        for model, prefix in SCALED_EMBEDDINGS.items()
    },
}


def kind_of(layer: nn.Module) -> type[nn.Module]:
    """The class as which a layer computes: its parent for the subclasses known to keep to it, else its own."""
    kind = type(layer)
    return SUBCLASSES.get(f"{kind.__module__}.{kind.__qualname__}", kind)
