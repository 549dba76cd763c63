"""Memory as tables for people and as a record for programs. Nothing here prints."""

from __future__ import annotations

from collections.abc import Mapping

from mgcompile.analysis.memory import MEMORY_CONVENTIONS, Memory, Peak
from mgcompile.analysis.tables import Sheet, human_bytes, size_text

__all__ = ["memory_record", "memory_sheets"]


def memory_sheets(found: Memory) -> list[Sheet]:
    """The totals of inference and training, what they are made of, the activations by level, and what each means."""
    rows = (
        ("activations at the peak", found.inference.bytes, found.training.bytes),
        ("parameters", found.parameters, found.parameters),
        ("buffers", found.buffers, found.buffers),
        ("gradients of parameters", 0, found.gradients),
        (f"optimiser ({found.optimizer})", 0, found.optimizer_state),
        ("total", found.inference_total, found.training_total),
    )
    title = f"{found.name}, {size_text(found.size)}, batch {found.batch}, {found.bytes_per_element} bytes a number"
    totals = Sheet(
        title,
        ("memory", "inference", "training"),
        tuple((what, human_bytes(one), human_bytes(other)) for what, one, other in rows),
        left=frozenset({"memory"}),
    )
    columns = (found.inference.levels, found.kept_levels, found.training.levels)
    levels = sorted({level for column in columns for level in column}, key=lambda level: (level is None, level or 0))
    by_level = Sheet(
        "activations by level",
        ("level", "inference, peak", "training, kept", "training, peak"),
        (
            *((_level_name(level), *(human_bytes(column.get(level, 0)) for column in columns)) for level in levels),
            ("all", *map(human_bytes, (found.inference.bytes, found.training_kept, found.training.bytes))),
        ),
        notes=(
            f"inference: the peak is at {_place(found.inference)}",
            f"training: the peak is at {_place(found.training)}",
        ),
        left=frozenset({"level"}),
    )
    return [totals, by_level, Sheet("", (), (), notes=tuple(MEMORY_CONVENTIONS.values()))]


def memory_record(found: Memory) -> dict[str, object]:
    """The same for JSON: exact bytes, sizes as lists, levels by their names."""
    return {
        "name": found.name,
        "size": list(found.size),
        "batch": found.batch,
        "bytes_per_element": found.bytes_per_element,
        "optimizer": found.optimizer,
        "inference": {"total": found.inference_total, "peak": _peak(found.inference)},
        "training": {
            "total": found.training_total,
            "peak": _peak(found.training),
            "kept": {"bytes": found.training_kept, "levels": _levels(found.kept_levels)},
            "gradients": found.gradients,
            "optimizer_state": found.optimizer_state,
        },
        "parameters": found.parameters,
        "buffers": found.buffers,
    }


def _peak(peak: Peak) -> dict[str, object]:
    return {
        "bytes": peak.bytes,
        "node": peak.node,
        "pass": "backward" if peak.backward else "forward",
        "levels": _levels(peak.levels),
    }


def _levels(levels: Mapping[int | None, int]) -> dict[str, int]:
    return {_level_name(level): number for level, number in levels.items()}


def _level_name(level: int | None) -> str:
    return "vectors" if level is None else f"level {level}"


def _place(peak: Peak) -> str:
    return f"{peak.node}, {'backward' if peak.backward else 'forward'}"
