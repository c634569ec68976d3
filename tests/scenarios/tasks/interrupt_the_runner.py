"""A cell that sends a signal to its runner and never ends; the kernel writes its process id to the file ``pid``."""

import os
import signal
import threading
from pathlib import Path

Path("pid").write_text(str(os.getpid()))
os.kill(os.getppid(), getattr(signal, os.environ["SIGNAL"]))
threading.Event().wait()
