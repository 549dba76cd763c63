"""Reports: everything that is known of some networks as one page, for the appendix of a paper."""

from mgcompile.reporting.collection import Network, chapters_of
from mgcompile.reporting.document import Chapter, Section, format_report

__all__ = ["Chapter", "Network", "Section", "chapters_of", "format_report"]
