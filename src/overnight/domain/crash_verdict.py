"""What a training run died of, from its log and how it ended: the root cause, not its echoes.

Kernel and scheduler come first where they are decisive, then the exception that nobody caught, then what stands in
the log; what only follows from another failure (a process that a launcher ended, a broken connection, a killed helper)
counts where nothing else is found. A failure after which training went on is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from overnight.domain import crash_ends as ends
from overnight.domain.attempt import FailureKind
from overnight.domain.crash_exceptions import Weight, judge
from overnight.domain.crash_lines import LogLine, read_lines
from overnight.domain.crash_notices import Notice, notices
from overnight.domain.crash_numbers import LossLine, divergence, ended_well, last_moved, losses
from overnight.domain.crash_tracebacks import Link, Raised, chains
from overnight.domain.printable import shown

K = FailureKind

EVIDENCE_LIMIT = 5
EVIDENCE_WIDTH = 300


class Rank(IntEnum):
    """How near to the root a finding stands; the lower one wins, then the earlier one."""

    FACT = 0  # kernel or scheduler say so
    SPECIFIC = 1  # an exception or native code that says what is wrong
    GENERAL = 2  # an exception that says little, a collective that timed out, a run that stood still
    NUMBERS = 3  # the loss was lost
    ECHO = 4  # what follows from another failure


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the log that may be the cause."""

    kind: FailureKind
    rank: Rank
    at: int  # index of the line
    signal: int | None = None
    is_caught: bool = False  # somebody caught the exception
    stream: str = ""  # which process says so
    is_launchers: bool = False
    left: str | None = None  # the rank that ended first, as its launcher tells


@dataclass(frozen=True, slots=True)
class Clue:
    """A line of the log that speaks for the verdict."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run died of."""

    kind: FailureKind
    confidence: float  # 0 to 1
    evidence: tuple[Clue, ...]
    reason: str
    is_guess: bool = False  # from the exit status alone: the log names no cause


def classify_log(
    raw: Iterable[str] | Iterable[tuple[int, str]], exit_code: int | None = None, signal: int | None = None
) -> Verdict:
    """Name the cause from a log's lines (numbered ones where they are excerpts) and how the process ended."""
    numbered = [line if isinstance(line, tuple) else (number, line) for number, line in enumerate(raw, 1)]
    lines = read_lines(numbered)
    case = _Case(lines, ends.end_of(exit_code, signal))
    return case.verdict()


