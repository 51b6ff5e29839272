"""Key table of the official AntifakePrompt model (LAVIS names) to InstructBLIP's names in transformers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from deepfake_detectors.conversion.key_table import KeyTable

__all__ = ["LAVIS_TABLE", "QFORMER_WORD", "LLM_WORD", "WORD_FILE_TABLE", "fuse_attention_biases"]

QFORMER_WORD = "Qformer.bert.embeddings.train_word_embeddings.weight"
LLM_WORD = "llm_model.model.train_embed_tokens.weight"

LAYER = r"visual_encoder\.blocks\.(\d+)"
OURS = r"vision_model.encoder.layers.\1"
BUFFERS: KeyTable = [
    (r"Qformer\.bert\.embeddings\.position_ids", None),
    (r"llm_model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", None),
]
# Of complete models; attention biases fused before.
LAVIS_TABLE: KeyTable = [
    *BUFFERS,
    (r"query_tokens", "query_tokens"),
    (r"visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
    (r"visual_encoder\.patch_embed\.proj\.(.+)", r"vision_model.embeddings.patch_embedding.\1"),
    (LAYER + r"\.norm([12])\.(.+)", OURS + r".layer_norm\2.\3"),
    (LAYER + r"\.attn\.qkv\.(weight|bias)", OURS + r".self_attn.qkv.\2"),
    (LAYER + r"\.attn\.proj\.(.+)", OURS + r".self_attn.projection.\2"),
    (LAYER + r"\.mlp\.(fc[12])\.(.+)", OURS + r".mlp.\2.\3"),
    (r"ln_vision\.(.+)", r"vision_model.post_layernorm.\1"),
    (r"Qformer\.bert\.embeddings\.train_word_embeddings\.weight", "qformer.embeddings.word_embeddings.soft_word"),
    (r"Qformer\.bert\.embeddings\.LayerNorm\.(.+)", r"qformer.embeddings.layernorm.\1"),
    (r"Qformer\.bert\.embeddings\.(.+)", r"qformer.embeddings.\1"),
    (r"Qformer\.bert\.(.+\.(?:cross)?attention)\.self\.(.+)", r"qformer.\1.attention.\2"),
    (r"Qformer\.bert\.(.+)", r"qformer.\1"),
    (r"llm_proj\.(.+)", r"language_projection.\1"),
    (r"llm_model\.model\.train_embed_tokens\.weight", "language_model.model.embed_tokens.soft_word"),
    (r"llm_model\.(.+)", r"language_model.\1"),
]
# Of the released files, whose tensors become the adapter.
WORD_FILE_TABLE: KeyTable = [
    *BUFFERS,
    (r"Qformer\.bert\.embeddings\.train_word_embeddings\.weight", "qformer_soft_word"),
    (r"llm_model\.model\.train_embed_tokens\.weight", "llm_soft_word"),
]


def fuse_attention_biases(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`q_bias` and `v_bias` of every vision block to one bias of q, k and v; keys have none, so theirs is zero.

    Raises:
        ValueError: if one of a pair is missing.
    """
    fused = dict(tensors)
    for key in [key for key in tensors if key.endswith((".attn.q_bias", ".attn.v_bias"))]:
        block = key.rsplit(".", 1)[0]
        pair = [f"{block}.q_bias", f"{block}.v_bias"]
        if any(name not in tensors for name in pair):
            raise ValueError(f"{block} has only one of q_bias and v_bias.")
        query, value = (tensors[name] for name in pair)
        fused[f"{block}.qkv.bias"] = torch.cat([query, torch.zeros_like(value), value])
        del fused[key]
    return fused
