"""How long it takes from a fresh clone to scored rows: `git clone`, then `make run`.

    python -m tests.benchmarks.first_minutes [--times 3] [--cold]

The clone has what is committed here. For each step of `make run`, the seconds from the start of `git clone` to the end of
the step are printed: least, median, most. With ``--cold``, uv and pip start with empty caches. What `make run` does in the
background after the result, for later runs, is left out.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEPS = re.compile(r"(?P<install>\S+ -m helpers.jobs )|  (?P<task>\w+): done after|(?P<score>Predictions:.* \d+ rows)")


def main() -> None:
    """Measure as often as asked, and print the seconds of each step."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.first_minutes", description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="with empty caches of packages")
    options = parser.parse_args()
    runs = []
    for _ in range(options.times):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(Path(folder), options.cold))
    for step in runs[0]:
        seconds = [run[step] for run in runs]
        print(f"{step:16} {min(seconds):6.1f} {statistics.median(seconds):6.1f} {max(seconds):6.1f}")


def measure(folder: Path, cold: bool) -> dict[str, float]:
    """Return the seconds from the start to the end of each step."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    environment |= {"UV_CACHE_DIR": str(folder / "cache"), "PIP_NO_CACHE_DIR": "1"} if cold else {}
    clone, start, steps = folder / "clone", time.monotonic(), {}
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    with subprocess.Popen(
        ["make", "--directory", clone, "run"], env=environment, text=True, stdout=subprocess.PIPE
    ) as process:
        for line in process.stdout or ():
            step = STEPS.match(line)
            if step:
                steps[step["task"] or ("installed" if step["install"] else "scored rows")] = time.monotonic() - start
                # Then make starts nothing in the background.
                (clone / ".venv" / "quick").touch()
    assert process.returncode == 0 and "scored rows" in steps, steps
    return steps


if __name__ == "__main__":
    main()
