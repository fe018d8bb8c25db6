"""Checkpoints of the published widths with random weights, and what transformers computes for them on a GPU."""
import json
import pathlib
import time
import zlib

import torch
from safetensors.torch import save_file
from transformers import Gemma4Config, Gemma4ForConditionalGeneration

import make_goldens

# Random networks enlarge what rounding changes, layer by layer, until nothing is left to compare. So a layer adds
# little to the residual stream, and all branches alike. The signs of the last norm keep a token from predicting
# itself, which the embedding, tied and dominant, would otherwise do. Logits have a deviation of about 3, scores
# of about 2; a linear keeps the size of what it reads. First match of the name decides: (low, high) of a uniform
# tensor.
RANGES = (
    ("layer_scalar", (0.95, 1.05)), ("q_norm", (0.8, 1.2)),
    ("post_attention_layernorm", (0.06, 0.18)), ("post_feedforward_layernorm.", (0.06, 0.18)),
    ("post_per_layer_input_norm", (0.06, 0.18)),
    ("norm", (0.5, 1.5)), ("router.scale", (0.5, 1.5)), ("per_expert_scale", (0.5, 1.5)),
)
K_NORM = (1.3, 2.9)  # over the root of the head size
LAST_NORM = (2.0, 4.0)


def fill(name, tensor, seed):
    generator = torch.Generator(tensor.device).manual_seed(zlib.crc32(name.encode()) ^ seed << 32)
    root = (tensor.shape[-1] if tensor.dim() else 1) ** 0.5
    if "k_norm" in name:
        return tensor.uniform_(K_NORM[0] / root, K_NORM[1] / root, generator=generator)
    if name.endswith(("model.norm.weight", "language_model.norm.weight")):
        sizes = torch.empty_like(tensor).uniform_(*LAST_NORM, generator=generator)
        return tensor.uniform_(-1, 1, generator=generator).sign_().mul_(sizes)
    for part, (low, high) in RANGES:
        if part in name:
            return tensor.uniform_(low, high, generator=generator)
    return tensor.normal_(0.0, 1.0 / root, generator=generator)


def config_of(published, num_layers):
    """The published config.json without towers, cut to its first layers."""
    config = json.loads((pathlib.Path(published) / "config.json").read_text())
    config["vision_config"] = config["audio_config"] = None
    text = config["text_config"]
    if num_layers:
        text["num_hidden_layers"] = num_layers
        text["layer_types"] = text["layer_types"][:num_layers]
    return Gemma4Config(**config)


@torch.no_grad()
def make_checkpoint(published, folder, num_layers=0, device="cuda", seed=5):
    """The model in bf16, saved in `folder`."""
    with torch.device(device):
        model = Gemma4ForConditionalGeneration._from_config(
            config_of(published, num_layers), dtype=torch.bfloat16, attn_implementation="eager",
            experts_implementation="eager").eval()
    for name, tensor in model.named_parameters():
        fill(name, tensor, seed)
    for name, tensor in model.named_buffers():
        if name.endswith("layer_scalar"):
            fill(name, tensor, seed)
    model.save_pretrained(folder, max_shard_size="4GB")
    return model


def lengths(window):
    """Prompts that end at borders of windows, pages and chunks, with 512 rows of each at least 2,000."""
    return [window - 1, 2 * window + 1, 4096 + 1, 9000]


class Making:
    """A checkpoint and its goldens, in two parts, because the second needs most of the GPU's memory."""

    def __init__(self, published, folder, num_layers, device, report):
        self.folder, self.report, self.clock = pathlib.Path(folder), report, time.monotonic()
        self.model = make_checkpoint(published, folder, num_layers, device)
        self.device = device
        size = sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))
        self.lap(f"{size / 1e9:.1f} GB made and written")

    def lap(self, what):
        now = time.monotonic()
        self.report(f"{what}: {now - self.clock:.1f} s")
        self.clock = now

    @torch.no_grad()
    def run_bf16(self, prompt_lengths):
        self.asked = make_goldens.Asked(prompt_lengths, greedy=32, last_rows=512, cached=True, device=self.device)
        self.prompts = self.asked.prompts(self.model.config)
        self.goldens = make_goldens.in_bf16(self.model, None, self.asked, self.prompts)
        self.lap("transformers in bf16")

    @torch.no_grad()
    def run_f32(self, goldens_file):
        self.clock = time.monotonic()
        self.goldens |= make_goldens.in_f32(self.model.float(), None, self.asked, self.prompts)
        self.lap("transformers in float32")
        save_file(self.goldens, goldens_file)
        self.lap("goldens written")
