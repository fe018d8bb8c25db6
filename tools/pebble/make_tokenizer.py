"""Writes models/pebble/tokenizer.json and tokenizer_config.json: Gemma's pipeline over a vocabulary of 1024.

  python3 make_tokenizer.py

Merges are learnt on the training chats. No piece holds a digit beside another character, crosses a newline, or has a
space anywhere but in front.
"""
import collections
import json
import random
import re

import tokenizers

import chats

VOCAB = 1024
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>", "<|tool>",
           "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|\"|>", "<|image>", "<|audio>",
           "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>"]
SPACE = "\u2581"


def learnt_merges(count):
    """BPE merges over words and single marks of the training text."""
    rng, words = random.Random(3), collections.Counter()
    special = re.compile("|".join(re.escape(s) for s in sorted(SPECIAL, key=len, reverse=True)))
    for _ in range(12000):
        text = chats.render(*chats.train_chat(rng))
        for part in special.split(text):
            words.update(re.findall(SPACE + r"?[A-Za-z]+|" + SPACE + r"?[^\sA-Za-z0-9" + SPACE + "]", part.replace(" ", SPACE)))
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    letters = sorted({c for word in words for c in word})
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=len(letters) + count, initial_alphabet=letters, max_token_length=12,
                                             show_progress=False)
    lines = (" ".join([word] * n) for word, n in sorted(words.items()))
    bpe.train_from_iterator(lines, trainer)
    return [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in json.loads(bpe.to_str())["model"]["merges"]][:count]


def build():
    vocab = {t: i for i, t in enumerate(SPECIAL)}

    def add(piece):
        vocab.setdefault(piece, len(vocab))

    for b in range(256):
        add(f"<0x{b:02X}>")
    for c in ["\n", SPACE] + [chr(c) for c in range(33, 127)]:
        add(c)
    runs = [(SPACE, SPACE), (SPACE * 2, SPACE * 2), (SPACE * 2, SPACE), ("\n", "\n"), ("\n\n", "\n"), ("\n\n", "\n\n")]
    for a, b in runs:
        add(a + b)
    merges = []
    for a, b in learnt_merges(VOCAB):
        if len(vocab) == VOCAB and a + b not in vocab:
            break
        add(a + b)
        merges.append((a, b))
    assert len(vocab) == VOCAB
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=i, content=t, **flags) for i, t in enumerate(SPECIAL)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                                                     {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "ignore_merges": False, "vocab": vocab,
                  "merges": [list(m) for m in runs + merges]},
    }


def config():
    return {
        "audio_token": "<|audio|>", "backend": "tokenizers", "boa_token": "<|audio>", "boi_token": "<|image>", "bos_token": "<bos>",
        "eoa_token": "<audio|>", "eoc_token": "<channel|>", "eoi_token": "<image|>", "eos_token": "<eos>", "eot_token": "<turn|>",
        "escape_token": "<|\"|>", "etc_token": "<tool_call|>", "etd_token": "<tool|>", "etr_token": "<tool_response|>",
        "extra_special_tokens": ["<|video|>"], "image_token": "<|image|>", "mask_token": "<mask>", "model_max_length": 32768,
        "pad_token": "<pad>", "padding_side": "left", "soc_token": "<|channel>", "sot_token": "<|turn>", "stc_token": "<|tool_call>",
        "std_token": "<|tool>", "str_token": "<|tool_response>", "think_token": "<|think|>", "tokenizer_class": "GemmaTokenizer",
        "unk_token": "<unk>"}


def main():
    (chats.MODEL / "tokenizer.json").write_text(json.dumps(build(), ensure_ascii=False, indent=0))
    (chats.MODEL / "tokenizer_config.json").write_text(json.dumps(config(), indent=2) + "\n")
    text = chats.render(*chats.train_chat(random.Random(5)))
    ids = tokenizers.Tokenizer.from_file(str(chats.MODEL / "tokenizer.json")).encode(text).ids
    print(f"{len(text)} characters in {len(ids)} tokens")


if __name__ == "__main__":
    main()
