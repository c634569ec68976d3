"""The tags with which a run and its copy name each other.

No dots in them: Azure Machine Learning's search takes plain names.
"""

from __future__ import annotations

# On the copy: what it is a copy of, and what is not in it.
SOURCE_RUN = "mirrored_from_run_id"
SOURCE_SERVER = "mirrored_from_server"
LEFT_OUT = "mirrored_without"
# On the source: which run is its copy. This one decides, where there is more than one candidate.
COPY_RUN = "mirrored_to_run_id"
COPY_SERVER = "mirrored_to_server"

OF_SOURCE = frozenset({COPY_RUN, COPY_SERVER})
OF_COPY = frozenset({SOURCE_RUN, SOURCE_SERVER, LEFT_OUT})
