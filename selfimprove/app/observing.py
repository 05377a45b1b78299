"""Watching a run: a fan-out of the loop's events that no observer can break."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from selfimprove.loop.journal import Observer

log = logging.getLogger(__name__)


class Observers:
    """Passes each event on to all observers; one that raises is reported once and then left out."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)

    def on_event(self, kind: str, body: Mapping[str, Any]) -> None:
        for observer in tuple(self._observers):
            try:
                observer.on_event(kind, body)
            except Exception:  # watching must never end a run
                self._observers.remove(observer)
                log.exception("%s failed on a %r record and is switched off; the run goes on", observer, kind)
