#!/usr/bin/env python3
"""Makes a tokenizer.json with Gemma 4's pipeline and any number of entries, for tests and benches.

Merges are trained on the licence texts of this machine and on seeded made-up words; what is then
missing up to --size is filled with valid random merges. With --cross the random merges may also
join over spaces and newlines, so that no border can be proved. Needs the `tokenizers` package.
"""
import argparse
import json
import pathlib
import random

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

MARK = "\u2581"
ADDED = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|tool_call>",
         "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>",
         "<|channel>", "<channel|>", "<|turn>", "<turn|>", "<|image>", "<|audio>", "<|image|>",
         "<|audio|>", "<image|>", "<audio|>", "<|video|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def corpus(rng, words):
    for path in sorted(pathlib.Path("/usr/share/common-licenses").iterdir()):
        yield path.read_text(errors="replace")
    syllables = [a + b for a in "bcdfghklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er")]
    for _ in range(words // 100):
        yield " " + " ".join("".join(rng.choices(syllables, k=rng.randint(1, 4)))
                             for _ in range(100))
    for first, last in ((0x4E00, 0x5200), (0x410, 0x450), (0xC0, 0x180), (0x1F600, 0x1F640)):
        for _ in range(40):
            yield "".join(chr(rng.randrange(first, last)) for _ in range(200))
    for n in range(2, 32):
        yield ("\n" * n + "x" + " " * n + "y" + "\t" * n + "z") * 3


def trained(rng, size, words):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", MARK)
    pieces = Regex(f"{MARK}*[^{MARK}\\n0-9]+|[0-9]|\\n+|{MARK}+")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, "isolated")
    trainer = trainers.BpeTrainer(vocab_size=size, limit_alphabet=size // 4, show_progress=False)
    tokenizer.train_from_iterator(corpus(rng, words), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    return pieces, [tuple(pair) for pair in model["merges"]]


def fill(rng, pieces, merges, size, cross):
    known = set(pieces)
    while len(pieces) < size:
        left, right = rng.choice(pieces), rng.choice(pieces)
        joined = left + right
        crosses = MARK in joined.lstrip(MARK) or ("\n" in joined and joined.strip("\n"))
        if joined in known or len(joined) > 16 or (crosses and not cross):
            continue
        known.add(joined)
        pieces.append(joined)
        merges.append((left, right))


def fill_with_parts(rng, pieces, merges, size):
    """All parts of made-up words, so that most entries can be made in several ways."""
    letters = [piece for piece in pieces if len(piece) == 1 and piece.isalpha()][:60]
    known = set(pieces)
    while len(pieces) < size:
        word = "".join(rng.choices(letters, k=6))
        for length in range(2, len(word) + 1):
            for begin in range(len(word) + 1 - length):
                part = word[begin:begin + length]
                if part in known or len(pieces) == size:
                    continue
                known.add(part)
                pieces.append(part)
                merges.append((part[:-1], part[-1]))


def add_merges(rng, pieces, merges, count):
    """Other ways to the same entries, as the published vocabulary has two for each."""
    known, there = set(pieces), set(merges)
    others = [(piece[:i], piece[i:]) for piece in pieces for i in range(1, len(piece))
              if piece[:i] in known and piece[i:] in known and (piece[:i], piece[i:]) not in there]
    if len(merges) + len(others) < count:
        raise SystemExit(f"only {len(merges) + len(others)} merges make these entries")
    merges += rng.sample(others, max(0, count - len(merges)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path, help="folder that gets tokenizer.json")
    parser.add_argument("--size", type=int, default=262144)
    parser.add_argument("--trained", type=int, default=60000, help="entries that are trained")
    parser.add_argument("--merges", type=int, default=0, help="as many at least")
    parser.add_argument("--words", type=int, default=200000, help="made-up words to train on")
    parser.add_argument("--cross", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    rng = random.Random(flags.seed)
    fixed = ADDED + BYTES
    room = flags.size - len(fixed)
    pieces, merges = trained(rng, min(flags.trained, room), flags.words)
    if flags.merges > 0:
        fill_with_parts(rng, pieces, merges, (len(pieces) + room) // 2)
    fill(rng, pieces, merges, room, flags.cross)
    add_merges(rng, pieces, merges, flags.merges)
    replace = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}
    content = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for i, text in enumerate(ADDED)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": MARK},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                          "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Sequence",
                    "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {text: i for i, text in enumerate(fixed + pieces)},
                  "merges": [list(pair) for pair in merges]}}
    flags.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, ensure_ascii=False, indent=None if flags.size < 10000 else 1)
    Tokenizer.from_str(text)
    (flags.out / "tokenizer.json").write_text(text, encoding="utf-8")
    print(f"{len(fixed) + len(pieces)} entries, {len(merges)} merges")


if __name__ == "__main__":
    main()
