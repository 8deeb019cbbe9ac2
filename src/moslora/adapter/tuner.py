"""`MosloraModel`: injects the layers with a mixer into a model, and guards what PEFT would do without the mixer.

Written against PEFT 0.21, in the way PEFT's own AdaLoRA extends LoRA: a type, a config, a tuner class.
"""

import dataclasses
import gc
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.save_and_load import _validate_lora_adapter_state_dict
from torch import nn
from transformers.pytorch_utils import Conv1D

from moslora.adapter import layers
from moslora.adapter.base_model import check_same_base, describe_base
from moslora.adapter.combining import carry_saved_modules, check_combinable, check_mergeable, pad_to_rank
from moslora.adapter.config import MosloraConfig
from moslora.adapter.filling import mark_filled, mark_unfilled, require_filled
from moslora.adapter.handing_over import hand_over, take_back
from moslora.adapter.kinds import kind_of
from moslora.adapter.layers import MixerLayer, check_base_layer, mixer_layers
from moslora.adapter.patterns import check_are_used, config_at
from moslora.adapter.presenting import folded_factors
from moslora.adapter.strictness import confused, matched, others_biases, others_keys, without_adapter
from moslora.adapter.targets import check_is_called, check_patterns, names_to_match
from moslora.errors import ConfigError, UnsupportedLayerError

LAYERS: dict[type[nn.Module], type[MixerLayer]] = {
    nn.Linear: layers.Linear,
    Conv1D: layers.Linear,
    nn.Conv1d: layers.Conv1d,
    nn.Conv2d: layers.Conv2d,
    nn.Conv3d: layers.Conv3d,
    nn.Embedding: layers.Embedding,
}


