"""One engine and one ONNX file: does it take it, and what does it compute?

    python worker.py ENGINE MODEL INPUTS OUTPUTS

It is run as a script, by interpreters that lack onnxprune (but for torch.compile). INPUTS and OUTPUTS are npz files
whose arrays stand in the order of the graph: what to run the model on, and what onnxruntime makes of it. The last
line printed is JSON: ``difference``, the largest one relative to the spread of an output, or ``error``.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]
Run = Callable[[], Sequence[Any]]
Engine = Callable[[str, Arrays, Sequence[str]], Run]


def openvino(path: str, inputs: Arrays, names: Sequence[str]) -> Run:
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    model.reshape({name: list(array.shape) for name, array in inputs.items()})
    # Else processors with bfloat16 or half precision round to these.
    precise = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    compiled = core.compile_model(model, "CPU", precise)
    return lambda: list(compiled(dict(inputs)).values())


def tvm(path: str, inputs: Arrays, names: Sequence[str]) -> Run:
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    shapes = {name: list(array.shape) for name, array in inputs.items()}
    types = {name: str(array.dtype) for name, array in inputs.items()}
    module = from_onnx(onnx.load(path), shapes, types, keep_params_in_input=False, sanitize_input_names=False)
    built = relax.build(module, target="llvm")
    machine = relax.VirtualMachine(built, tvm.cpu())

    def run() -> list[Any]:
        found = machine["main"](*(tvm.runtime.tensor(array) for array in inputs.values()))
        return [item.numpy() for item in ([found] if hasattr(found, "numpy") else found)]

    return run


def iree(path: str, inputs: Arrays, names: Sequence[str]) -> Run:
    import iree.compiler.tools as tools
    import iree.runtime as runtime

    with tempfile.TemporaryDirectory() as folder:
        mlir = Path(folder) / "model.mlir"
        importer = [sys.executable, "-m", "iree.compiler.tools.import_onnx", path, "-o", str(mlir)]
        _command([*importer, "--opset-version", "17"] if _opset(path) < 17 else importer)
        flags = ["--iree-llvmcpu-target-cpu=host", "--iree-input-type=onnx"]
        binary = tools.compile_file(str(mlir), target_backends=["llvm-cpu"], extra_args=flags)
    module = runtime.load_vm_flatbuffer(binary, driver="local-sync")
    exported = [name for name in module.vm_module.function_names if not name.startswith("__") and "$" not in name]
    function = getattr(module, exported[0])

    def run() -> list[Any]:
        found = function(*inputs.values())
        return [item.to_host() for item in (found if isinstance(found, (tuple, list)) else [found])]

    return run


def tract(path: str, inputs: Arrays, names: Sequence[str]) -> Run:
    import tract
    from tract.transform import SetSymbols

    model = tract.onnx().load(path)
    given = [model.input_name(at) for at in range(model.input_count())]
    kinds = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "float16": "f16", "bool": "bool"}
    symbols: dict[str, int] = {}
    for at, name in enumerate(given):
        array = inputs[name]
        # Where the file names an extent it may say so of inner tensors, too: then the name is given its value.
        named = dict(zip(str(model.input_fact(at)).split(",")[:-1], array.shape, strict=False))
        named = {key: extent for key, extent in named.items() if key.isidentifier()}
        symbols |= named
        if not named:
            model.set_input_fact(at, ",".join([*map(str, array.shape), kinds[str(array.dtype)]]))
    typed = model.into_model()
    if symbols:
        typed.transform(SetSymbols(symbols))
    runnable = typed.into_runnable()
    return lambda: [value.to_numpy() for value in runnable.run([inputs[name] for name in given])]


def ncnn(path: str, inputs: Arrays, names: Sequence[str]) -> Run:
    import ncnn

    folder = Path(path).parent / "ncnn"
    folder.mkdir(exist_ok=True)
    stem = folder / "model"
    shapes = ",".join(f"[{','.join(map(str, array.shape))}]{_PNNX[str(array.dtype)]}" for array in inputs.values())
    files = [f"{key}={stem}.{end}" for key, end in _PNNX_FILES.items()]
    printed = _command(
        [str(Path(sys.executable).with_name("pnnx")), path, f"inputshape={shapes}", "fp16=0", *files], str(folder)
    )
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    net.opt.num_threads = 1
    refused = [line for line in printed.splitlines() if "not supported" in line or "unsupported" in line.lower()]
    if net.load_param(f"{stem}.ncnn.param") or net.load_model(f"{stem}.ncnn.bin"):
        raise RuntimeError(refused[0] if refused else "ncnn does not load what pnnx wrote")

    def run() -> list[Any]:
        with net.create_extractor() as extractor:
            for at, array in enumerate(inputs.values()):
                # It knows no batches.
                extractor.input(f"in{at}", ncnn.Mat(np.ascontiguousarray(array[0] if array.ndim > 1 else array)))
            results = []
            for name in net.output_names():
                status, result = extractor.extract(name)
                if status:
                    raise RuntimeError(f"ncnn does not compute {name}" + (f": {refused[0]}" if refused else ""))
                results.append(np.array(result))
        return results

    return run


_PNNX = {"float32": "f32", "int64": "i64", "int32": "i32", "float16": "f16", "float64": "f64", "bool": "bool"}
_PNNX_FILES = {
    "pnnxparam": "pnnx.param",
    "pnnxbin": "pnnx.bin",
    "pnnxpy": "pnnx.py",
    "pnnxonnx": "pnnx.onnx",
    "ncnnparam": "ncnn.param",
    "ncnnbin": "ncnn.bin",
    "ncnnpy": "ncnn.py",
}


def mnn(path: str, inputs: Arrays, names: Sequence[str]) -> Run:
    # Not by its command mnnconvert: that installs a package which reports what was converted.
    import _tools
    from MNN import expr, nn

    converted = str(Path(path).with_suffix(".mnn"))
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", path, "--MNNModel", converted, "--bizCode", "x"])
    if not Path(converted).exists():
        raise RuntimeError("mnnconvert wrote nothing")
    config = nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": 1},))
    module = nn.load_module_from_file(converted, list(inputs), list(names), runtime_manager=config)
    kinds = {"float32": expr.float, "int32": expr.int, "int64": expr.int64}

    def run() -> list[Any]:
        given = [
            expr.const(np.ascontiguousarray(array), list(array.shape), expr.NCHW, kinds[str(array.dtype)])
            for array in inputs.values()
        ]
        found = module.forward(given)
        return [np.array(expr.convert(item, expr.NCHW).read()) for item in found]

    return run


def litert(path: str, inputs: Arrays, names: Sequence[str]) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    folder = Path(path).with_suffix(".litert")
    shapes = [f"{name}:{','.join(map(str, array.shape))}" for name, array in inputs.items()]
    # Not simplified by another package first, and with the inputs' axes as they are.
    options = ["-o", str(folder), "-n", "-nuo", "-ois", *shapes, "-kat", *inputs]
    _command([str(Path(sys.executable).with_name("onnx2tf")), "-i", path, *options])
    interpreter = Interpreter(str(folder / f"{Path(path).stem}_float32.tflite"), num_threads=1)
    slots = interpreter.get_input_details()
    given = _matched([slot["name"] for slot in slots], inputs)
    for slot, array in zip(slots, given, strict=True):
        interpreter.resize_tensor_input(slot["index"], array.shape)
    interpreter.allocate_tensors()
    for slot, array in zip(slots, given, strict=True):
        interpreter.set_tensor(slot["index"], array.astype(slot["dtype"]))

    def run() -> list[Any]:
        interpreter.invoke()
        outputs = sorted(interpreter.get_output_details(), key=lambda slot: place(slot["name"]))
        return [interpreter.get_tensor(slot["index"]) for slot in outputs]

    return run


def place(name: str) -> int:
    """Where an output of LiteRT stands in the graph: PartitionedCall:1 and Identity_1 are the second ones."""
    number = re.search(r"[:_](\d+)$", name)
    return int(number[1]) if number else 0


def _matched(slots: Sequence[str], inputs: Arrays) -> list[Any]:
    """The inputs in the order of their slots, which are named after them, more or less."""

    def plain(name: str) -> str:
        return "".join(character for character in name if character.isalnum())

    found = [[array for name, array in inputs.items() if plain(name) in plain(slot)] for slot in slots]
    if all(len(arrays) == 1 for arrays in found):
        return [arrays[0] for arrays in found]
    return list(inputs.values())


def torch(path: str, inputs: Arrays, names: Sequence[str]) -> Run:
    import torch

    from onnxprune.torch import to_module

    compiled = torch.compile(to_module(path).eval(), fullgraph=True)
    given = [torch.from_numpy(array) for array in inputs.values()]

    def run() -> list[Any]:
        with torch.no_grad():
            found = compiled(*given)
        return [item.numpy() for item in ([found] if isinstance(found, torch.Tensor) else found)]

    return run


def _opset(path: str) -> int:
    import onnx

    model = onnx.load(path, load_external_data=False)
    return max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)


def _command(command: Sequence[str], folder: str | None = None) -> str:
    """What a command prints. Raises RuntimeError where it fails, with the last error that it names."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        named = [line for line in lines if re.match(r"\w+(Error|Exception)\b", line)]
        raise RuntimeError((named or lines)[-1] if lines else f"{command[0]} ended with {done.returncode}")
    return done.stdout


