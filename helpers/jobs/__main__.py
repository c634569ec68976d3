"""``python -m helpers.jobs JOB [JOB …]``: see `helpers.jobs.run`."""

import sys

from helpers.jobs.run import main

if __name__ == "__main__":
    sys.exit(main())