class _Case:
    """Everything found in one log."""

    def __init__(self, lines: Sequence[LogLine], end: ends.End) -> None:
        self.lines = lines
        self.end = end
        self.losses: list[LossLine] = losses(lines)
        groups = chains(lines)
        taken = {at for group in groups for raised in group for at in range(raised.first, raised.last + 1)}
        self.findings = [finding for group in groups if (finding := _of_chain(group)) is not None]
        self.findings += [_of_notice(notice, lines) for notice in notices(lines, taken)]
        self.findings.sort(key=lambda finding: finding.at)
        self.lost: LossLine | None = divergence(self.losses)

    def verdict(self) -> Verdict:
        """Return the verdict."""
        if self.end.is_clean:
            return self._of_clean_end()
        standing = self._standing()
        best = self._best(standing)
        if best is not None and not self._is_noise_of_leaving(best):
            return self._told(best)
        if self.lost is not None:
            return self._of_lost_numbers()
        return self._of_end_alone()

    def _is_noise_of_leaving(self, best: Finding) -> bool:
        """Return whether training had ended well before, and only its helpers complain of that."""
        is_faint = best.rank is Rank.ECHO and best.signal is None
        return is_faint and not self.end.is_known and ended_well(self.lines[: best.at])

    def _of_clean_end(self) -> Verdict:
        """Judge a run that left with 0: only lost numbers, or an end that a wrapper hid, speak against it."""
        if self.lost is not None:
            return self._of_lost_numbers()
        fatal = [
            finding
            for finding in self._standing()
            if finding.rank in (Rank.FACT, Rank.SPECIFIC, Rank.GENERAL) and not finding.is_caught
        ]
        if fatal and not ended_well(self.lines):
            return self._told(self._best(fatal) or fatal[0])
        return Verdict(K.NONE, 0.95, (), "it left with exit code 0, and nothing in the log speaks against it")

    def _standing(self) -> list[Finding]:
        """Return the findings after which training did not go on."""
        moved = last_moved(self.lines, self.losses)
        standing = [finding for finding in self.findings if finding.at >= moved]
        if not standing and self.end.is_known and not self.end.is_clean:
            standing = [finding for finding in self.findings if finding.rank is not Rank.ECHO and not finding.is_caught]
        return standing

    def _best(self, standing: Sequence[Finding]) -> Finding | None:
        """Return the finding nearest to the root."""
        if not standing:
            return None
        uncaught = [finding for finding in standing if not finding.is_caught] or list(standing)
        best = min(uncaught, key=lambda finding: (finding.rank, finding.at))
        if best.rank is Rank.FACT and best.kind is K.KILLED_BY_SIGNAL:
            best = self._before_the_scheduler(best, uncaught)
        if best.rank is Rank.FACT and best.kind is K.GPU_HARDWARE:
            best = self._before_the_kernel(best, uncaught)
        if best.rank is Rank.SPECIFIC:
            best = self._before_its_fallout(best, uncaught)
        interrupt = self._interrupt(uncaught)
        if interrupt is not None and (best.rank >= Rank.GENERAL or best.at >= interrupt.at):
            return interrupt
        is_weak = best.rank is Rank.ECHO or best.kind in (K.CODE_ERROR, K.KILLED_BY_SIGNAL, K.HANG)
        if self.lost is not None and is_weak and best.at > self.lost.at:
            return Finding(K.NAN_LOSS, Rank.NUMBERS, self.lost.at)
        return self._root_of_echoes(uncaught) if best.rank is Rank.ECHO else best

    def _before_the_scheduler(self, fact: Finding, found: Sequence[Finding]) -> Finding:
        """Return what failed before a job was cancelled, where it failed by itself."""
        own = [finding for finding in found if finding.at < fact.at and finding.rank in (Rank.SPECIFIC, Rank.GENERAL)]
        memory = [finding for finding in found if finding.rank is Rank.FACT and finding.kind is not fact.kind]
        if memory:
            return memory[0]
        return min(own, key=lambda finding: (finding.rank, finding.at)) if own else fact

    def _before_the_kernel(self, fact: Finding, found: Sequence[Finding]) -> Finding:
        """Return what the program itself says where the GPU's driver only reports a fault of the program."""
        facts = [finding for finding in found if finding.rank is Rank.FACT and finding.kind is K.GPU_HARDWARE]
        broken = [finding for finding in facts if not _is_fault_of_program(self.lines[finding.at].text)]
        if broken:
            return broken[0]
        own = [finding for finding in found if finding.kind in (K.CUDA_ERROR, K.CUDA_OOM)]
        return own[0] if own else fact

    def _before_its_fallout(self, best: Finding, found: Sequence[Finding]) -> Finding:
        """Return the timed out collective or lost run that came well before an error of device or process."""
        if best.kind not in (K.CUDA_ERROR, K.SEGFAULT, K.MULTIPROCESSING, K.HOST_OOM, K.NETWORK_HUB):
            return best
        earlier = [
            finding
            for finding in found
            if finding.at < best.at
            and finding.rank is Rank.GENERAL
            and (
                finding.kind in (K.NCCL_TIMEOUT, K.HANG) or best.kind in (K.SEGFAULT, K.NETWORK_HUB, K.MULTIPROCESSING)
            )
        ]
        return earlier[0] if earlier else best

    def _interrupt(self, found: Sequence[Finding]) -> Finding | None:
        """Return the interrupt by a user, unless something had failed before it."""
        asked = [finding for finding in found if finding.kind is K.USER_INTERRUPT]
        if not asked:
            return None
        before = [f for f in found if f.at < asked[0].at and f.rank in (Rank.FACT, Rank.SPECIFIC)]
        if before and self.end.signal != ends.SIGINT:
            return None
        is_other_signal = self.end.signal not in (None, ends.SIGINT)
        return None if is_other_signal else asked[0]

    def _root_of_echoes(self, found: Sequence[Finding]) -> Finding:
        """Return the echo that tells most, where there are only echoes."""
        echoes = [finding for finding in found if finding.rank is Rank.ECHO]
        asked = [f for f in echoes if f.signal in (ends.SIGTERM, ends.SIGHUP) and not f.is_launchers]
        died = [f for f in echoes if f.signal is not None and f.signal not in (ends.SIGTERM, ends.SIGHUP)]
        if asked and not any(finding.at < asked[0].at for finding in died):
            return asked[0]
        if died:
            return min(died, key=lambda finding: (_TELLING.get(finding.signal or 0, 1), finding.at))
        ended = [finding for finding in echoes if finding.signal is not None and finding.left is not None]
        if ended:
            return ended[0]
        words = [finding for finding in echoes if finding.signal is None and finding.left is None]
        left = [f for f in echoes if f.left is not None and not any(word.stream == f.left for word in words)]
        if left and (not words or all(word.kind is K.NCCL_TIMEOUT and word.stream for word in words)):
            return left[0]
        return (words or echoes)[0]

    def _of_lost_numbers(self) -> Verdict:
        assert self.lost is not None
        finding = Finding(K.NAN_LOSS, Rank.NUMBERS, self.lost.at)
        return self._told(finding, "the loss was lost, and never came back")

    def _of_end_alone(self) -> Verdict:
        """Judge by the exit status where the log says nothing."""
        kind, confidence = ends.kind_of_end(self.end)
        if self.end.signal == ends.SIGKILL and self._was_short_of_memory():
            kind = K.HOST_OOM
        if kind is K.NONE:
            return Verdict(K.NONE, confidence, (), "nothing in the log tells of a failure")
        last = [at for at, line in enumerate(self.lines) if line.text.strip()][-1:]
        return Verdict(
            kind, confidence, self._clues(last), f"{self.end.in_words()}, and the log says nothing more", is_guess=True
        )

    def _was_short_of_memory(self) -> bool:
        """Return whether a run that was killed without a word was about to fill the memory, as far as its log tells."""
        last = [line.text for line in self.lines if line.text.strip()][-20:]
        return any(_MEMORY.search(text) for text in last) or (bool(last) and not self.losses)

    def _told(self, finding: Finding, reason: str = "") -> Verdict:
        confidence = {Rank.FACT: 0.97, Rank.SPECIFIC: 0.92, Rank.GENERAL: 0.75, Rank.NUMBERS: 0.85, Rank.ECHO: 0.6}
        others = [f.at for f in self.findings if f.kind is finding.kind and f.at != finding.at]
        end = self.end.in_words()
        told = reason or f"line {self.lines[finding.at].number} names it"
        return Verdict(
            finding.kind,
            confidence[finding.rank],
            self._clues([finding.at, *others]),
            f"{told}; {end}" if end else told,
        )

    def _clues(self, found: Sequence[int]) -> tuple[Clue, ...]:
        clues: dict[tuple[int, str], Clue] = {}
        for at in found:
            line = self.lines[at]
            text = shown(line.text.strip()[:EVIDENCE_WIDTH])[:EVIDENCE_WIDTH]
            clues.setdefault((line.number, text), Clue(line.number, text))
        return tuple(clues.values())[:EVIDENCE_LIMIT]


