"""What became of every export: a line per attempt, and the list of the files that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def target(out: Path, exporter: str, family: str, name: str) -> Path:
    """The file in which an exported model lands."""
    return out / exporter / (f"timm_{name}.onnx" if family == "timm" else f"{name}.onnx")


def add_report(out: Path, report: dict[str, Any]) -> None:
    """Append what became of one export to DIR/report.jsonl, and bring DIR/manifest.json up to date."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "report.jsonl").open("a") as stream:
        stream.write(json.dumps(report) + "\n")
    _write_manifest(out)


def read_reports(out: Path) -> list[dict[str, Any]]:
    """All attempts, in order."""
    path = out / "report.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _write_manifest(out: Path) -> None:
    found: dict[str, dict[str, Any]] = {}
    for entry in read_reports(out):
        path = target(out, entry["exporter"], entry["family"], entry["name"])
        if entry["ok"] and path.exists():
            file = str(path.relative_to(out))
            kept = ("exporter", "opset", "family", "weights", "size", "megabytes")
            source = f"{entry['family']}:{entry['name']}"
            found[file] = {"file": file, "source": source, **{key: entry.get(key) for key in kept}}
    (out / "manifest.json").write_text(json.dumps(list(found.values()), indent=1) + "\n")