ENGINES: Mapping[str, Engine] = {
    engine.__name__: engine for engine in (openvino, tvm, iree, tract, ncnn, mnn, litert, torch)
}


_SMALL = 1e-3
"""The least spread: near zero, onnxruntime's own sigmoid is off by 1.4e-7."""


def difference(wanted: Sequence[Any], found: Sequence[Any]) -> float:
    """The largest difference relative to the spread of an output; infinite where outputs are not the same ones."""
    if len(wanted) != len(found):
        return math.inf
    return max((_gap(np.asarray(a), np.asarray(b)) for a, b in zip(wanted, found, strict=True)), default=0.0)


def _gap(wanted: Any, found: Any) -> float:
    if wanted.ndim > 2 and found.shape != wanted.shape and found.shape == np.moveaxis(wanted, 1, -1).shape:
        found = np.moveaxis(found, -1, 1)  # the channels last
    # Some engines leave out the batch.
    if [n for n in wanted.shape if n != 1] != [n for n in found.shape if n != 1]:
        return math.inf
    if not wanted.size:
        return 0.0
    a, b = wanted.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    spread = max(float(a.max() - a.min()) or float(np.abs(a).max()), _SMALL)
    gap = float(np.abs(a - b).max()) / spread
    return gap if math.isfinite(gap) else math.inf


