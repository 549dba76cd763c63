"""The figures that the paper prints for its networks, beside those that follow from the definitions.

Ke, Maire & Yu, "Multigrid Neural Architectures", CVPR 2017 (arXiv 1611.07661). Where the two differ the difference is
shown, with what is known about it; no definition is bent to hide one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Literal

from mgcompile.analysis import tables
from mgcompile.analysis.cost import Audit
from mgcompile.analysis.tables import Cell, Sheet

__all__ = [
    "REMARKS",
    "Comparison",
    "Published",
    "as_csv",
    "as_json",
    "as_markdown",
    "as_table",
    "compare_published",
    "published_figures",
]

Figure = Literal["params", "macs"]

MILLION = 10**6

_BLOCK_5 = (
    "the paper's MACs are those of a variant whose fifth block is (512, 256) wide, its parameters those of (512, 384), "
    "which the definition uses: the two columns describe different networks"
)
_ONE_MAP = (
    "the paper repeats the count of the segmentation network, which has ten output maps; this task has one, so the "
    "output layer is smaller"
)

REMARKS: Mapping[tuple[str, Figure], str] = {
    ("cifar100/vgg-6", "params"): "the paper prints 3.96 M, the definition gives 3.965 M, which rounds to 3.97",
    ("cifar100/res-12", "macs"): "the paper prints 266.02 M, the definition gives 266.06 M; nothing explains the 0.04",
    **{(f"cifar100/mg-{layers}", "macs"): _BLOCK_5 for layers in (6, 11, 16, 21)},
    **{(f"cifar100/r-mg-{layers}", "macs"): _BLOCK_5 for layers in (12, 22, 42)},
    ("cifar100/r-mg-32", "macs"): _BLOCK_5 + " (for this network alone that variant has 1558.21 M, still 0.01 more)",
    ("imagenet/vgg-16", "params"): "the paper prints 138.0 M; the usual VGG-16 has 138.4 M",
    ("imagenet/resnet-50", "macs"): "the paper prints 4.46 G; the usual ResNet-50 has 4.09 G",
    ("imagenet/wrn-34-2.0", "params"): "the paper pairs the MACs of width 2.0 with the parameters of width 1.5; "
    "width 2.0 has 86.0 M",
    ("imagenet/r-pmg-30-seg", "macs"): "the paper prints 2.77 G, perhaps copied from an R-MG with (2, 2, 2, 2) units, "
    "which has that; the definition gives 9.52 G, or 7.27 G without the work that cannot reach the classifier",
    ("mnist-spatial/sg-11", "params"): _ONE_MAP,
    ("mnist-spatial/pmg-11", "params"): _ONE_MAP,
}
"""What is known about each figure that differs, by zoo name and column."""


@dataclass(frozen=True, slots=True)
class Published:
    """One line of the paper's tables.

    `params_m` in 10^6. `macs_m`, the paper's "FLOPs", in 10^6; None where not printed. `error` is the top-1 error in %
    (CIFAR-100, ImageNet) or 100 - mean class accuracy in % (MNIST); `top5_error` and `iou` in %.
    """

    task: str
    model: str
    params_m: Decimal
    macs_m: Decimal | None
    error: Decimal | None
    top5_error: Decimal | None
    iou: Decimal | None

    @property
    def zoo(self) -> str:
        """The name of the network's spec: `cifar100/r-pmg-30`. The two ImageNet tests are of one network."""
        task = "imagenet" if self.task.startswith("imagenet-") else self.task
        return f"{task}/{self.model.lower()}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published line beside the computed figures.

    `params` and `macs` are the computed ones, exact. A difference is the computed figure, rounded to the digits that
    are printed, minus the printed one, in 10^6; None where nothing is printed. `remark` says what is known about the
    differences; it is empty where there is none. `unexplained` are the figures that differ without a known reason.
    """

    published: Published
    params: int
    macs: int
    params_difference: Decimal | None
    macs_difference: Decimal | None
    remark: str
    unexplained: tuple[Figure, ...]

    @property
    def agrees(self) -> bool:
        """Whether every printed figure follows from the definition, to its last digit."""
        return not self.params_difference and not self.macs_difference


@cache
def published_figures() -> tuple[Published, ...]:
    """All lines of the paper's tables, in its order."""
    text = Path(__file__).with_name("published.csv").read_text(encoding="utf-8")
    lines = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(
        Published(
            line["task"],
            line["model"],
            Decimal(line["params_m"]),
            *(Decimal(line[name]) if line[name] else None for name in ("macs_m", "error", "top5_error", "iou")),
        )
        for line in lines
    )


def compare_published(audits: Mapping[str, Audit]) -> tuple[Comparison, ...]:
    """Each published line whose network is in `audits` (by zoo name, at the paper's input size), in its order."""
    return tuple(_compare(line, audits[line.zoo]) for line in published_figures() if line.zoo in audits)


