"""An entry whose warm-up takes processor time, and leaves a thread behind."""

from __future__ import annotations

import threading
import time
from typing import Any

WARM_UP_SECONDS = 0.5


def warm_up() -> None:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    while time.process_time() < WARM_UP_SECONDS:
        pass


def run(job: dict[str, Any], inputs: dict[str, int], outputs: dict[str, int], emit: Any) -> dict[str, Any]:
    time.sleep(0.3)  # several polls
    return {}
