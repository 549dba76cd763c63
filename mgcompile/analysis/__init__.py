"""Figures of a graph: what it costs, how that compares with what others count and what the paper prints."""

from mgcompile.analysis.cost import CONVENTIONS, Audit, Group, Row, Uncounted, audit_graph
from mgcompile.analysis.published import Comparison, Published, compare_published, published_figures
from mgcompile.analysis.receptive import (
    FIELD_CONVENTIONS,
    CurvePoint,
    FieldGroup,
    FieldRow,
    OutputField,
    ReceptiveField,
    receptive_field,
)
from mgcompile.analysis.verification import Difference, Reconciliation, verify_audit

__all__ = [
    "CONVENTIONS",
    "FIELD_CONVENTIONS",
    "Audit",
    "Comparison",
    "CurvePoint",
    "Difference",
    "FieldGroup",
    "FieldRow",
    "Group",
    "OutputField",
    "Published",
    "ReceptiveField",
    "Reconciliation",
    "Row",
    "Uncounted",
    "audit_graph",
    "compare_published",
    "published_figures",
    "receptive_field",
    "verify_audit",
]
