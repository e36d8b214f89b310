"""Training a pruned model to compute what the original computes, at its outputs and at the ends of its blocks."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from onnxprune.data.logits import head_of, without_ending
from onnxprune.data.samples import Samples
from onnxprune.data.tasks import AUTO
from onnxprune.errors import TrainingError, UsageError, VerificationError
from onnxprune.ir.cuts import cut_tensors, without_parameters
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ir.session import Session
from onnxprune.ir.shapes import infer_shapes
from onnxprune.passes.normalize import normalize
from onnxprune.torch.module import OnnxModule, to_module
from onnxprune.torch.outputs import giving
from onnxprune.torch.recovery.checkpoints import Checkpoint, Standing, load, remove, save
from onnxprune.torch.recovery.drawing import Draws
from onnxprune.torch.recovery.likeness import Likeness, Measure, likenesses, relative
from onnxprune.torch.training.batching import any_batch
from onnxprune.torch.training.kernels import channels_last
from onnxprune.torch.training.precision import learning_precision, leave_strided
from onnxprune.torch.writing import write_back

#: Ends of blocks that are compared, at most.
_MOST_CUTS = 16
#: Evaluations over the whole time, and the time between them at most, in seconds.
_EVALUATIONS, _AT_MOST_BETWEEN = 20, 60.0
#: Steps over which the learning rate rises, while Adam learns how large gradients are.
_WARM_UP = 50
#: The batch that the learning rate is for; gradients of others are noisier or calmer by the square root.
_USUAL_BATCH = 16
#: The size of a tensor of zeros.
_LEAST_SIZE = 1e-3
#: What lies before the last tensor that errs by so little of what the worst one does is left as it is.
_SETTLED = 0.1
#: Samples that say so.
_LOOKED_AT = 32
#: A loss this many times the first one is a training that has come apart.
_TORN = 1e3


@dataclass(frozen=True)
class Teaching:
    """How to recover.

    Attributes:
        minutes: the time there is; evaluations count.
        steps: or so many steps, whatever the time: the same arguments then give the same result.
        augment: of ``crop``, ``flip``, ``mix``, what is done with images.
        lr: the highest learning rate of Adam, as a share of how large the values of a tensor are, for batches of 16;
            for others it goes with the square root of their size.
        batch_size: samples per step.
        blocks: the share of the time in which each block learns by itself.
        average: of the averaged weights, how much is kept in a step.
        patience: evaluations without improvement after which it ends.
        seed: of order and augmentation.
    """

    minutes: float = 10.0
    steps: int | None = None
    augment: frozenset[str] = frozenset(("crop", "flip", "mix"))
    lr: float = 1e-3
    batch_size: int = 16
    blocks: float = 0.05
    average: float = 0.98
    patience: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.minutes > 0 or (self.steps is not None and self.steps < 1):
            raise UsageError("recovery takes some time, or at least one step")


@dataclass(frozen=True)
class State:
    """Where recovery stands: steps and seconds, and on the samples held out what is lost of the outputs.

    ``damage`` is, of the worst output, what ``measure`` says: the mean KL divergence of class probabilities, for
    embeddings one less the mean cosine, for other outputs the squared error over the variance; ``agreement`` the share
    with the original's class, None where there are no classes.
    """

    step: int
    seconds: float
    left: float
    damage: float
    agreement: float | None
    measure: Measure = "error"


@dataclass(frozen=True)
class Followed:
    """The recovered model, the states that were measured (the first before any step), and which of them is kept.

    ``interrupted`` tells that somebody ended it.
    """

    model: Model
    states: tuple[State, ...]
    kept: int
    blocks: tuple[str, ...]
    interrupted: bool = False


def follow(
    student: Model,
    teacher: Model,
    removed: Mapping[str, Mapping[int, Sequence[int]]],
    samples: Samples,
    held_out: Samples,
    how: Teaching,
    progress: Callable[[State], None] | None = None,
    checkpoint: Checkpoint | None = None,
    task: str = AUTO,
) -> Followed:
    """Let the original teach the pruned model.

    The result is the best that was measured on ``held_out``, which may be the model as it came. An interruption
    (Ctrl-C) ends it early, with what is best until then.

    Args:
        student: the pruned model.
        teacher: the original.
        removed: the positions that are gone, by tensor and dimension.
        samples: to learn from.
        held_out: to choose by.
        how: time and method.
        progress: called after each evaluation.
        checkpoint: the file that each evaluation is kept in, and that an interruption leaves; the end removes it.
        task: what the outputs say, which decides how they are compared; ``auto`` looks at the original's.

    Raises:
        CheckpointError: the file is missing, damaged, of another recovery, or cannot be written.
        ConversionError: the pruned model has operators that PyTorch has no converter for.
        TrainingError: there are too few samples, or training has come apart.
        VerificationError: onnxruntime does not run the original, or outputs are not those of the pruned model.
    """
    if len(samples) < 2 or not len(held_out):
        raise TrainingError(
            f"recovery takes more samples than {len(samples)} to learn from and {len(held_out)} to choose by"
        )
    lesson = _Lesson.of(student, teacher, removed, samples, task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        return _Run(student, lesson, samples, held_out, how).result(progress, checkpoint)


@dataclass(frozen=True)
class _Lesson:
    """The student's module and the teacher's session, which give the same tensors: the outputs, then ends of blocks.

    The module ``takes`` the graph's inputs, or what the student gives at the end of the blocks that need not learn
    (``before``): what lies before it costs a fraction there of what training it does.
    """

    module: OnnxModule
    teacher: Session
    outputs: tuple[str, ...]
    cuts: tuple[str, ...]
    likeness: Mapping[str, Likeness]
    takes: tuple[str, ...]
    before: Session | None = None
    kept: Mapping[str, tuple[tuple[int, Tensor], ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        student: Model,
        teacher: Model,
        removed: Mapping[str, Mapping[int, Sequence[int]]],
        samples: Samples,
        task: str = AUTO,
    ) -> _Lesson:
        pupil, master = normalize(student), normalize(teacher)
        known = Graph(master, infer_shapes(master))
        shapes = known.shapes
        graph = Graph(pupil, infer_shapes(pupil))
        floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
        outputs = tuple(name for name in graph.outputs if graph.shapes.elem_types.get(name) in floats)
        extents = graph.shapes.extents
        if not outputs or any(extents.get(name) != shapes.extents.get(name) for name in outputs):
            raise VerificationError("the pruned model's outputs are not those of the original; is it another model?")
        likeness = likenesses(teacher, samples, outputs, task)

        def left(name: str) -> tuple[int, ...]:
            """What removals leave of the extents that the original has."""
            gone = removed.get(name, {})
            return tuple(extent - len(gone.get(dim, ())) for dim, extent in enumerate(shapes.extents[name]))

        # On maps of another resolution the original gives nothing to follow.
        cuts = tuple(
            name
            for name in cut_tensors(graph, _MOST_CUTS, without_parameters(graph))
            if name in shapes.extents
            and extents.get(name) == left(name)
            and graph.shapes.elem_types.get(name) in floats
        )
        for name, found in likeness.items():
            if found.ending is not None:
                pupil, master = (without_ending(m, head_of(m, name), (found.ending,)) for m in (pupil, master))
        kept = {
            name: tuple(
                (dim, torch.from_numpy(np.delete(np.arange(shapes.extents[name][dim]), list(gone))))
                for dim, gone in removed.get(name, {}).items()
            )
            for name in (*outputs, *cuts)
        }
        pupil, master = any_batch(pupil), any_batch(master)
        threads = torch.get_num_threads()
        # Depthwise convolutions are twice as fast with channels last.
        module = to_module(giving(pupil, outputs, cuts)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        leave_strided(module)
        session = Session(giving(master, outputs, cuts), "the original", threads=threads)
        lesson = cls(module, session, outputs, cuts, likeness, module.onnx_inputs, None, kept)
        settled = lesson._settled(samples)
        if not settled:
            return lesson
        entry, cuts = cuts[settled - 1], cuts[settled:]
        takes = _entered_at(module, len(outputs), settled, entry)
        session = Session(giving(master, outputs, cuts), "the original", threads=threads)
        before = Session(giving(pupil, (), (entry,)), "the pruned model", threads=threads)
        return cls(module, session, outputs, cuts, likeness, takes, before, kept)

    def _settled(self, samples: Samples) -> int:
        """How many blocks, from the first one, need not learn."""
        few = {name: array[:_LOOKED_AT] for name, array in samples.inputs.items()}
        with torch.no_grad():
            found = self.tried(self.module, self.entered(few))
        errors = [float(relative(got, target)) for got, target in zip(found, self.answers(few), strict=True)]
        inner = errors[len(self.outputs) :]
        small = _SETTLED * max(errors)
        return next((place for place, error in enumerate(inner) if not error <= small), len(inner))

    def entered(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """What the module takes, of these samples."""
        known = inputs if self.before is None else {**inputs, **self.before.run(inputs)}
        # A copy: what was read from a file may not be written to, and PyTorch warns of that.
        return {name: channels_last(torch.from_numpy(np.array(known[name]))) for name in self.takes}

    def prepared(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """What the module takes of these samples, and what it should give."""
        return self.entered(inputs), self.answers(inputs)

    def answers(self, inputs: Mapping[str, NDArray[Any]]) -> list[Tensor]:
        """What the teacher gives, at the positions that the student has."""
        found = self.teacher.run(inputs)
        result = []
        for name in (*self.outputs, *self.cuts):
            tensor = torch.from_numpy(np.asarray(found[name], dtype=np.float32))
            for dim, positions in self.kept[name]:
                tensor = tensor.index_select(dim, positions)
            result.append(channels_last(tensor))
        return result

    def tried(self, module: nn.Module, entered: Mapping[str, Tensor]) -> list[Tensor]:
        """What a student gives."""
        found = module(*(entered[name] for name in self.takes))
        return [x.float() for x in ([found] if isinstance(found, Tensor) else found)]


class _Run:
    def __init__(self, student: Model, lesson: _Lesson, samples: Samples, held_out: Samples, how: Teaching) -> None:
        self._student, self._lesson, self._how = student, lesson, how
        self._module = lesson.module
        self._gates = _gated(self._module, len(lesson.outputs))
        self._average = copy.deepcopy(self._module).requires_grad_(False)
        parameters = [p for p in self._module.parameters() if p.requires_grad]
        if not parameters:
            raise TrainingError("the pruned model has no weights that could learn")
        # Exporters fold scales of any size into weights: a step is a share of how large a tensor's values are.
        self._sizes = [max(float(p.detach().square().mean().sqrt()), _LEAST_SIZE) for p in parameters]
        self._optimizer = torch.optim.Adam([{"params": [p]} for p in parameters], lr=how.lr, fused=True)
        self._draws = Draws(
            samples, how.batch_size, how.augment, how.seed, lambda x: (lesson.entered(x), lesson.answers(x))
        )
        self._tests = [
            (lesson.entered(batch), [t.clone() for t in lesson.answers(batch)[: len(lesson.outputs)]])
            for batch in _batches(held_out, how.batch_size)
        ]

    def result(self, progress: Callable[[State], None] | None, checkpoint: Checkpoint | None = None) -> Followed:
        """Learn until the time is over, or nothing is gained any more."""
        how = self._how
        limit = how.minutes * 60
        if checkpoint is not None and checkpoint.resume:
            step, used, states, best, best_weights = self._gone_on(load(checkpoint), limit)
        else:
            step, used, states, best = 0, 0.0, [self._measured(0, 0.0, limit)], 0
            best_weights = copy.deepcopy(self._average.state_dict())
        begin = time.monotonic() - used
        first, last, pause = math.inf, used, min(limit / _EVALUATIONS, _AT_MOST_BETWEEN)
        interrupted = False
        if progress is not None:
            progress(states[-1])
        try:
            while True:
                seconds = time.monotonic() - begin
                done = step / how.steps if how.steps is not None else seconds / limit
                if step and (done >= 1 or seconds - last >= pause):
                    states.append(self._measured(step, seconds, limit - seconds))
                    last = time.monotonic() - begin
                    # Most of the time is for learning.
                    pause = max(min(limit / _EVALUATIONS, _AT_MOST_BETWEEN), 9 * (last - seconds))
                    if states[-1].damage < states[best].damage:
                        best, best_weights = len(states) - 1, copy.deepcopy(self._average.state_dict())
                    if checkpoint is not None:
                        save(checkpoint, self._standing(step, seconds, states, best, best_weights))
                    if progress is not None:
                        progress(states[-1])
                    # It is usual that the first steps lose what later ones gain: the start is no mark to measure by.
                    since = min(range(1, len(states)), key=lambda place: states[place].damage)
                    if done >= 1 or len(states) - 1 - since >= how.patience:
                        break
                loss = self._step(step, min(done, 1.0))
                first = min(first, loss)
                step += 1
                if not math.isfinite(loss) or loss > _TORN * max(first, 1e-6):
                    if best == 0:
                        raise TrainingError(f"the loss is {loss:g} after {step} steps; give a smaller learning rate")
                    break
            if checkpoint is not None:
                remove(checkpoint)
        except KeyboardInterrupt:
            interrupted = True
        self._module.load_state_dict(best_weights)
        return Followed(write_back(self._module, self._student), tuple(states), best, self._lesson.cuts, interrupted)

    def _standing(self, step: int, seconds: float, states: list[State], best: int, weights: dict[str, Any]) -> Standing:
        module, average, optimizer = (o.state_dict() for o in (self._module, self._average, self._optimizer))
        rng, order, turn = self._draws.stands()
        plain = [asdict(state) for state in states]
        return Standing(step, seconds, plain, best, weights, module, average, optimizer, rng, order, turn)

    def _gone_on(self, stood: Standing, limit: float) -> tuple[int, float, list[State], int, dict[str, Any]]:
        """Take up what was kept: the step, the seconds that it took, the states, the best of them and its weights."""
        self._module.load_state_dict(stood.module)
        self._average.load_state_dict(stood.average)
        self._optimizer.load_state_dict(stood.optimizer)
        self._draws.go_on(stood.rng, stood.order, stood.turn)
        states = [State(**state) for state in stood.states]
        states[-1] = replace(states[-1], left=max(limit - stood.seconds, 0.0))
        return stood.step, stood.seconds, states, stood.best, stood.best_weights

    def _step(self, number: int, done: float) -> float:
        how, lesson = self._how, self._lesson
        for gate in self._gates:
            gate.open = done >= how.blocks
        rate = how.lr * min(1.0, (number + 1) / _WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * done))
        rate *= math.sqrt(how.batch_size / _USUAL_BATCH)
        for group, size in zip(self._optimizer.param_groups, self._sizes, strict=True):
            group["lr"] = rate * size
        entered, wanted = self._draws.next()
        with learning_precision():
            found = lesson.tried(self._module, entered)
        loss = torch.zeros(())
        for name, got, target in zip(lesson.outputs, found, wanted, strict=False):
            loss = loss + lesson.likeness[name].loss(got, target)
        inner = list(zip(found, wanted, strict=True))[len(lesson.outputs) :]
        for got, target in inner:
            loss = loss + relative(got, target) / len(inner)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._module.parameters(), 1.0)
        self._optimizer.step()
        keep = min(how.average, (number + 1) / (number + 10))
        with torch.no_grad():
            mine = self._average.state_dict()
            for name, value in self._module.state_dict().items():
                if value.is_floating_point():
                    mine[name].lerp_(value, 1 - keep)
        return float(loss.detach())

    def _measured(self, step: int, seconds: float, left: float) -> State:
        lesson, count, same = self._lesson, 0, 0.0
        kinds = [lesson.likeness[name] for name in lesson.outputs]
        lost = np.zeros(len(kinds))
        with torch.no_grad():
            for batch, wanted in self._tests:
                found, size = lesson.tried(self._average, batch), len(wanted[0])
                count += size
                lost += [float(how.damage(*pair)) * size for how, *pair in zip(kinds, found, wanted, strict=False)]
                if kinds[0].measure == "KL":
                    same += float(kinds[0].agreement(found[0], wanted[0])) * size
        worst = int(lost.argmax())
        agreement = same / count if kinds[0].measure == "KL" else None
        return State(step, seconds, max(left, 0.0), float(lost[worst]) / count, agreement, kinds[worst].measure)


class _Gate(nn.Module):
    """Between two blocks: what comes passes, and gradients go back where it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.open = True

    def forward(self, x: Tensor) -> Tensor:
        return x if self.open else x.detach()


