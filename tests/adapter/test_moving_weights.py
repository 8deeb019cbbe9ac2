"""The fused update where others step in: DDP, FSDP2, offloading, checkpointed activations, the compiler."""

import copy
import faulthandler
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from accelerate import cpu_offload
from peft import get_peft_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM

from moslora import MosloraConfig

PROCESSES = 2
PATIENCE_SECONDS = 240  # a process still running then prints where it stands, and fails


def adapted(**options: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    targets = ["q_proj", "v_proj", "down_proj"]
    model = get_peft_model(LlamaForCausalLM(config), MosloraConfig(r=4, target_modules=targets, **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.train()


def rows() -> torch.Tensor:
    return torch.randint(1, 64, (4, 12), generator=torch.Generator().manual_seed(1))


def loss_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, labels=ids).loss


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    named = ((name.removeprefix("module."), parameter.grad) for name, parameter in model.named_parameters())
    return {name: gradient for name, gradient in named if gradient is not None}


def sharded(model: Any) -> Any:
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for layer in model.get_base_model().model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert isinstance(model, FSDPModule)
    return model


def run_process(rank: int, kind: str, folder: str) -> None:
    faulthandler.dump_traceback_later(PATIENCE_SECONDS, exit=True)
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # both processes are on this machine
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", meeting, timedelta(seconds=90), rank=rank, world_size=PROCESSES)
    try:
        model = adapted()
        model = DistributedDataParallel(model) if kind == "ddp" else sharded(model)
        loss_of(model, rows()[2 * rank : 2 * rank + 2]).backward()
        found = gradients(model)
        found = {name: g if kind == "ddp" else g.full_tensor() for name, g in found.items()}  # type: ignore[attr-defined]
        if rank == 0:
            torch.save(found, f"{folder}/gradients.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
    faulthandler.cancel_dump_traceback_later()


def step_flat(rank: int, folder: str) -> None:
    """One step of SGD at rate 1 on all weights, which FSDP1 keeps in one flat tensor."""
    faulthandler.dump_traceback_later(PATIENCE_SECONDS, exit=True)
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", f"file://{folder}/meeting", timedelta(seconds=90), rank=rank, world_size=PROCESSES)
    try:
        model = adapted().requires_grad_(True)
        model = FullyShardedDataParallel(model, use_orig_params=False, device_id=torch.device("cpu"))
        loss_of(model, rows()[2 * rank : 2 * rank + 2]).backward()
        torch.optim.SGD(model.parameters(), lr=1.0).step()
        with FullyShardedDataParallel.summon_full_params(model, writeback=False):
            if rank == 0:
                torch.save({name: tensor.clone() for name, tensor in model.named_parameters()}, f"{folder}/stepped.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_trained_base_in_flat_shards_gets_all_of_its_gradients(tmp_path: Path) -> None:
    mp.start_processes(step_flat, args=(str(tmp_path),), nprocs=PROCESSES, start_method="forkserver")
    found = torch.load(tmp_path / "stepped.pt", weights_only=True)
    model = adapted(fused=False).requires_grad_(True)
    loss_of(model, rows()).backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    expected = dict(model.named_parameters())
    assert {name.replace("_fsdp_wrapped_module.", "") for name in found} == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name.replace("_fsdp_wrapped_module.", "")], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_gradients_over_processes_are_those_of_one_process(kind: str, tmp_path: Path) -> None:
    mp.start_processes(run_process, args=(kind, str(tmp_path)), nprocs=PROCESSES, start_method="forkserver")
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    model = adapted(fused=False)
    loss_of(model, rows()).backward()
    expected = gradients(model)
    assert found.keys() == expected.keys()
    assert any("lora_mixer" in name for name in found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def test_offloaded_weights_are_fetched() -> None:
    model = adapted().eval()
    with torch.no_grad():
        expected = model(input_ids=rows()).logits
        offloaded = cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
        assert any(parameter.is_meta for name, parameter in offloaded.named_parameters() if "lora_A" in name)
        torch.testing.assert_close(offloaded(input_ids=rows()).logits, expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointed_activations_give_the_same_gradients_with_the_same_dropout(use_reentrant: bool) -> None:
    found = []
    for is_checkpointed in (False, True):
        model = adapted(lora_dropout=0.3)
        if is_checkpointed:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
        torch.manual_seed(5)
        loss_of(model, rows()).backward()
        found.append(gradients(model))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def test_the_compiler_sees_one_graph_and_gives_the_same_gradients() -> None:
    model = adapted()
    layer = model.get_base_model().model.layers[0].mlp.down_proj
    x = torch.randn(3, 5, 48)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(layer)(x)
    assert explained.graph_break_count == 0
    compiled = torch.compile(copy.deepcopy(layer), backend="aot_eager", fullgraph=True)
    for run in (layer, compiled):
        run(x).square().sum().backward()
    for one, two in zip(layer.parameters(), compiled.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, two.grad)
