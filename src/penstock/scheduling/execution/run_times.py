"""How long the last runs of a model took, to find out which took far longer than expected."""

from __future__ import annotations

LONG_SECONDS = 0.005  # no run that takes less is ever too long
NOTICEABLE_SECONDS = LONG_SECONDS / 10  # what is done before a run and takes less may count as part of it


class RunTimes:
    """The last run of a model on each thread, by the thread's identifier. Each thread writes its own entries.

    Attributes:
        took: how long the run itself took, in seconds, without what is done around it.
        cpu_before: how much CPU the thread had used, of all that it ever did, before its last run that was
            a second attempt, or whose inputs took long to assemble.
        cpu_after: the same, after its last long run.
    """

    __slots__ = ("cpu_after", "cpu_before", "took")

    def __init__(self) -> None:
        self.took: dict[int, float] = {}
        self.cpu_before: dict[int, float] = {}
        self.cpu_after: dict[int, float] = {}

    def cpu_of_long_run(self, thread: int, before: float) -> float:
        """How much CPU the thread's last run used; 0 for a short run.

        On a busy machine, time alone says little of a run.

        Args:
            thread: the calling thread.
            before: how much CPU it had used at any time before the run, better late than early.
        """
        seconds = self.took.get(thread, 0.0)
        if seconds <= LONG_SECONDS:
            return 0.0
        return min(seconds, self.cpu_after[thread] - max(before, self.cpu_before.get(thread, 0.0)))
