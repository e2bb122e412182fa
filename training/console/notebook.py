"""Recognises a notebook: a kernel of IPython, whose output is shown below the cell that runs."""

import sys


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; IPython is not imported for this."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return hasattr(shell, "kernel")
