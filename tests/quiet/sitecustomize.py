"""Python runs this at its start where the folder is on PYTHONPATH."""

import no_sockets  # noqa: F401
