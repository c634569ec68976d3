"""Callers that keep sending requests to an endpoint while it changes."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING

from helpers.serving import Endpoint, ServingError

if TYPE_CHECKING:
    from helpers.serving.health import Examples


class Callers:
    """Threads that send one row per request until the block ends.

    Parameters
    ----------
    endpoint : helpers.serving.Endpoint
    known : dict of str to helpers.serving.health.Examples
        The predictions of each deployment, for the same rows.

    Attributes
    ----------
    failed : list of str
        The errors of requests that got no answer.
    answered : collections.Counter
        The number of answers by deployment.
    wrong : list
        Answers that differ from the predictions of their deployment, with the row.
    """

    def __init__(self, endpoint: Endpoint, known: dict[str, Examples]) -> None:
        self.failed: list[str] = []
        self.answered: Counter[str] = Counter()
        self.wrong: list = []
        self._endpoint, self._known, self._done = endpoint, known, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(15 * number,)) for number in range(4)]

    def _ask(self, place: int) -> None:
        rows = next(iter(self._known.values())).rows
        while not self._done.is_set():
            place = (place + 1) % len(rows)
            try:
                answer = self._endpoint.invoke(rows.iloc[place : place + 1])
            except ServingError as error:
                self.failed.append(str(error))
                continue
            self.answered[answer.deployment] += 1
            if answer.predictions != [self._known[answer.deployment].predictions[place]]:
                self.wrong.append((answer, place))

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
