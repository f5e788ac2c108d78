"""What the machine has."""

import os


def memory_of_machine() -> int | None:
    """The bytes of main memory; None where the system doesn't tell, as on Windows."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None
