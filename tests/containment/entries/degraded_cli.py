"""The command line on a machine that lacks a system call.

Usage: degraded_cli.py MISSING_CALL WORD ...
"""

from __future__ import annotations

import sys

from degraded_supervisor import lose

if __name__ == "__main__":
    from selfimprove.app.cli import main

    lose(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
