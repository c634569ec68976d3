"""Copies of a share of the requests, for a deployment whose answers nobody gets."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

# The copies that may wait for the deployment; they are kept in memory.
_MOST_WAITING = 100
_ERROR_CHARACTERS = 500


class Mirror:
    """Sends copies to one deployment, one after the other, in a thread of its own.

    Callers never wait for it: a copy that finds too many others waiting is dropped and counted.

    Parameters
    ----------
    deployment : str
    percent : int
        Of the requests.
    score : callable
        Scores the rows of a copy, which is the body of a request, and returns the HTTP status and the body of the answer.
    """

    def __init__(self, deployment: str, percent: int, score: Callable[[bytes], tuple[int, bytes]]) -> None:
        self.deployment, self.percent = deployment, percent
        self._score = score
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._answered = self._failed = self._dropped = 0
        self._error = ""
        threading.Thread(target=self._work, daemon=True).start()

    def offer(self, body: bytes) -> None:
        """Take a copy of a request, with the mirror's percentage as the probability."""
        with self._changed:
            # Not for anything that has to be secret.
            if random.random() * 100 >= self.percent:  # noqa: S311
                return
            if len(self._waiting) >= _MOST_WAITING:
                self._dropped += 1
                return
            self._waiting.append(body)
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more copies. Those that wait are still sent."""
        with self._changed:
            self.percent = 0
            self._changed.notify_all()

    def counts(self) -> dict[str, Any]:
        """Return the number of copies by what became of them, and the newest error."""
        with self._changed:
            return {
                "deployment": self.deployment,
                "answered": self._answered,
                "failed": self._failed,
                "dropped": self._dropped,
                "waiting": len(self._waiting),
                "error": self._error,
            }

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or not self.percent)
                if not self._waiting:
                    return
                copy = self._waiting[0]
            status, body = self._score(copy)
            with self._changed:
                # It counts as waiting until its answer is counted.
                self._waiting.popleft()
                if status == 200:
                    self._answered += 1
                else:
                    self._failed += 1
                    self._error = f"{status}: {body.decode(errors='replace')[:_ERROR_CHARACTERS]}"
