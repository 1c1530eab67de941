"""Another wall clock for the processes of a test: the machine's own is never touched.

A small library, preloaded, shifts CLOCK_REALTIME by the number of seconds that stands in a file; the file may be
changed while they run. Skips where there is no C compiler.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

YEAR_S = 365 * 86_400.0

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile double *shift;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void open_shift(void) {
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("CLOCK_SHIFT_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *memory = mmap(NULL, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) shift = memory;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    if (!real) open_shift();
    int result = real(clock, out);
    if (result == 0 && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        long long nanoseconds = (long long)(*shift * 1e9);
        out->tv_sec += nanoseconds / 1000000000LL;
        out->tv_nsec += nanoseconds % 1000000000LL;
        if (out->tv_nsec < 0) { out->tv_nsec += 1000000000L; out->tv_sec -= 1; }
        if (out->tv_nsec >= 1000000000L) { out->tv_nsec -= 1000000000L; out->tv_sec += 1; }
    }
    return result;
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """The wall clock of every process started with its environment."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("needs a C compiler")
        self._file = folder / "clock_shift"
        self._library = folder / "clock_shim.so"
        source = folder / "clock_shim.c"
        source.write_text(SOURCE)
        self.shift(0.0)
        built = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source), "-ldl"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if built.returncode:
            pytest.skip(f"needs a C compiler that works: {built.stderr[:200]}")

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables for a process that is to live by this clock."""
        return {"LD_PRELOAD": str(self._library), "CLOCK_SHIFT_FILE": str(self._file)}

    def shift(self, seconds: float) -> None:
        """Set the clock so many seconds ahead of the machine's (behind, where negative), at once and for everyone."""
        with open(self._file, "r+b" if self._file.exists() else "wb") as file:  # in place: it is mapped
            file.write(struct.pack("d", seconds))

    def show(self, unix: float) -> None:
        """Set the clock to a moment."""
        self.shift(unix - time.time())
