"""What is to run a model, and how: the runtime, threads and provider."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxprune.errors import MeasurementError, UsageError
from onnxprune.ir.runtimes import ONNXRUNTIME, Session, runtime
from onnxprune.ir.session import first_line

_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class Engine:
    """The settings that a latency holds for.

    Attributes:
        threads: threads inside one operator (0: as many as the runtime likes).
        inter_threads: operators that run at the same time; 1 is one after the other.
        provider: onnxruntime's execution provider.
        runtime: ``onnxruntime``, or another of :func:`onnxprune.ir.runtimes.names`; those know neither of the latter.
    """

    threads: int = 1
    inter_threads: int = 1
    provider: str = _PROVIDER
    runtime: str = ONNXRUNTIME

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise UsageError(f"threads must not be negative: {self.threads}")
        if self.inter_threads < 1:
            raise UsageError(f"inter_threads must be at least 1, not {self.inter_threads}")
        if self.runtime != ONNXRUNTIME:
            runtime(self.runtime)  # there is one, and it is installed
            if self.inter_threads != 1 or self.provider != _PROVIDER:
                raise UsageError(f"providers and inter_threads are onnxruntime's; {self.runtime} has neither")

    def __str__(self) -> str:
        threads = "all threads" if not self.threads else "1 thread" if self.threads == 1 else f"{self.threads} threads"
        also = "" if self.inter_threads == 1 else f" ({self.inter_threads} operators at a time)"
        return f"{threads}{also}, {self.kernels}"

    @property
    def kernels(self) -> str:
        """Whose kernels run: the provider of onnxruntime, or the name of another runtime."""
        return self.provider if self.runtime == ONNXRUNTIME else self.runtime

    @property
    def profiles(self) -> bool:
        """Whether the runtime tells the time of single nodes."""
        return self.runtime == ONNXRUNTIME or runtime(self.runtime).profiles

    def version(self) -> str:
        """The runtime's version."""
        if self.runtime != ONNXRUNTIME:
            return runtime(self.runtime).version()
        import onnxruntime

        return str(onnxruntime.__version__)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data."""
        return asdict(self)

    def require(self) -> None:
        """Raise UsageError where there is no such runtime here, or it does not have the provider."""
        if self.runtime != ONNXRUNTIME:
            runtime(self.runtime)
            return
        import onnxruntime as ort

        known = ort.get_available_providers()
        if self.provider not in known:
            raise UsageError(f"onnxruntime has no {self.provider} here; choose one of {', '.join(known)}")

    def session(
        self,
        source: str | os.PathLike[str] | bytes,
        *,
        trace: Path | None = None,
        optimised: Path | None = None,
    ) -> Any:
        """A file or a serialised model, ready for ``run(None, inputs)``: an InferenceSession of onnxruntime, or what
        another runtime makes of it, which compiles it when it sees the first inputs.

        Args:
            source: the file or the message.
            trace: prefix of the file that onnxruntime's profiler writes, if it is wanted. Other runtimes just profile.
            optimised: where onnxruntime writes the graph that it runs (weights beside it), if it is wanted.

        Raises:
            UsageError: this onnxruntime does not have the provider.
            MeasurementError: it does not load the model.
        """
        if self.runtime != ONNXRUNTIME:
            message = source if isinstance(source, bytes) else Path(source)
            return Session(runtime(self.runtime), message, self.threads, profile=trace is not None)
        import onnxruntime as ort

        self.require()
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = self.threads
        if self.inter_threads > 1:
            options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
            options.inter_op_num_threads = self.inter_threads
        # Threads of one session that wait busily for more work would take the processor from the next one's.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if trace is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(trace)
        if optimised is not None:
            options.optimized_model_filepath = str(optimised)
            told = "session.optimized_model_external_initializers"
            options.add_session_config_entry(f"{told}_file_name", f"{optimised.name}.data")
            options.add_session_config_entry(f"{told}_min_size_in_bytes", "64")
        try:
            return ort.InferenceSession(
                source if isinstance(source, bytes) else os.fspath(source), options, providers=[self.provider]
            )
        except Exception as error:
            what = "the model" if isinstance(source, bytes) else os.fspath(source)
            raise MeasurementError(f"onnxruntime does not load {what}: {first_line(error)}") from error
