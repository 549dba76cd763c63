"""Memory as tables for people and as a record for programs. Nothing here prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mgcompile.analysis import tables
from mgcompile.analysis.cost import level_name
from mgcompile.analysis.memory import MEMORY_CONVENTIONS, BestOrder, Memory, Peak
from mgcompile.analysis.tables import Sheet, human_bytes, size_text

__all__ = ["memory_csv", "memory_record", "memory_sheets"]


def memory_sheets(found: Memory, best: BestOrder | None = None) -> list[Sheet]:
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
        f"{found.name}: activations by level",
        ("level", "inference, peak", "training, kept", "training, peak"),
        (
            *((level_name(level), *(human_bytes(column.get(level, 0)) for column in columns)) for level in levels),
            ("all", *map(human_bytes, (found.inference.bytes, found.training_kept, found.training.bytes))),
        ),
        notes=(
            f"inference: the peak is at {_place(found.inference)}",
            f"training: the peak is at {_place(found.training)}",
            *([_better(found, best)] if best else []),
        ),
        left=frozenset({"level"}),
    )
    return [totals, by_level, Sheet("", (), (), notes=tuple(MEMORY_CONVENTIONS.values()))]


def memory_csv(results: Sequence[Memory]) -> str:
    """A line for each network; bytes."""
    columns = (
        *("batch", "bytes_per_element", "optimizer"),
        *("inference_total", "inference_peak", "inference_peak_at"),
        *("training_total", "training_peak", "training_peak_at", "training_kept"),
        *("parameters", "gradients", "optimizer_state", "buffers"),
    )
    rows = [(found.name, *found.size, *(getattr(found, column) for column in columns)) for found in results]
    return tables.as_csv(("name", "height", "width", *columns), rows)


def memory_record(found: Memory, best: BestOrder | None = None) -> dict[str, object]:
    """The same for JSON: exact bytes, sizes as lists, levels by their names; the best order where it is known."""
    order = {"best_order_peak": best.peak.bytes, "best_order": list(best.nodes)} if best else {}
    return {
        "name": found.name,
        "size": list(found.size),
        "batch": found.batch,
        "bytes_per_element": found.bytes_per_element,
        "optimizer": found.optimizer,
        "inference": {"total": found.inference_total, "peak": _peak(found.inference), **order},
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


def _better(found: Memory, best: BestOrder) -> str:
    less = 100 * (1 - best.peak.bytes / found.inference.bytes)
    if less < 0.1:
        return "inference: nodes in other orders take no less"
    return f"inference: {human_bytes(best.peak.bytes)} in the best order that was tried, {less:.1f} % less; JSON has it"


def _peak(peak: Peak) -> dict[str, object]:
    return {
        "bytes": peak.bytes,
        "node": peak.node,
        "pass": "backward" if peak.backward else "forward",
        "levels": _levels(peak.levels),
    }


def _levels(levels: Mapping[int | None, int]) -> dict[str, int]:
    return {level_name(level): number for level, number in levels.items()}


def _place(peak: Peak) -> str:
    return f"{peak.node}, {'backward' if peak.backward else 'forward'}"
