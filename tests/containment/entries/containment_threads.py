"""An entry whose warm-up leaves a thread behind."""

from __future__ import annotations

import threading
import time
from typing import Any


def warm_up() -> None:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def run(job: dict[str, Any], inputs: dict[str, int], outputs: dict[str, int], emit: Any) -> dict[str, Any]:
    return {}
