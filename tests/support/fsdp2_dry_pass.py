"""Run by `accelerate launch` with the FSDP2 file: each family's model split between CPU processes as the file says.

Accelerate itself falls back to plain data parallelism on CPU, so this calls its function for FSDP2 directly.
"""

import sys
from types import SimpleNamespace

import torch
import torch.distributed as dist
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from peft import LoraConfig, get_peft_model
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

from deepfake_detectors.train.arguments import SftModelArguments
from deepfake_detectors.train.families import load_for_sft
from deepfake_detectors.train.sft_data import ConversationCollator
from support.pictures import random_pictures


def split(model):
    """By accelerate's own function for FSDP2; returns the number of parts."""
    plugin = FullyShardedDataParallelPlugin()  # from the environment that `accelerate launch` made of the file
    assert plugin.fsdp_version == 2
    # What the function reads of an accelerator; a real one makes no FSDP plugin on CPU.
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        device=torch.device("cpu"),
        mixed_precision="no",
        is_main_process=dist.get_rank() == 0,
        parallelism_config=None,
    )
    fsdp2_prepare_model(accelerator, model)
    register_fsdp_forward_method(model, "detect")
    return sum(isinstance(module, FSDPModule) for module in model.modules())


def with_lora(model):
    """As in the recipes of these families; the same in every process."""
    torch.manual_seed(0)
    targets = r".*language_model.*\.(q_proj|v_proj)"
    return get_peft_model(model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False)).eval()


def gradients(model):
    return {
        name: parameter.grad.full_tensor() if hasattr(parameter.grad, "full_tensor") else parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def main(*bases):
    dist.init_process_group("gloo")
    assert dist.get_world_size() == 2
    for base in bases:
        arguments = SftModelArguments(model_name_or_path=base)
        (whole, processor, family), (parts, _, _) = load_for_sft(arguments), load_for_sft(arguments)
        if family.own_loss:
            whole, parts = with_lora(whole), with_lora(parts)
        pictures = random_pictures(2)
        rows = [{"image": picture, "label": index} for index, picture in enumerate(pictures)]
        collator = ConversationCollator(family, processor, "verdict", None)
        batch, pixels = collator(rows), processor(images=pictures)
        count = split(parts)
        results = []
        for model in (whole, parts):
            loss = model(**batch).loss
            loss.backward()
            results.append((loss.detach(), gradients(model), model.detect(**pixels).logits))
        (loss, grads, logits), (loss2, grads2, logits2) = results
        torch.testing.assert_close(loss2, loss, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(logits2, logits, atol=1e-4, rtol=1e-4)
        assert grads.keys() == grads2.keys()
        for key, gradient in grads.items():
            torch.testing.assert_close(grads2[key], gradient, atol=1e-4, rtol=1e-3, msg=key)
        if dist.get_rank() == 0:
            sys.stdout.write(f"{whole.config.model_type}: {count} parts\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
