"""What stands in a log outside of tracebacks: notices of kernel, scheduler, launcher, shell and native code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from overnight.domain.attempt import FailureKind
from overnight.domain.crash_ends import SIGHUP, SIGINT, SIGTERM, kind_of_signal, launcher_signal, shell_signal
from overnight.domain.crash_library_words import library_meaning
from overnight.domain.crash_lines import LogLine
from overnight.domain.crash_sayings import meaning

K = FailureKind


@dataclass(frozen=True, slots=True)
class Notice:
    """A line that tells of a failure."""

    kind: FailureKind
    at: int  # index of the line
    is_fact: bool = False  # kernel or scheduler say so: nothing outranks it
    is_echo: bool = False
    signal: int | None = None  # what a process is said to have died of
    is_launchers: bool = False  # a launcher says so of one of its processes
    rank: str | None = None  # which process a launcher saw end first


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_FACTS: tuple[tuple[FailureKind, re.Pattern[str]], ...] = (
    (
        K.GPU_HARDWARE,
        _compiled(
            r"DUE TO NODE FAILURE|[Nn]ode failure on |NVRM: Xid|\bXid \(PCI|NVRM: .{0,80}fallen off the bus|"
            r"^Xid (?:error|\d+)|GPU\d*.{0,40}uncorrectable ECC"
            r"|nvidia-nvswitch\d*: SXid|JobState=NODE_FAIL"
            r"|Unable to determine the device handle for (?:GPU|gpu)|GPU is lost\\."
        ),
    ),
    (
        K.HOST_OOM,
        _compiled(
            r"invoked oom-killer|oom-kill:|[Oo]ut of memory: Kill(?:ed)? process"
            r"|[Mm]emory cgroup out of memory: Kill|oom_reaper: reaped"
            r"|[Dd]etected \d+ oom[-_]kill event|oom_kill event"
            r"|oom-kill event|OOMKilled|OOM Killed|State=OUT_OF_MEMORY"
            r"|[Ee]xceeded (?:job|step) memory limit|error: .{0,80}: Out Of Memory"
            r"|killed by (?:the )?(?:cgroup |kernel |linux |Linux )?(?:out-of-memory|OOM|oom)"
            r"|earlyoom.{0,80}sending SIG|systemd-oomd.{0,40}[Kk]illed"
            r"|[Kk]illed due to memory|(?:worker|task|actor)s? .{0,60}killed due to (?:memory"
            r"|the node running low)"
            r"|[Mm]emory limit (?:exceeded|reached).{0,60}kill|TERM_MEMLIMIT|PBS: job killed: (?:v?mem) "
        ),
    ),
    (
        K.KILLED_BY_SIGNAL,
        _compiled(
            r"\*\*\* JOB \d+ ON .{1,200} CANCELLED AT|\bCANCELLED AT .{10,30} DUE TO (?:TIME LIMIT"
            r"|PREEMPTION|JOB)|DUE TO TIME LIMIT"
            r"|TERM_RUNLIMIT|TERM_OWNER|PBS: job killed|job killed: walltime|DeadlineExceeded.{0,60}(?:Job"
            r"|Pod)|State=(?:TIMEOUT|CANCELLED|PREEMPTED)"
            r"|(?:[Ss]pot|[Pp]reemptible).{0,60}(?:interrupt"
            r"|preempt|terminat)\w*|The node was low on resource|Evicted:? "
            r"|[Tt]ime limit (?:reached|exceeded|of .{1,40} (?:exceeded|reached)).{0,60}(?:kill|terminat|cancel)"
        ),
    ),
    (K.DRIVER_MISMATCH, _compiled(r"NVRM: API mismatch|Failed to initialize NVML: Driver/library version mismatch")),
)
_STEP_CANCELLED = re.compile(r"\*\*\* STEP .{1,200} CANCELLED AT|Job step aborted|force-terminat|task launch failed")

_NATIVE = re.compile(
    r"^\s*what\(\):|terminate called|^terminating (?:due to"
    r"|with) uncaught|^Fatal Python error: |^\s*F\d{4} |^\[?\w*FATAL|"
    r"libc\+\+abi|^\*\*\* Check failure|^Check failed"
    r"|^Error .{0,200} (?:at line|in file) |Memory access fault by GPU"
    r"|thread terminated with exception|^\S+\.c(?:u"
    r"|pp|c):\d+:? .{0,300}Assertion|CUDA Error:"
)
_MEMORY_FAULT = re.compile(
    r"Fatal Python error: (?:Segmentation fault"
    r"|Bus error)|segfault at [0-9a-f]+ ip|\*\*\* Process received signal"
    r"|Signal: (?:Segmentation fault|Bus error)"
    r"|double free or corruption|free\(\): (?:invalid"
    r"|double)|malloc\(\): |munmap_chunk\(\)|corrupted (?:size vs"
    r"|double-linked|unsorted)|stack smashing detected"
    r"|traps: .{1,60} (?:general protection|trap)"
    r"|realloc\(\): invalid|malloc_consolidate|Segmentation fault"
    r"|^Bus error|: Bus error|!!!!!!! Segfault encountered"
    r"|(?:[Ss]ignal:?|[Rr]eceived|[Cc]aught|by|got) SIGSEGV|^SIGSEGV"
)
_ASSERTED_ON_GPU = re.compile(r"\.cu\w*:\d+: .{0,300}: block: \[\d+,\d+,\d+\], thread: \[")

_LINK_FAILED = re.compile(
    r"Watchdog caught collective operation timeout"
    r"|Timeout at NCCL work|Some NCCL operations have failed or timed out"
    r"|Heartbeat monitor timed out|ProcessGroup\w+(?:'s)? watchdog (?:hang|got stuck)"
    r"|Timed out waiting \d+ms|[Rr]endezvous.{0,80}(?:timed out"
    r"|timeout|TimeoutError)|Wait timeout|ProcessGroup\w*.{0,200}(?:timed out|[Tt]imeout)"
    r"|Waiting in store based barrier to initialize process group|(?:client|server) socket has (?:timed out|failed)"
)
_STUCK = re.compile(
    r"task \S+:\d+ blocked for more than \d+ seconds|soft lockup - CPU|hung_task|rcu_\w+ self-detected stall"
    r"|^Timeout \(\d+:\d\d:\d\d(?:\.\d+)?\)!|timeout: sending signal"
    r"|(?i:\b(?:watchdog|monitor|supervisor|heartbeat|stall)\b[^\n]{0,80}\b(?:no (?:new )?(?:output|progre"
    r"ss|heartbeat|activity|step)|stuck|hang|hung|stalled|frozen|unresponsive|not respond))"
    r"|(?i:\b(?:no (?:new )?(?:output|progress|heartbeat|activity|log)) (?:for|in|since) (?:the last )?\d+"
    r" ?(?:s\b|sec|min|h))"
    r"|(?i:\b(?:process|run|job|training|rank|worker|main thread)\b[^\n]{0,40}\b(?:appears|seems|is|looks)"
    r" (?:to be )?(?:hung|stuck|hanging|deadlocked|stalled|frozen)\b)"
    r"|(?i:deadlock detected|possible deadlock|hang detected|stall detected)"
)
_SUPPOSES = re.compile(r"\b(?:if|whether|may|might|can|could|would|when|avoid|prevent|potential|detects?)\b")
_ARGUMENTS = re.compile(
    r"^[\w./-]{1,80}: error: (?:the following arguments are required"
    r"|unrecognized arguments|argument |ambiguous option|invalid choice|too few|no such option)"
    r"|^(?:Usage|Error|error): (?:No such option"
    r"|Missing (?:option|argument|parameter)|Invalid value for|Got unexpected|unrecognized)"
    r"|^[\w.-]+: error: (?!.{0,40}(?:Killed|signal)).{0,80}(?:required"
    r"|invalid|expected|unrecognized)|^(?:Could not override"
    r"|Error merging override|Key .{1,60} is not in struct)"
    r"|^(?:You must specify|In '.{1,80}': )|^Primary config (?:module|directory)|^Cannot find primary config"
)
_NOT_STARTED: tuple[tuple[FailureKind, re.Pattern[str]], ...] = (
    (
        K.DEPENDENCY,
        _compiled(
            r": command not found$|^/usr/bin/env: .{1,40}: No such file"
            r"|Failed building wheel|subprocess-exited-with-error|error while loading shared libraries: "
            r"|symbol lookup error: |Illegal instruction"
            r"|^\S*python\S*: No module named |version `GLIBC\S*' not found"
            r"|executable file not found|EnvironmentNameNotFound"
            r"|CondaError|^ERROR: Could not find a version|Lmod has detected the following error"
        ),
    ),
    (
        K.FILE_NOT_FOUND,
        _compiled(
            r"can't open file '.{1,300}': \[Errno 2\]|: No such file or directory$"
            r"|(?:cat|cp|ls|cd): .{1,200}: No such file"
        ),
    ),
    (K.PERMISSION, _compiled(r"^(?:\S*(?:sh|bash|python\S*|mkdir|cp|mv|touch|tee)\b.{0,200}): Permission denied$")),
    (
        K.DISK_FULL,
        _compiled(
            r"^(?:\S*(?:sh|bash|tee|cp|mv|mkdir|touch|cat|echo|dd|rsync)\b.{0,200}): No space left on device"
            r"|write error: No space left|EXT4-fs .{0,100}(?:no space|error)|Disk quota exceeded$"
        ),
    ),
    (K.TOO_MANY_FILES, _compiled(r"^\S.{0,120}: Too many open files\b")),
    (K.HOST_OOM, _compiled(r"fork: Cannot allocate memory|^std::bad_alloc|: Cannot allocate memory$")),
    (
        K.MULTIPROCESSING,
        _compiled(
            r"fork: (?:retry: )?Resource temporarily unavailable"
            r"|libgomp: Thread creation failed|OpenBLAS blas_thread_init: pthread_create failed"
        ),
    ),
)
_INTERPRETER = re.compile(
    r"^\S*python\S*: |.*(?:command not found$|error while loading shared libraries|symbol lookup error)"
)
_RANK_LEFT = re.compile(r"failed \(exitcode: -?[1-9]\d*\) local_rank: (\d+)")
_NUMBERS = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")
SHAPES_LIMIT = 5000
_SAYS_ERROR = re.compile(
    r"^(?:[\w./\[\] -]{0,60}[\s\[\]|:-])?(?:ERROR|CRITICAL|FATAL|Fatal|fatal|[Ff]atal error|[Ee]rror"
    r"|ABORT(?:ING|ED)?|E)\b\s*[\]|:>-]"
    r"|^(?:[\w]+\.)*[A-Z]\w*(?:Error|Exception): |^E\d{4} |\[E\d{3} |^ERROR\b|\| ERROR "
)
_GETS_OVER = re.compile(
    r"(?i:retry|retries|again|skipp(?:ed|ing)|ignor(?:ed|ing)"
    r"|fall(?:ing)? ?back|non-?fatal|recover|continu|attempt \d"
    r"|warn)"
)
_INTERRUPTED = re.compile(
    r"(?:[Rr]eceived|got|[Cc]aught) (?:a )?(?:SIGINT"
    r"|signal 2\b|KeyboardInterrupt|keyboard interrupt|Ctrl-?C)|^\^C|Ctrl-?C (?:pressed|received)"
    r"|KeyboardInterrupt(?:: |\b.{0,40}(?:received|caught|stopping|exiting|terminat))"
    r"|[Ii]nterrupted by (?:the )?user|Received 2 death signal"
    r"|[Kk]illing subprocess \d+.{0,40}SIGINT|user (?:interrupt"
    r"|abort)|Detected KeyboardInterrupt|^KeyboardInterrupt$"
)
_ASKED_TO_LEAVE = re.compile(
    r"Received (?P<number>\d+) death signal|(?:[Rr]eceived"
    r"|got|[Cc]aught) (?:a )?(?:termination )?(?:signal )?:?\s?(?P<name>SIGTERM"
    r"|SIGHUP|SIGUSR\d|SIGKILL)\b|got signal: (?P<other>\d+)"
)


_HINT = re.compile(
    "err|fatal|fail|kill|memory|oom|xid|nvrm|cancel|abort|time[do]|timeout|limit|stuck|hang|hung|blocked|lock"
    "|stall|no progress|no output|no new|heartbeat|interrupt|signal|sig[a-z]{2,5}|terminat|fault|exception|quit"
    "|illegal|assert|what\\(\\)|\\(\\): |corrupt|smash|no such|not found|denied|space left|too many|can't|cannot"
    "|unable|exit|died|evict|preempt|node |state=|\\^c|quota|no module|override|resource|frozen|unrespons|libc"
    "|check failed|low on|barrier|socket|rendezvous|traps|mismatch"
)


def notices(lines: Sequence[LogLine], taken: set[int]) -> list[Notice]:
    """Return every notice of a failure; ``taken`` are the lines that belong to tracebacks."""
    found: list[Notice] = []
    silent: set[str] = set()  # shapes of lines that tell nothing: most lines of a log differ in numbers only
    for at, line in enumerate(lines):
        if at in taken or not line.text:
            continue
        shape = _NUMBERS.sub("0", line.text)
        if shape in silent:
            continue
        notice = _notice(line.text, at)
        if notice is not None:
            found.append(notice)
        elif len(silent) < SHAPES_LIMIT:
            silent.add(shape)
    return found


def _notice(text: str, at: int) -> Notice | None:
    if not _HINT.search(text.lower()) or "causes include" in text or "potential root causes" in text:
        return None
    for kind, pattern in _FACTS:
        if pattern.search(text):
            return Notice(kind, at, is_fact=True)
    if _STEP_CANCELLED.search(text):
        return Notice(K.KILLED_BY_SIGNAL, at, is_echo=True)
    if _ASSERTED_ON_GPU.search(text):
        saying = meaning(text)
        return Notice(saying.kind if saying is not None and saying.kind is K.NAN_LOSS else K.CUDA_ERROR, at)
    if _LINK_FAILED.search(text):
        return Notice(K.NCCL_TIMEOUT, at)
    if _STUCK.search(text) and not _SUPPOSES.search(text):
        return Notice(K.HANG, at)
    if _INTERRUPTED.search(text):
        return Notice(K.USER_INTERRUPT, at, is_echo=True, signal=SIGINT)
    asked = _ASKED_TO_LEAVE.search(text)
    if asked is not None:
        return _asked(asked, at)
    number = shell_signal(text)
    if number is not None:
        return Notice(kind_of_signal(number), at, is_echo=True, signal=number)
    left = _RANK_LEFT.search(text)
    number = launcher_signal(text)
    if number is not None:
        rank = left.group(1) if left is not None else None
        return Notice(kind_of_signal(number), at, is_echo=True, signal=number, is_launchers=True, rank=rank)
    if left is not None:
        return Notice(K.CODE_ERROR, at, is_echo=True, is_launchers=True, rank=left.group(1))
    if _MEMORY_FAULT.search(text):
        return Notice(K.SEGFAULT, at)
    return _of_words(text, at)


def _of_words(text: str, at: int) -> Notice | None:
    """Judge a line by the same words as an exception, where it is plainly an error that speaks."""
    if _ARGUMENTS.search(text):
        return Notice(K.CONFIG_ERROR, at)
    for kind, pattern in _NOT_STARTED:
        if pattern.search(text):
            return Notice(kind, at, is_echo=_INTERPRETER.match(text) is None)
    is_native = _NATIVE.search(text) is not None
    if not is_native and not _SAYS_ERROR.search(text):
        return None
    saying = meaning(text) or library_meaning(text)
    if saying is None or (not is_native and _GETS_OVER.search(text)):
        return None
    return Notice(saying.kind, at, is_echo=saying.is_echo or not is_native)


def _asked(found: re.Match[str], at: int) -> Notice:
    number = found.group("number") or found.group("other")
    signal = int(number) if number else SIGHUP if found.group("name") == "SIGHUP" else SIGTERM
    return Notice(kind_of_signal(signal), at, is_echo=True, signal=signal)
