"""The parts of ``onnxprune split`` in two processes, joined by ZeroMQ, over a link that is as slow as you say.

    python examples/split/split_zmq.py cloud FOLDER --port 5555 --link 10e6 0.02
    python examples/split/split_zmq.py edge FOLDER --port 5555 --link 10e6 0.02 --runs 50

FOLDER is what ``onnxprune split MODEL -o FOLDER`` wrote. Needs onnxruntime, numpy and pyzmq, and nothing of onnxprune.
Both processes may run on one machine: a token bucket lets bytes go at the link's rate, and a message is looked at when
the link's delay has passed. On two machines, leave --link out and give the cloud's address.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import zmq

CHUNK = 1 << 12
"""Bytes that the bucket holds, and that go at once."""


class Link:
    """Bits per second and seconds of delay, each way; without them, what the network does."""

    def __init__(self, socket: Any, rate: float | None, delay: float) -> None:
        self._socket, self._rate, self._delay = socket, rate, delay

    def send(self, message: bytes) -> None:
        """Send a message in pieces, each when the bucket has its bytes."""
        due = time.perf_counter()
        pieces = range(0, max(len(message), 1), CHUNK)
        for start in pieces:
            piece = message[start : start + CHUNK]
            if self._rate is not None:
                due += 8 * len(piece) / self._rate
                time.sleep(max(due - time.perf_counter(), 0.0))
            last = start == pieces[-1]
            stamp = json.dumps({"sent": time.perf_counter(), "last": last}).encode()
            self._socket.send_multipart([stamp, piece])

    def receive(self) -> bytes:
        """The next message, not before its last piece can have arrived."""
        pieces = []
        while True:
            stamp, piece = self._socket.recv_multipart()
            pieces.append(piece)
            said = json.loads(stamp)
            if said["last"]:
                if self._rate is not None:
                    time.sleep(max(said["sent"] + self._delay - time.perf_counter(), 0.0))
                return b"".join(pieces)


class Part:
    """One part of the folder: a session of onnxruntime with one thread."""

    def __init__(self, folder: Path, place: int) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.entry = self.manifest["parts"][place]
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(str(folder / self.entry["file"]), options)
        self.outputs = [value["name"] for value in self.entry["outputs"]]

    def run(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """What the part makes of the arrays that it reads."""
        feed = {value["name"]: arrays[value["name"]] for value in self.entry["inputs"]}
        return dict(zip(self.outputs, self._session.run(self.outputs, feed), strict=True))


def packed(arrays: dict[str, Any]) -> bytes:
    """Arrays as one message: a line that tells names, types and shapes, then their bytes."""
    head = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    return json.dumps(head).encode() + b"\n" + b"".join(array.tobytes() for array in arrays.values())


def unpacked(message: bytes) -> dict[str, Any]:
    """The arrays of a message."""
    head, _, body = message.partition(b"\n")
    found, start = {}, 0
    for name, kind, shape in json.loads(head):
        count = int(np.prod(shape)) * np.dtype(kind).itemsize
        found[name] = np.frombuffer(body[start : start + count], kind).reshape(shape)
        start += count
    return found


def cloud(folder: Path, address: str, link: Sequence[float] | None) -> None:
    """Run the tail for whoever asks, until an empty message comes."""
    part = Part(folder, 1)
    socket = zmq.Context().socket(zmq.PAIR)
    socket.bind(address)
    wire = Link(socket, *(link or (None, 0.0)))
    while message := wire.receive():
        wire.send(packed(part.run(unpacked(message))))


def edge(folder: Path, address: str, link: Sequence[float] | None, runs: int) -> list[float]:
    """Run the head, have the cloud run the rest, and take the time from input to answer."""
    part = Part(folder, 0)
    socket = zmq.Context().socket(zmq.PAIR)
    socket.connect(address)
    wire = Link(socket, *(link or (None, 0.0)))
    given = part.manifest["model"]["inputs"]
    rng = np.random.default_rng(0)
    inputs = {
        value["name"]: rng.standard_normal([d if isinstance(d, int) else 1 for d in value["shape"]]).astype(np.float32)
        for value in given
    }
    wanted = {value["name"] for value in part.manifest["parts"][1]["inputs"]}
    taken = []
    for _ in range(runs + 3):
        begin = time.perf_counter()
        known = {**inputs, **part.run(inputs)}
        wire.send(packed({name: array for name, array in known.items() if name in wanted}))
        unpacked(wire.receive())
        taken.append(time.perf_counter() - begin)
    wire.send(b"")
    return taken[3:]


def main() -> None:
    """Be the edge or the cloud."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=["edge", "cloud"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", help="the cloud's address; the cloud itself listens on all", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5555)
    parser.add_argument("--link", type=float, nargs=2, metavar=("BITS", "SECONDS"), help="rate and delay, each way")
    parser.add_argument("--runs", type=int, default=50)
    said = parser.parse_args()
    if said.side == "cloud":
        cloud(said.folder, f"tcp://*:{said.port}", said.link)
        return
    taken = edge(said.folder, f"tcp://{said.host}:{said.port}", said.link, said.runs)
    quartiles = statistics.quantiles(taken, n=4)
    figures = {"median": statistics.median(taken), "lower": quartiles[0], "upper": quartiles[2], "fastest": min(taken)}
    print(json.dumps({**figures, "runs": said.runs}))


if __name__ == "__main__":
    main()
