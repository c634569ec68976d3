"""The tags that connect a run and its copy.

Their names have no dots, because Azure Machine Learning's search accepts plain names only.
"""

from __future__ import annotations

# On the copy: the run that it copies, and what it lacks.
SOURCE_RUN = "mirrored_from_run_id"
SOURCE_SERVER = "mirrored_from_server"
OMISSIONS = "mirrored_without"
# On the source: its copy. If there are several candidates, this tag decides.
COPY_RUN = "mirrored_to_run_id"
COPY_SERVER = "mirrored_to_server"

OF_SOURCE = frozenset({COPY_RUN, COPY_SERVER})
OF_COPY = frozenset({SOURCE_RUN, SOURCE_SERVER, OMISSIONS})
