"""A sentence encoder pruned without labels: how close its embeddings stay, on sentences that calibration has not seen.

Sentences come from documentation (README, NEWS and text files below DOCS, packed or not); those of every other file
calibrate, those of the rest judge. Rows are appended to ``docs/sentences.csv``.

    python -m tests.benchmarks.sentences MODEL.onnx TOKENIZER.json DOCS [OPTIONS] [--reduce 0.3] [--recover]

A recovery learns from all sentences of the calibrating side, of which the fit sees some (``--samples``).

MODEL takes ``input_ids`` and ``attention_mask`` [N, L] and gives embeddings [N, D]; OPTIONS are options of a plan as
name=value, by default those of ``onnxprune prune --calibrate``. Takes the package ``tokenizers``.
"""

from __future__ import annotations

import argparse
import gzip
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxprune
from onnxprune.data.fidelity import outputs_of
from onnxprune.data.samples import Samples
from tests.benchmarks.rows import add_row

ROWS = Path("docs/sentences.csv")
_FILES = re.compile(r"(README|NEWS|TODO|FAQ).*|.*\.(txt|md|rst)(\.gz)?", re.IGNORECASE)
_SENTENCE = re.compile(r"[A-Z][^.!?]{30,300}[.!?]")
_PER_FILE = 20


def sentences(folder: Path) -> list[list[str]]:
    """Sentences by file, at most so many of each, none twice."""
    known: set[str] = set()
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and _FILES.fullmatch(path.name)):
        raw = file.read_bytes()
        try:
            text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode("utf-8", "ignore")
        except OSError:
            continue
        own = [" ".join(match.split()) for match in _SENTENCE.findall(text)]
        fresh = [text for text in dict.fromkeys(own) if text not in known][:_PER_FILE]
        known.update(fresh)
        if fresh:
            found.append(fresh)
    return found


def tokens(texts: list[str], tokenizer: Path, length: int) -> Samples:
    """Token numbers and masks, [N, length]."""
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(tokenizer))
    reader.enable_truncation(length)
    reader.enable_padding(length=length)
    read = reader.encode_batch(texts)
    arrays: dict[str, NDArray[Any]] = {
        "input_ids": np.array([one.ids for one in read], dtype=np.int64),
        "attention_mask": np.array([one.attention_mask for one in read], dtype=np.int64),
    }
    return Samples(arrays, None, 16)


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def main() -> None:
    """Run one case, and add its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("docs", type=Path)
    parser.add_argument("--reduce", type=float, default=0.3)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--recover", action="store_true")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("options", nargs="*", help="of the plan, name=value")
    given = parser.parse_intermixed_args()
    options = {name: _value(value) for name, _, value in (text.partition("=") for text in given.options)}
    files = sentences(given.docs)
    rng = np.random.default_rng(0)
    sides = []
    for part, count in ((files[0::2], None), (files[1::2], 512)):
        texts = [text for file in part for text in file]
        sides.append(tokens([texts[i] for i in rng.permutation(len(texts))[:count]], given.tokenizer, given.length))
    learnt, others = sides
    fit = learnt.first(given.samples)
    model = onnxprune.load(given.model)
    begin = time.perf_counter()
    made = onnxprune.compress(model, reduce=given.reduce, calibration=fit, certify=False, **options)
    result, steps = made.model, 0
    if given.recover:
        taught = onnxprune.recover(result, model, learnt, plan=made.plan, minutes=given.minutes)
        result, steps = taught.model, taught.states[taught.kept].step
    seconds = time.perf_counter() - begin
    before, after = (next(iter(outputs_of(m, others, "a model").values())) for m in (model, result))
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosine = (before * after).sum(axis=1) / lengths
    # The nearest other sentence, of each sentence.
    nearest = [(e @ e.T - 9 * np.eye(len(e))).argmax(axis=1) for e in (before, after)]
    row = {
        "model": given.model.stem,
        "removed": f"{1 - made.plan.after['flops'] / made.plan.before['flops']:.3f}",
        "options": " ".join(given.options) or "default",
        "samples": len(learnt if given.recover else fit),
        "steps": steps,
        "cosine": f"{cosine.mean():.4f}",
        "worst": f"{cosine.min():.4f}",
        "same_neighbour": f"{np.mean(nearest[0] == nearest[1]):.3f}",
        "sentences": len(others),
        "seconds": f"{seconds:.0f}",
    }
    add_row(ROWS, row)
    print(row, flush=True)


if __name__ == "__main__":
    main()
