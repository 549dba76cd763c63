"""Figures of a graph: what it costs, how that compares with what others count and what the paper prints."""

from mgcompile.analysis.cost import CONVENTIONS, Audit, Group, Row, Uncounted, audit_graph
from mgcompile.analysis.published import Comparison, Published, compare_published, published_figures
from mgcompile.analysis.verification import Difference, Reconciliation, verify_audit

__all__ = [
    "CONVENTIONS",
    "Audit",
    "Comparison",
    "Difference",
    "Group",
    "Published",
    "Reconciliation",
    "Row",
    "Uncounted",
    "audit_graph",
    "compare_published",
    "published_figures",
    "verify_audit",
]