def _entered_at(module: OnnxModule, outputs: int, settled: int, entry: str) -> tuple[str, ...]:
    """Let a module begin behind the first so many of its blocks, and give the ends of the others; what it takes."""
    graph = module.graph
    end = next(node for node in graph.nodes if node.op == "output")
    results = list(end.args[0])
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_before(placeholders[0]):
        given = graph.placeholder("onnxprune_entry")
    results[outputs + settled - 1].replace_all_uses_with(given)
    end.args = ((*results[:outputs], *results[outputs + settled :]),)
    graph.eliminate_dead_code()
    takes = [entry]
    for node, name in zip(placeholders, module.onnx_inputs, strict=True):
        if node.users:
            takes.append(name)
        else:
            graph.erase_node(node)
    used = {str(node.target) for node in graph.nodes if node.op in ("get_attr", "call_module")}
    for name, parameter in module.named_parameters():
        if name not in used and not any(name.startswith(f"{owner}.") for owner in used):
            parameter.requires_grad_(False)
    module.recompile()
    return tuple(takes)


def _gated(module: OnnxModule, outputs: int) -> list[_Gate]:
    """Put a gate behind every result but the first so many: the ends of blocks."""
    end = next(node for node in module.graph.nodes if node.op == "output")
    results = end.args[0]
    gates: list[_Gate] = []
    for place, node in enumerate(results[outputs:] if isinstance(results, (tuple, list)) else ()):
        gate, name = _Gate(), f"onnxprune_gate_{place}"
        module.add_submodule(name, gate)
        with module.graph.inserting_after(node):
            passed = module.graph.call_module(name, (node,))
        node.replace_all_uses_with(passed, delete_user_cb=lambda user, own=passed: user is not own and user is not end)
        gates.append(gate)
    module.recompile()
    return gates


def _batches(samples: Samples, size: int) -> list[dict[str, NDArray[Any]]]:
    return [
        {name: array[start : start + size] for name, array in samples.inputs.items()}
        for start in range(0, len(samples), size)
    ]