def read(path: str) -> dict[str, Any]:
    """The arrays of an npz file, in their order."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive}


def said(error: BaseException) -> str:
    """The line of an error that tells most: the last one of a stack, the first one else."""
    lines = [line.strip() for line in str(error).partition("Stack backtrace")[0].splitlines() if line.strip()]
    telling = [line for line in lines if ": error: " in line] or [
        line for line in lines if "rror" in line or "heck failed" in line or "nsupported" in line
    ]
    line = re.sub(re.escape(tempfile.gettempdir()) + r"/[^/]+/", "", (telling or lines or [""])[0])
    return f"{type(error).__name__}: {line.partition(': error: ')[2] or line}"[:300]


def main(engine: str, path: str, inputs: str, outputs: str) -> None:
    """Compile, run and compare."""
    answers, printed = os.dup(1), os.dup(2)
    os.dup2(printed, 1)  # what compilers print must not mix with the answer
    try:
        wanted = read(outputs)
        run = ENGINES[engine](str(Path(path).resolve()), read(inputs), list(wanted))
        answer: dict[str, Any] = {"difference": difference(list(wanted.values()), run())}
    except Exception as error:  # whatever an engine fails with is its answer
        answer = {"error": said(error)}
    os.write(answers, (json.dumps(answer) + "\n").encode())
    os._exit(0)  # some runtimes crash when they are taken down


if __name__ == "__main__":
    main(*sys.argv[1:])
