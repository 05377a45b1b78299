"""The static report of one run: a single HTML file, drawn from the ledger alone, that opens without a network."""

from selfimprove.app.report.page import write_report

__all__ = ["write_report"]