def as_table(comparisons: Sequence[Comparison], *, width: int = 120, terminal: bool = False) -> str:
    """A line for each comparison, in 10^6, then the remarks; plain ASCII unless for a `terminal`."""
    return tables.as_text([_sheet(comparisons)], width=width, terminal=terminal)


def as_markdown(comparisons: Sequence[Comparison]) -> str:
    """The same table in Markdown."""
    return tables.as_markdown([_sheet(comparisons)])


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """A line for each comparison; `params` and `macs` are exact, the published figures and differences in 10^6."""
    records = [_record(comparison) for comparison in comparisons]
    return tables.as_csv(_FIELDS, ([record[name] for name in _FIELDS] for record in records))


def as_json(comparisons: Sequence[Comparison]) -> str:
    """A document `{"comparisons": [...]}` with the fields of `as_csv` and `agrees`."""
    records = [_record(comparison) | {"agrees": comparison.agrees} for comparison in comparisons]
    return tables.as_json({"comparisons": records})


def _compare(line: Published, audit: Audit) -> Comparison:
    differences: dict[Figure, Decimal | None] = {
        "params": _difference(audit.params, line.params_m),
        "macs": _difference(audit.macs, line.macs_m),
    }
    differing = [figure for figure, difference in differences.items() if difference]
    known = [REMARKS[line.zoo, figure] for figure in differing if (line.zoo, figure) in REMARKS]
    unexplained = tuple(figure for figure in differing if (line.zoo, figure) not in REMARKS)
    return Comparison(
        line,
        audit.params,
        audit.macs,
        params_difference=differences["params"],
        macs_difference=differences["macs"],
        remark="; ".join(known),
        unexplained=unexplained,
    )


def _difference(computed: int, printed: Decimal | None) -> Decimal | None:
    return None if printed is None else _rounded(computed, printed) - printed


def _rounded(computed: int, printed: Decimal) -> Decimal:
    """A count in 10^6, rounded to the digits of a printed figure."""
    # Figures without a fraction were printed as 10^9 with two digits behind the point.
    last_digit = printed if printed.as_tuple().exponent else Decimal("1E1")
    rounded = (Decimal(computed) / MILLION).quantize(last_digit, ROUND_HALF_UP)
    return rounded + Decimal(0)  # 9520 in place of 9.52E+3


_FIGURE_COLUMNS = ("params M", "computed", "differs", "MACs M", "computed", "differs")


def _sheet(comparisons: Sequence[Comparison]) -> Sheet:
    notes: dict[str, list[str]] = {}
    for comparison in comparisons:
        for text in _remarks(comparison):
            names = notes.setdefault(text, [])
            names += [comparison.published.zoo] * (comparison.published.zoo not in names)
    return Sheet(
        "",
        ("task", "model", *_FIGURE_COLUMNS, "error", "top-5", "IoU"),
        tuple(_cells(comparison) for comparison in comparisons),
        notes=(
            *(f"{', '.join(names)}: {text}" for text, names in notes.items()),
            "MACs are what the paper calls FLOPs. Errors and IoU are the published ones; nothing here computes them.",
        ),
        left=frozenset({"task", "model"}),
    )


def _remarks(comparison: Comparison) -> Iterable[str]:
    if comparison.remark:
        yield comparison.remark
    for figure in comparison.unexplained:
        yield f"{figure} differ from what is published, and no reason is known"


def _cells(comparison: Comparison) -> tuple[Cell, ...]:
    line = comparison.published
    macs = None if line.macs_m is None else _rounded(comparison.macs, line.macs_m)
    return (
        line.task,
        line.model,
        line.params_m,
        _rounded(comparison.params, line.params_m),
        _signed(comparison.params_difference),
        line.macs_m,
        macs,
        _signed(comparison.macs_difference),
        line.error,
        line.top5_error,
        line.iou,
    )


def _signed(difference: Decimal | None) -> str | None:
    return None if difference is None else f"{difference:+f}" if difference else "0"


_FIELDS = (
    *("task", "model", "network", "published_params_m", "params", "params_difference_m"),
    *("published_macs_m", "macs", "macs_difference_m", "error", "top5_error", "iou", "remark"),
)


def _record(comparison: Comparison) -> dict[str, Cell]:
    line = comparison.published
    return {
        "task": line.task,
        "model": line.model,
        "network": line.zoo,
        "published_params_m": line.params_m,
        "params": comparison.params,
        "params_difference_m": comparison.params_difference,
        "published_macs_m": line.macs_m,
        "macs": comparison.macs,
        "macs_difference_m": comparison.macs_difference,
        "error": line.error,
        "top5_error": line.top5_error,
        "iou": line.iou,
        "remark": "; ".join(_remarks(comparison)),
    }
