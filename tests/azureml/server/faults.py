"""Faults that a test switched on: bad answers, lost ones, and slow ones."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass


@dataclass
class Fault:
    """What to do with requests that fit.

    Attributes
    ----------
    pattern : str
        Regular expression, searched in ``<method> <path>?<query>``.
    answer : int, str or None
        A status; ``drop`` to close the connection before anything is done; ``lose_answer`` to close it
        after the request was carried out; ``kill`` and ``kill_after`` for the same, with the client's
        process killed first; None to answer as usual.
    times : int or None
        How many requests; None for all until the faults are cleared.
    skip : int
        How many requests that fit pass unharmed first.
    pid : int or None
        The process to kill.
    retry_after : int or None
        Seconds, the header of a 429 or 503.
    delay : float
        Seconds to wait first.
    taken : int
        How many requests have met it.
    """

    pattern: str
    answer: int | str | None = None
    times: int | None = None
    skip: int = 0
    pid: int | None = None
    retry_after: int | None = None
    delay: float = 0.0
    taken: int = 0


class FaultList:
    """The faults, of which the first that fits is taken."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Put a fault behind those that are there."""
        re.compile(fault.pattern)
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> list[Fault]:
        """Forget all faults, and return them."""
        with self._lock:
            cleared, self._faults = self._faults, []
        return cleared

    def take(self, request_line: str) -> Fault | None:
        """Return the fault for a request, and count it."""
        with self._lock:
            for fault in self._faults:
                if fault.times != 0 and re.search(fault.pattern, request_line):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    if fault.times is not None:
                        fault.times -= 1
                    fault.taken += 1
                    return fault
        return None
