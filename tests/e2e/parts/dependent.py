"""Become a program that is ended by the kernel when its parent is gone, however that came about.

    dependent.py PARENT-PID PROGRAM NAME [ARGUMENT...]

NAME is what the program sees as its own name. Standard library only; run with -I -S, so that it costs 20 ms.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

parent, program, *arguments = sys.argv[1:]
ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(parent):  # it was gone before the kernel knew of our wish
    sys.exit(1)
os.execv(program, arguments)
