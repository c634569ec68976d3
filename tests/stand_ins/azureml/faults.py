"""Faults that a test switches on: wrong answers, lost answers, and slow ones."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

# Less than the two minutes after which MLflow's client gives up on a request.
_MOST_SECONDS_HELD = 100


@dataclass
class Fault:
    """What to do with the requests that match.

    Attributes
    ----------
    pattern : str
        Regular expression, searched in ``<method> <path>?<query>``.
    answer : int, str or None
        A status; ``drop`` to close the connection before anything is done; ``lose_answer`` to close it after the
        request was carried out; ``kill`` and ``kill_after`` for the same, but the client's process is killed first;
        None to answer as usual.
    times : int or None
        How many requests; None for all until the faults are cleared.
    skip : int
        How many matching requests are answered as usual first.
    pid : int or None
        The process to kill.
    retry_after : int or None
        Seconds for the header of a 429 or 503.
    delay : float
        Seconds to wait first.
    together : int
        Hold each request until this many have arrived, so that their clients certainly race.
    taken : int
        How many requests the fault has affected.
    """

    pattern: str
    answer: int | str | None = None
    times: int | None = None
    skip: int = 0
    pid: int | None = None
    retry_after: int | None = None
    delay: float = 0.0
    together: int = 0
    taken: int = 0


class FaultList:
    """The faults that are switched on. The first one that matches a request applies to it."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._changed = threading.Condition()

    def add(self, fault: Fault) -> None:
        """Add a fault after the existing ones."""
        re.compile(fault.pattern)
        with self._changed:
            self._faults.append(fault)

    def clear(self) -> list[Fault]:
        """Switch all faults off, and return them."""
        with self._changed:
            cleared, self._faults = self._faults, []
            self._changed.notify_all()
        return cleared

    def all(self) -> list[Fault]:
        """Return the faults that are switched on."""
        with self._changed:
            return list(self._faults)

    def take(self, request_line: str) -> Fault | None:
        """Return the fault that applies to a request, and count the request."""
        with self._changed:
            for fault in self._faults:
                if fault.times != 0 and re.search(fault.pattern, request_line):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    if fault.times is not None:
                        fault.times -= 1
                    fault.taken += 1
                    self._changed.notify_all()
                    return fault
        return None

    def hold(self, fault: Fault) -> None:
        """Wait until ``fault.together`` requests have arrived, or until the fault is switched off."""
        with self._changed:
            self._changed.wait_for(
                lambda: fault.taken >= fault.together or fault not in self._faults, timeout=_MOST_SECONDS_HELD
            )
