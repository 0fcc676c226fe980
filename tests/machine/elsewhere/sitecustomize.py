"""Take from Python what it lacks on Windows; it is imported where this folder is on the path."""

import os
import signal
import sys

for name in ("resource", "fcntl", "pwd", "grp"):
    sys.modules[name] = None
for name in (
    "fork",
    "sched_getaffinity",
    "getuid",
    "geteuid",
    "killpg",
    "setsid",
    "getpgid",
    "wait4",
):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGALRM", "SIGTSTP", "SIGCONT"):
    if hasattr(signal, name):
        delattr(signal, name)
