"""Watching a run: the protocol of the loop's observers, and a fan-out that no observer can break."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Something that is told about every ledger record, and about transient ``progress``."""

    def on_event(self, kind: str, body: Mapping[str, Any]) -> None:
        """Called on the loop's thread: must return at once."""


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
