"""How busy others keep the CPUs, and waiting until they do not: what sleeps and is woken suffers most from neighbours."""

import time

SAMPLE_S = 0.2
QUIET_SHARE = 0.1


def cpu_times(text):
    """(busy, all) ticks of the first line of /proc/stat."""
    fields = [int(field) for field in text.split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def read_stat():
    with open("/proc/stat") as file:
        return file.read()


def busy_share(read=read_stat, sleep=time.sleep):
    """The share of all CPUs that is in use now, while we are idle: 0 to 1."""
    busy, total = cpu_times(read())
    sleep(SAMPLE_S)
    busy_after, total_after = cpu_times(read())
    return (busy_after - busy) / max(total_after - total, 1)


class Quiet:
    """Called before each measurement. Waits while others are busy, up to a budget of seconds for all calls together; one call
    takes a tenth of it at most, so that a busy hour does not use it all up."""

    def __init__(self, budget_s, sample=busy_share, clock=time.monotonic):
        self.left_s, self.call_s, self.sample, self.clock = budget_s, budget_s / 10, sample, clock

    def __call__(self):
        """How busy it was when the wait ended."""
        started = self.clock()
        while True:
            share = self.sample()
            if share <= QUIET_SHARE or self.clock() - started >= min(self.left_s, self.call_s):
                break
        self.left_s = max(self.left_s - (self.clock() - started), 0)
        return share
