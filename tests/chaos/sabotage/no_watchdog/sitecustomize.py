"""Sabotage: the watchdog does nothing about the loop's end, and the loop never looks for a watchdog."""

import sys

if "overnight.daemon.watchdog" in " ".join(sys.orig_argv) or "overnight.daemon" in sys.orig_argv:
    import time

    from overnight.daemon import keeping

    keeping._keep_watchdog = lambda context, now: None
    from overnight.launchers import guards

    _start_loop = guards.start_loop
    _started = []

    def _once(places):
        if _started:
            while True:
                time.sleep(3600)
        _started.append(True)
        return _start_loop(places)

    guards.start_loop = _once
