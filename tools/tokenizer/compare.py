#!/usr/bin/env python3
"""Compares `lapidary tokenize` with the `tokenizers` package on random strings, line by line.

--goldens FILE writes the package's answers for a few of them instead (nothing of ours runs).
Needs the `tokenizers` package.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys

from tokenizers import Tokenizer

RANGES = [(0x20, 0x7F), (0x20, 0x7F), (0x4E00, 0x5200), (0x410, 0x450), (0xC0, 0x180),
          (0x300, 0x340), (0x1F5F0, 0x1F650), (0x2570, 0x2590), (0xE000, 0xE020), (0x1, 0x20),
          (0xAC00, 0xAC80), (0x10000, 0x10FFF), (0xFFF0, 0xFFFE), (0x600, 0x680)]
MARKS = [" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u2581", "\u00a0", "\u200d", "\ufe0f", "\u3000"]


def random_text(rng, words, added):
    parts = []
    for _ in range(rng.choice((1, 3, 8, 20))):
        kind = rng.randrange(9)
        if kind < 3:
            parts.append(rng.choice(("", " ", "  ", "\n")) + rng.choice(words))
        elif kind == 3:
            parts.append(rng.choice(MARKS) * rng.choice((1, 1, 2, 5, 33)))
        elif kind == 4:
            parts.append(rng.choice(added))
        elif kind == 5:
            parts.append(rng.choice(added)[:rng.randint(1, 6)])
        elif kind == 6:
            parts.append(str(rng.randrange(10 ** rng.randint(1, 12))))
        elif kind == 7:
            low, high = rng.choice(RANGES)
            parts.append("".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 40))))
        else:
            data = bytes(rng.randrange(256) for _ in range(rng.randint(1, 12)))
            parts.append(data.decode("utf-8", "ignore"))
    return "".join(parts)


def ours(program, folder, lines, *flags):
    done = subprocess.run([program, "tokenize", "--model", str(folder), *flags],
                          input="".join(line + "\n" for line in lines).encode(),
                          stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]


def all_runs_valid(reference, ids):
    """Whether every run of byte tokens is valid UTF-8: only there must the decoders agree."""
    run = b""
    for i in ids + [-1]:
        text = reference.id_to_token(i) if i >= 0 else None
        if text is not None and len(text) == 6 and text.startswith("<0x"):
            run += bytes([int(text[3:5], 16)])
            continue
        try:
            run.decode()
        except UnicodeDecodeError:
            return False
        run = b""
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="folder with tokenizer.json")
    parser.add_argument("--program", default="build/lapidary")
    parser.add_argument("--count", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--goldens", type=pathlib.Path)
    flags = parser.parse_args()
    reference = Tokenizer.from_file(str(flags.folder / "tokenizer.json"))
    rng = random.Random(flags.seed)
    texts_of_debian = [path.read_text(errors="replace") for path in
                       sorted(pathlib.Path("/usr/share/common-licenses").iterdir())]
    words = sorted(set(" ".join(texts_of_debian).split()))
    words += [text.replace("\u2581", " ") for text in list(reference.get_vocab())[:2000]]
    added = [token.content for token in reference.get_added_tokens_decoder().values()]
    texts = [random_text(rng, words, added) for _ in range(flags.count)]
    expected = [encoding.ids for encoding in reference.encode_batch(texts, add_special_tokens=False)]
    if flags.goldens:
        with flags.goldens.open("w", encoding="utf-8") as file:
            for text, ids in zip(texts, expected):
                line = {"text": text, "ids": ids, "skipped": reference.decode(ids)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return 0
    got = ours(flags.program, flags.folder, [json.dumps(t) for t in texts], "--json")
    wrong = [i for i in range(len(texts)) if i >= len(got) or got[i] != expected[i]]
    for i in wrong[:5]:
        print(f"encode differs: {texts[i]!r}\n  expected {expected[i]}\n  got {got[i:i + 1]}")
    size = reference.get_vocab_size()
    lists = expected[:flags.count // 2]
    lists += [[rng.randrange(size) for _ in range(rng.randint(1, 20))]
              for _ in range(flags.count // 2)]
    lists = [ids for ids in lists if all_runs_valid(reference, ids)]
    decoded = ours(flags.program, flags.folder, [json.dumps(ids) for ids in lists], "--decode")
    texts_back = reference.decode_batch(lists, skip_special_tokens=False)
    wrong_back = [i for i in range(len(lists)) if i >= len(decoded) or decoded[i] != texts_back[i]]
    for i in wrong_back[:5]:
        print(f"decode differs: {lists[i]}\n  expected {texts_back[i]!r}\n  got {decoded[i:i + 1]}")
    print(f"encode: {len(texts)} texts, {len(wrong)} differ; "
          f"decode: {len(lists)} lists, {len(wrong_back)} differ")
    return 1 if wrong or wrong_back or len(got) != len(texts) else 0


if __name__ == "__main__":
    sys.exit(main())
