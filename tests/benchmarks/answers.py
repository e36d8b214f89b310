"""What is left of the answers of networks of all kinds, in the words of their tasks, on samples that nothing has seen.

A row a run is added to ``docs/answers_left.csv``; CALIBRATE and TEST are SPECs, OPTIONS are options of a plan as
name=value, by default those of ``onnxprune prune --calibrate``.

    python -m tests.benchmarks.answers MODEL.onnx CALIBRATE TEST [OPTIONS] [--reduce 0.5] [--task segmentation]
    python -m tests.benchmarks.answers --pages FOLDER
    python -m tests.benchmarks.answers --crops FOLDER PNET.onnx PICTURES TEST_PICTURES [--side 24]

The second form renders pages of text for a detector of text, from the documentation of this system: those of every
other document into FOLDER/calibrate, the others into FOLDER/test. The third cuts what the first network of mtcnn
proposes (and as many places at random) from pictures, for the networks that refine that.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont

import onnxprune
from onnxprune.data.fidelity import measure_fidelity
from onnxprune.data.samples import collect
from onnxprune.passes.normalize import normalize
from tests.benchmarks.rows import add_row
from tests.benchmarks.sentences import sentences

ROWS = Path("docs/answers_left.csv")
DOCS, FONTS = Path("/usr/share/doc"), Path("/usr/share/fonts/truetype")
PAGES, SIDE = {"calibrate": 640, "test": 64}, 480


def render(folder: Path) -> None:
    """Pages of text in several fonts, sizes, colours and places."""
    files = sentences(DOCS)
    fonts = sorted(FONTS.rglob("*.ttf"))
    for place, (part, count) in enumerate(PAGES.items()):
        (folder / part).mkdir(parents=True, exist_ok=True)
        chance = random.Random(place)
        texts = [text for file in files[place::2] for text in file]
        for number in range(count):
            light = chance.random() < 0.8
            paper, ink = ((chance.randint(200, 255), chance.randint(0, 90)), (30, 220))[not light]
            page = Image.new("RGB", (SIDE, SIDE), (paper,) * 3)
            draw = ImageDraw.Draw(page)
            top = chance.randint(5, 60)
            while top < SIDE - 20:
                font = ImageFont.truetype(str(chance.choice(fonts)), size := chance.randint(12, 34))
                words, left = chance.choice(texts).split(), chance.randint(5, 120)
                line = " ".join(words[: chance.randint(1, 8)])
                draw.text((left, top), line, font=font, fill=(ink,) * 3)
                top += int(size * chance.uniform(1.3, 2.6))
            page.save(folder / part / f"{number:03}.png")


def cut(folder: Path, pnet: Path, pictures: dict[str, Path], side: int) -> None:
    """Crops as mtcnn gives them to its second and third network: transposed, of what the first one finds likely."""
    session = onnxruntime.InferenceSession(pnet)
    (given,) = session.get_inputs()
    for part, source in pictures.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        chance = np.random.default_rng(0)
        for file in sorted(source.iterdir()):
            image = Image.open(file).convert("RGB")
            boxes = []
            for size in (24, 48, 96, 160):
                scale = 12 / size
                small = image.resize([max(round(extent * scale), 12) for extent in image.size])
                x = (np.asarray(small, dtype=np.float32).transpose(1, 0, 2)[None] - 127.5) / 128
                likely = session.run(None, {given.name: x})[1][0, :, :, 1]
                left, top = np.unravel_index(likely.argmax(), likely.shape)
                boxes.append((float(likely.max()), 2 * left / scale, 2 * top / scale, size))
            found = [box[1:] for box in sorted(boxes)[-2:]]
            for left, top, size in [*found, *((*chance.uniform(0, 200, 2), chance.uniform(24, 128)) for _ in range(1))]:
                view = image.crop((int(left), int(top), int(left + size), int(top + size))).resize((side, side))
                name = f"{file.stem}_{int(left)}_{int(top)}_{int(size)}.png"
                view.transpose(Image.Transpose.TRANSPOSE).save(folder / part / name)


def main() -> None:
    """Run one case, and add its row; or render pages, or cut crops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("calibrate", nargs="?")
    parser.add_argument("test", nargs="?")
    parser.add_argument("options", nargs="*", help="of the plan, name=value")
    parser.add_argument("--reduce", type=float, default=0.5)
    parser.add_argument("--samples", type=int, default=512, help="to fit to")
    parser.add_argument("--learn", type=int, help="samples that a recovery learns from, if not the same")
    parser.add_argument("--batch", type=int, help="samples per step, if not what the model's cost says")
    parser.add_argument("--task", default="auto")
    parser.add_argument("--recover", action="store_true")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--pages", type=Path)
    parser.add_argument("--crops", type=Path)
    parser.add_argument("--side", type=int, default=24)
    given = parser.parse_intermixed_args()
    if given.pages is not None:
        render(given.pages)
        return
    if given.crops is not None:
        cut(
            given.crops,
            given.model,
            dict(zip(PAGES, map(Path, (given.calibrate, given.test)), strict=True)),
            given.side,
        )
        return
    options: dict[str, Any] = dict(text.split("=", 1) for text in given.options)
    model = onnxprune.load(given.model)
    begin, used = time.perf_counter(), time.process_time()
    learnt = collect(given.calibrate, normalize(model), given.learn or given.samples)
    fit = learnt.first(given.samples)
    made = onnxprune.compress(model, reduce=given.reduce, calibration=fit, certify=False, task=given.task, **options)
    result, steps = made.model, 0
    if given.recover:
        taught = onnxprune.recover(
            result, model, learnt, plan=made.plan, minutes=given.minutes, task=given.task, batch_size=given.batch
        )
        result, steps = taught.model, taught.states[taught.kept].step
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    left = measure_fidelity(model, result, collect(given.test, normalize(model), 1 << 20), task=given.task)
    for said in left.answers:
        row = {
            "model": given.model.stem,
            "removed": f"{1 - made.plan.after['flops'] / made.plan.before['flops']:.3f}",
            "options": " ".join([*given.options, *(["recovered"] if given.recover else [])]) or "default",
            "steps": steps,
            "outputs": " ".join(said.outputs),
            "task": said.task,
            "share": f"{said.share:.3f}",
            "figures": " ".join(f"{name}={value:.3f}" for name, value in said.figures.items()),
            "samples": left.samples,
            "seconds": f"{seconds:.0f}",
            "processor": f"{used:.0f}",
        }
        add_row(ROWS, row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
