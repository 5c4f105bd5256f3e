"""`python -m penstock.processes`: the program of a worker process; see `worker`."""

import gc

gc.disable()  # until the server's code is imported: `worker` switches the collector on

from penstock.processes.worker import main  # noqa: E402

main()
