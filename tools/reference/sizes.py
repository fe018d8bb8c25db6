"""Sizes of one small checkpoint and what they mean as the configuration transformers takes."""
import dataclasses

FAMILIES = {  # pattern: every n-th layer is full; ple: per-layer embeddings and shared KV
    "dense": {"pattern": 6, "k_eq_v": True, "moe": False, "ple": False, "wide": False},
    "moe": {"pattern": 6, "k_eq_v": True, "moe": True, "ple": False, "wide": False},
    "edge": {"pattern": 6, "k_eq_v": False, "moe": False, "ple": True, "wide": False},
    "wide": {"pattern": 5, "k_eq_v": False, "moe": False, "ple": True, "wide": True},
}


@dataclasses.dataclass
class Sizes:
    family: str
    hidden: int = 32
    layers: int = 12
    heads: int = 4
    kv_heads: int = 2
    global_kv_heads: int = 1  # K=V families; the others use kv_heads on full layers too
    head_dim: int = 16
    global_head_dim: int = 32
    mlp: int = 48
    window: int = 24
    vocab: int = 256
    ple: int = 8
    shared: int = 6  # KV-shared layers of the families that have them
    experts: int = 16
    top_k: int = 4
    expert_mlp: int = 24
    draft_hidden: int = 24
    draft_heads: int = 4
    draft_mlp: int = 40
    centroids: int = 16
    centroid_top_k: int = 4
    softcap: float = 30.0
    towers: bool = True

    @property
    def traits(self):
        return FAMILIES[self.family]


def common_text(sizes):
    return {
        "vocab_size": sizes.vocab, "num_key_value_heads": sizes.kv_heads, "head_dim": sizes.head_dim,
        "global_head_dim": sizes.global_head_dim, "sliding_window": sizes.window,
        "attention_k_eq_v": sizes.traits["k_eq_v"],
        "num_global_key_value_heads": sizes.global_kv_heads if sizes.traits["k_eq_v"] else None,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "proportional", "rope_theta": 1000000.0,
                               "partial_rotary_factor": 0.25}},
    }


def target_text(sizes):
    traits, layers = sizes.traits, sizes.layers
    full = [i % traits["pattern"] == traits["pattern"] - 1 or i == layers - 1 for i in range(layers)]
    text = common_text(sizes) | {
        "hidden_size": sizes.hidden, "intermediate_size": sizes.mlp, "num_hidden_layers": layers,
        "num_attention_heads": sizes.heads, "final_logit_softcapping": sizes.softcap,
        "layer_types": ["full_attention" if f else "sliding_attention" for f in full],
        "use_bidirectional_attention": None if traits["ple"] else "vision",
        "hidden_size_per_layer_input": sizes.ple if traits["ple"] else 0,
        "vocab_size_per_layer_input": sizes.vocab,
        "num_kv_shared_layers": sizes.shared if traits["ple"] else 0,
        "use_double_wide_mlp": traits["wide"], "enable_moe_block": traits["moe"],
    }
    if traits["moe"]:
        text |= {"num_experts": sizes.experts, "top_k_experts": sizes.top_k,
                 "moe_intermediate_size": sizes.expert_mlp}
    return text


def draft_text(sizes):
    return common_text(sizes) | {
        "hidden_size": sizes.draft_hidden, "intermediate_size": sizes.draft_mlp,
        "num_hidden_layers": 4, "num_attention_heads": sizes.draft_heads,
        "final_logit_softcapping": None, "use_bidirectional_attention": None,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0,
        "num_kv_shared_layers": 4, "use_double_wide_mlp": False, "enable_moe_block": False,
    }


def vision(sizes):
    if not sizes.towers:
        return None
    return {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
            "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 8, "patch_size": 16,
            "pooling_kernel_size": 3, "position_embedding_size": 64,
            "use_clipped_linears": sizes.traits["ple"], "standardize": not sizes.traits["ple"]}


def audio(sizes):
    if not sizes.towers or not sizes.traits["ple"]:
        return None
    return {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
            "output_proj_dims": 24, "subsampling_conv_channels": [128, 8],
            "use_clipped_linears": True}


def media_ids(sizes):
    """The ids below the end of the vocabulary stand for media."""
    names = ("boi_token_id", "image_token_id", "eoi_token_id", "boa_token_id", "audio_token_id",
             "eoa_token_index", "video_token_id")
    return {name: sizes.vocab - len(names) + i for i, name in enumerate(names)}


FIRST_TEXT_ID, NUM_MEDIA_IDS = 8, 7
