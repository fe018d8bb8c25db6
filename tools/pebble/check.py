"""Checks pebble: the split, the published form, and the training modules against transformers.

  python3 check.py [--folder ../../models] [--chats 20000]

1. No held-out question occurs in the training stream (split.py).
2. The checkpoints load in transformers with no missing or unexpected tensor, and AutoTokenizer loads the tokenizer.
3. Logits of model.py and of the cached decoder equal transformers' in float32 to 1e-3, the drafter's bursts too.
"""
import argparse
import pathlib
import random

import torch

import checkpoint
import chats
import data
import generate
import model as m
import split


def load_reference(folder):
    from transformers import AutoModelForImageTextToText, AutoTokenizer, Gemma4AssistantForCausalLM, Gemma4ForConditionalGeneration
    options = dict(dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    target, info = Gemma4ForConditionalGeneration.from_pretrained(folder / "pebble", **options)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    auto = AutoModelForImageTextToText.from_pretrained(folder / "pebble")
    assert type(auto) is Gemma4ForConditionalGeneration
    assistant = None
    if (folder / "pebble-assistant" / "model.safetensors").exists():
        assistant, info = Gemma4AssistantForCausalLM.from_pretrained(folder / "pebble-assistant", **options)
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    tokenizer = AutoTokenizer.from_pretrained(chats.MODEL)
    return target.eval(), assistant.eval() if assistant else None, tokenizer


@torch.no_grad()
def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--folder", default=str(chats.ROOT / "models"))
    ap.add_argument("--chats", type=int, default=20000)
    args = ap.parse_args()
    folder, encoder = pathlib.Path(args.folder), data.Encoder()
    if args.chats:
        split.check(args.chats)
    target, assistant, tokenizer = load_reference(folder)
    decoder = checkpoint.load(m.Decoder(m.Config(vocab=len(tokenizer))), folder / "pebble")
    c = decoder.config
    rng = random.Random(9)
    texts = [chats.render(*chats.train_chat(rng)) for _ in range(12)]
    assert all(tokenizer(t).input_ids == encoder.encode(t) for t in texts), "tokenizers disagree"
    ids = torch.tensor([sum((encoder.encode(t) for t in texts), [])[:3 * c.window]])
    out = target.model.language_model(input_ids=ids, use_cache=False, return_shared_kv_states=True)
    reference = target(input_ids=ids, use_cache=False).logits
    y, kv, w = decoder.rows(ids, torch.zeros_like(ids), torch.float32)
    worst = (m.cap(y @ w["embed"].T) - reference).abs().max().item()
    engine = generate.Engine(decoder, 1, ids.shape[1], torch.float32)
    half = ids.shape[1] // 2 + 3
    zero = torch.zeros(1, dtype=torch.long)
    parts = torch.cat([engine.forward(ids[:, :half], zero, half), engine.forward(ids[:, half:], zero + half, ids.shape[1])], 1)
    cached = (m.cap(parts @ w["embed"].T) - reference).abs().max().item()
    print(f"target: largest logit difference from transformers {worst:.2e} in rows, {cached:.2e} with the cache")
    assert max(worst, cached) < 1e-3
    if assistant is None:
        return
    drafter = checkpoint.load(m.Drafter(m.drafter_config(c)), folder / "pebble-assistant")
    worst, same = 0.0, 0
    for offset in (1, 0):
        guesses = generate.drafts(decoder, drafter, ids, 3, offset, torch.float32)
        for p in (5, c.window - 1, c.window + 7, 2 * c.window + 100):
            shared = {k: tuple(x[:, :, :p + 1] for x in v) for k, v in out.shared_kv_states.items()}
            shared["sliding_attention"] = tuple(x[:, :, -c.window:] for x in shared["sliding_attention"])
            token, h = ids[:, p + 1:p + 2], out.last_hidden_state[:, p:p + 1]
            docs, wd = torch.zeros_like(ids), drafter.cast(torch.float32)
            state, mine = y, torch.cat([ids[:, 1:], ids[:, :1]], 1)
            for j in range(3):
                step = assistant(inputs_embeds=torch.cat([target.get_input_embeddings()(token), h], -1),
                                 position_ids=torch.tensor([[p + offset]]), shared_kv_states=shared, use_cache=False)
                e = w["embed"][mine] * m.embed_scale(c.hidden)
                z, state = drafter.step(e, state, kv, docs, torch.arange(ids.shape[1])[None] + offset, wd)
                mine = guesses[:, :, j]
                logits = generate.head(z, wd, drafter)[0, p]
                seen = torch.isfinite(logits)
                worst = max(worst, (logits[seen] - step.logits[0, 0][seen]).abs().max().item())
                token, h = step.logits.argmax(-1), step.last_hidden_state
                same += int(token) == int(mine[0, p])
    print(f"assistant: largest logit difference {worst:.2e}, {same} of 24 drafts equal")
    assert worst < 1e-3 and same == 24


if __name__ == "__main__":
    main()
