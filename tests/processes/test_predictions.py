"""The predictions of several processes are those of one: the same tests, the other server."""

from server.test_streams import *  # noqa: F403

# Twenty seconds of pushing against one stream, which is one process's business.
del test_a_client_that_does_not_read_is_held_back  # type: ignore[name-defined]  # noqa: F821
