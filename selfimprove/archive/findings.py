"""What an audit reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
    """One thing in a run folder that is not as it was recorded.

    Attributes:
        file: relative to the run folder.
        line: from 1; 0 for binary and missing files. Where a hash covers a whole text file the line is 1, unless the
            file no longer parses and the parser can tell.
        what: in words.
    """

    file: str
    line: int
    what: str
