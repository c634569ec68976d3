"""A cell that never ends, and whose kernel writes its process id to the file ``pid``."""

import os
import threading
from pathlib import Path

Path("pid").write_text(str(os.getpid()))
threading.Event().wait()