class MosloraModel(LoraModel):
    """LoRA's tuner with a mixer in every layer; use it through `get_peft_model` and PEFT's other entry points."""

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Inject as PEFT does, with the garbage collector at rest: thousands of small objects would set it off."""
        if "." in adapter_name:
            raise ConfigError(
                f"'{adapter_name}' cannot name an adapter: leave out the dots, which separate the names in a key"
            )
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        finally:
            if was_enabled:
                gc.enable()
        hand_over(model, self.peft_config)
        config: Any = self.peft_config[adapter_name]
        if isinstance(config, MosloraConfig):
            check_are_used(config, [name for name, layer in mixer_layers(model).items() if adapter_name in layer.r])
        if getattr(config, "loaded_base_config", None) is not None:
            mark_unfilled(model, adapter_name)

    def _prepare_model(self, peft_config: LoraConfig, model: nn.Module) -> None:
        super()._prepare_model(peft_config, model)
        if not isinstance(peft_config, MosloraConfig):
            return
        if peft_config._custom_modules:
            kinds = ", ".join(kind.__name__ for kind in peft_config._custom_modules)
            raise ConfigError(
                f"LoRA layers registered for {kinds} cannot be used: they have no mixer; do not register any"
            )
        if peft_config.base_model_config is None:
            peft_config.loaded_base_config = None
        if peft_config.loaded_base_config is not None:
            check_same_base(peft_config.loaded_base_config, model)
        peft_config.base_model_config = describe_base(model)
        folder = Path(peft_config.base_model_name_or_path or "")
        if peft_config.base_model_name_or_path and folder.is_dir():  # a relative one would not be found from elsewhere
            peft_config.base_model_name_or_path = str(folder.absolute())
        check_patterns(peft_config, names_to_match(model))
        if any(type(module).__module__.startswith("bitsandbytes") for module in model.modules()):
            from moslora.adapter.quantised import keep_unpacked

            keep_unpacked(model)

    def _add_targets_to_tie(self, peft_config: Any, tied_weight_keys: list[str]) -> None:
        raise ConfigError(
            "ensure_weight_tying cannot tie adapters with a mixer, since"
            f" {', '.join(tied_weight_keys)} would need it transposed: leave the embedding out of target_modules"
            " (modules_to_save and trainable_token_indices can be tied)"
        )

    def _check_target_module_compatiblity(self, peft_config: Any, model: nn.Module, target_name: str) -> None:
        check_is_called(model, target_name)

    def _create_and_replace(
        self,
        lora_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        *,
        parameter_name: str | None = None,
    ) -> None:
        if parameter_name is not None:
            raise UnsupportedLayerError(
                f"{current_key}.{parameter_name} is a bare parameter, which cannot carry a mixer;"
                " leave target_parameters empty"
            )
        if isinstance(target, BaseTunerLayer) and not isinstance(target, MixerLayer):
            raise UnsupportedLayerError(
                f"{current_key} already has a {type(target).__module__}.{type(target).__name__} adapter, which would"
                " drop the mixer: add the MoSLoRA adapter first, or delete the other one"
            )
        base_layer = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        check_base_layer(current_key, base_layer)
        if kind_of(base_layer) not in LAYERS and not type(base_layer).__module__.startswith("bitsandbytes"):
            allowed = ", ".join(kind.__name__ for kind in LAYERS)
            raise UnsupportedLayerError(
                f"{current_key} is a {type(base_layer).__module__}.{type(base_layer).__name__}, which is not known to"
                f" carry a mixer (allowed: {allowed}, and bitsandbytes' Linear4bit and Linear8bitLt);"
                " leave it out of target_modules"
            )
        own = config_at(lora_config, current_key) if isinstance(lora_config, MosloraConfig) else lora_config
        super()._create_and_replace(own, adapter_name, target, target_name, parent, current_key)
        lora_config.fan_in_fan_out = own.fan_in_fan_out  # found out by the layer's kind

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT then moves every part of the new layer to the base weight's device, where our layers are made already.
        setattr(parent, child_name, new_module)

    @staticmethod
    def _create_new_module(lora_config: Any, adapter_name: str, target: nn.Module, **kwargs: Any) -> nn.Module:
        base_layer = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if type(base_layer).__module__.startswith("bitsandbytes"):
            from moslora.adapter import quantised

            return quantised.create(target, adapter_name, config=lora_config, **kwargs)
        kind = kind_of(base_layer)
        is_transposed = kind is Conv1D
        if kind in (nn.Linear, Conv1D):
            lora_config.fan_in_fan_out = is_transposed
            kwargs["is_target_conv_1d_layer"] = is_transposed
        kwargs.pop("parameter_name", None)
        layer_class: Any = LAYERS[kind]
        return layer_class(target, adapter_name, config=lora_config, **kwargs)

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merge the adapters into the base weights in place (PEFT); refused where that cannot be right."""
        self._check_mergeable(adapter_names or self.active_adapters)
        super().merge_adapter(adapter_names=adapter_names, safe_merge=safe_merge)

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> Any:
        if merge:
            self._check_mergeable(adapter_names or self.active_adapters)
        plain: Any = super()._unload_and_optionally_merge(merge, progressbar, safe_merge, adapter_names)
        take_back(plain)
        return plain

    def _check_mergeable(self, adapter_names: list[str]) -> None:
        for name in adapter_names:
            require_filled(self.model, name)
        check_mergeable(self.model, adapter_names)

    def add_weighted_adapter(self, adapters: list[str], weights: list[float], adapter_name: str, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Combine adapters as PEFT does, each with its mixer folded in; the result has an identity mixer, frozen."""
        if adapter_name in self.peft_config:
            return
        for name in adapters:
            require_filled(self.model, name)
        check_combinable(self.model, {name: self.peft_config[name] for name in adapters if name in self.peft_config})
        first = self.peft_config.get(adapters[0])
        if isinstance(first, MosloraConfig):  # PEFT derives the new adapter's config from the first one's
            self.peft_config[adapters[0]] = dataclasses.replace(
                first,
                mixer="identity",
                mixer_pattern={},
                mixer_trainable=False,
                mixer_depth=1,
                base_model_config=None,
            )
        try:
            with ExitStack() as stack:
                for module in self.model.modules():
                    if isinstance(module, MixerLayer):
                        stack.enter_context(folded_factors(module, adapters))
                super().add_weighted_adapter(adapters, weights, adapter_name, **kwargs)
            carry_saved_modules(self.model, adapters, adapter_name)
            pad_to_rank(self.model, adapter_name)
        finally:
            if first is not None:
                self.peft_config[adapters[0]] = first

    def subtract_mutated_init(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: the conversion concatenates A and B and would drop the mixer."""
        raise ConfigError("path_initial_model_for_weight_conversion does not work with a mixer: fold the adapter")

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: Any,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, torch.Tensor]:
        is_saving = any(isinstance(tensor, torch.Tensor) for tensor in state_dict.values())  # else names are asked for
        if is_saving:
            require_filled(model, adapter_name)
        for key, tensor in confused(model, unwanted_adapter_names if state_dict else []).items():
            state_dict.setdefault(key, tensor if is_saving else key)  # pyright: ignore[reportArgumentType]
        found = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        foreign = others_keys(found, unwanted_adapter_names)
        if config.bias != "all":
            foreign |= others_biases(model, adapter_name)
        found = {key: tensor for key, tensor in found.items() if key not in foreign}
        factors = {key: tensor for key, tensor in found.items() if not key.endswith(".bias")}
        _validate_lora_adapter_state_dict(factors, adapter_name=adapter_name)  # PEFT warns of shards by LoRA's type
        return found

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        return without_adapter(key, adapter_name)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        found = matched(model, adapter_name, state_dict)
        mark_filled(model, adapter_name)
        config.loaded_base_config = None  # from here on, this configuration can start a fresh adapter
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, found)
