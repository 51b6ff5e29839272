"""Settings of the whole suite."""

import os

# One thread: the models are tiny, and threads that wait for each other cost more than they bring. Set before torch is
# imported, and inherited by the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