_MEMORY = re.compile(
    r"\b(?:rss|resident|ram|host memory|cpu memory|memory|mem)\b|\b\d+(?:\.\d+)? ?[GM]i?B\b", re.IGNORECASE
)
_TELLING = {11: 0, 7: 0, ends.SIGABRT: 2}
"""Of several signals that processes died of, a memory fault tells most, an abort least."""


def _of_notice(notice: Notice, lines: Sequence[LogLine]) -> Finding:
    rank = Rank.FACT if notice.is_fact else Rank.ECHO if notice.is_echo else Rank.SPECIFIC
    if rank is Rank.SPECIFIC and notice.kind in (K.NCCL_TIMEOUT, K.HANG):
        rank = Rank.GENERAL
    return Finding(
        notice.kind,
        rank,
        notice.at,
        notice.signal,
        stream=lines[notice.at].stream,
        is_launchers=notice.is_launchers,
        left=notice.rank,
    )


def _of_chain(group: Sequence[Raised]) -> Finding | None:
    """Return what a chain of exceptions means: its root where one raised the next, else its last."""
    judged = [(raised, judge(raised)) for raised in group if not raised.is_ignored]
    told = [(raised, one) for raised, one in judged if one.weight is not Weight.NOTHING]
    if not told:
        return None
    best = max(one.weight for _, one in told)
    strongest = [(raised, one) for raised, one in told if one.weight is best]
    is_caused = any(raised.link is Link.CAUSE for raised in group)
    raised, one = strongest[0] if is_caused else strongest[-1]
    rank = {Weight.ECHO: Rank.ECHO, Weight.GENERAL: Rank.GENERAL, Weight.SPECIFIC: Rank.SPECIFIC}[one.weight]
    if one.kind is K.NCCL_TIMEOUT and rank is Rank.SPECIFIC:
        rank = Rank.GENERAL
    is_caught = not group[0].is_uncaught and not any(link.is_original for link in group)
    return Finding(one.kind, rank, raised.last, one.signal, is_caught=is_caught, stream=raised.stream)


def _is_fault_of_program(text: str) -> bool:
    """Return whether an Xid tells of a fault that programs cause, not hardware."""
    return "Xid" in text and any(f": {number}," in text for number in (13, 31, 43, 45, 8))
