"""What one Python exception in a log means: its type, its words, and the place it was raised at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from overnight.domain import crash_places as places
from overnight.domain.attempt import FailureKind
from overnight.domain.crash_ends import SIGTERM, kind_of_signal, launcher_signal
from overnight.domain.crash_library_words import library_meaning
from overnight.domain.crash_sayings import meaning
from overnight.domain.crash_tracebacks import Raised

K = FailureKind


class Weight(IntEnum):
    """How much an exception says about the cause."""

    NOTHING = 0  # it only passes on what happened elsewhere
    ECHO = 1  # it tells of a failure that began elsewhere
    GENERAL = 2  # an exception, and no more is known
    SPECIFIC = 3  # it says what is wrong


@dataclass(frozen=True, slots=True)
class Judged:
    """An exception's meaning."""

    kind: FailureKind
    weight: Weight
    signal: int | None = None  # what a process is said to have died of


_PASSED_ON = frozenset(
    [
        "ChildFailedError",
        "RayTaskError",
        "ProcessRaisedException",
        "CalledProcessError",
        "DatasetGenerationError",
        "HydraException",
        "SystemExit",
        "WorkerCrashedError",
        "InstantiationException",
        "ExceptionGroup",
        "RetryError",
        "EngineDeadError",
        "Empty",
        "Full",
        "CancelledError",
        "ProcessExitedException",
    ]
)
_DIED = re.compile(r"died unexpectedly(?![\s\S]*[Nn]ode has died)")
_POSSIBLE_CAUSES = re.compile(r"(?:common|potential root|possible) causes")
_TELLS_OF_OTHERS = re.compile(r"^(?:Caught \w+ in|Engine core initialization failed)")

_BY_TYPE = {
    "ModuleNotFoundError": K.DEPENDENCY,
    "ImportError": K.DEPENDENCY,
    "PackageNotFoundError": K.DEPENDENCY,
    "PermissionError": K.PERMISSION,
    "MemoryError": K.HOST_OOM,
    "KeyboardInterrupt": K.USER_INTERRUPT,
    "FloatingPointError": K.NAN_LOSS,
    "UnicodeDecodeError": K.DATA_FORMAT,
    "PicklingError": K.MULTIPROCESSING,
    "HFValidationError": K.FILE_NOT_FOUND,
    **dict.fromkeys(("RendezvousTimeoutError", "RendezvousConnectionError"), K.NCCL_TIMEOUT),
    **dict.fromkeys(
        [
            "GatedRepoError",
            "RepositoryNotFoundError",
            "HfHubHTTPError",
            "LocalEntryNotFoundError",
            "OfflineModeIsEnabled",
        ],
        K.NETWORK_HUB,
    ),
    **dict.fromkeys(
        [
            "ConfigAttributeError",
            "ConfigKeyError",
            "ConfigTypeError",
            "ConfigValueError",
            "MissingMandatoryValue",
            "BadParameter",
            "MissingConfigException",
            "ConfigCompositionException",
            "ValidationError",
            "MisconfigurationException",
            "ScannerError",
            "DeepSpeedConfigError",
            "ArgumentError",
            "StrictDataclassFieldValidationError",
            "StrictDataclassClassValidationError",
            "OverrideParseException",
            "UnsupportedInterpolationType",
            "InterpolationKeyError",
            "TOMLDecodeError",
            "BadOptionUsage",
            "HfArgumentError",
            "ConfigError",
            "ConfigurationError",
        ],
        K.CONFIG_ERROR,
    ),
}


def judge(raised: Raised) -> Judged:
    """Return what one exception means."""
    name, text = raised.name, f"{raised.type}: {raised.message}"
    whole = _POSSIBLE_CAUSES.split(f"{text}\n{raised.more}")[0]
    if name == "SignalException":
        told = re.search(r"signal: (\d+)", text)
        number = int(told.group(1)) if told is not None else SIGTERM
        return Judged(kind_of_signal(number), Weight.ECHO, number)
    died_of = launcher_signal(text) if name in _PASSED_ON else None
    if died_of is not None:
        return Judged(kind_of_signal(died_of), Weight.ECHO, died_of)
    if name in _PASSED_ON or _TELLS_OF_OTHERS.match(raised.message):
        return Judged(K.CODE_ERROR, Weight.NOTHING)
    if name == "KeyboardInterrupt":
        return Judged(K.USER_INTERRUPT, Weight.ECHO)
    if name == "ImportError" and re.search(r"failed to map segment|annot allocate memory", text):
        return Judged(K.HOST_OOM, Weight.SPECIFIC)  # under a limit on memory; the library itself is fine
    if name in _BY_TYPE and not (name == "PermissionError" and "/dev/shm" in text):
        return Judged(_BY_TYPE[name], Weight.SPECIFIC)
    if "is killed by signal" in text or "exited unexpectedly" in text or "abruptly died" in text or _DIED.search(whole):
        return _dead_worker(text)
    if name in places.FILE_TYPES:
        return Judged(_missing(raised, whole), Weight.SPECIFIC)
    for words in (whole,) if name == "UnpicklingError" else (text, whole):
        found = meaning(words)
        if found is not None and found.kind is K.NCCL_TIMEOUT:
            found = meaning(whole) or found  # its last lines say what was wrong
        if found is None and (name not in ("KeyError", "AttributeError", "NameError") or raised.message.count(" ") > 5):
            found = library_meaning(words) if "JSONDecodeError" not in name else None
        if found is not None and not _is_only_a_hint(found.kind, raised, words):
            return Judged(found.kind, Weight.ECHO if found.is_echo else Weight.SPECIFIC)
    return _by_place(raised, name, whole)


def _dead_worker(text: str) -> Judged:
    """Judge the news that a helper process died: of what, the signal tells."""
    if "Bus error" in text:
        return Judged(K.MULTIPROCESSING, Weight.SPECIFIC)
    if "Segmentation fault" in text:
        return Judged(K.SEGFAULT, Weight.SPECIFIC)
    if "signal: Killed" in text or "abruptly died" in text or "died unexpectedly" in text:
        return Judged(K.HOST_OOM, Weight.ECHO)
    if "signal: Terminated" in text or "signal: Hangup" in text:
        return Judged(K.KILLED_BY_SIGNAL, Weight.ECHO)
    return Judged(K.MULTIPROCESSING, Weight.ECHO)


def _missing(raised: Raised, text: str) -> FailureKind:
    """Judge a file that is not there by who misses it."""
    frames = _frames(raised)
    if "usable temporary directory" in text:
        return K.DISK_FULL
    if re.search(r"/dev/shm|torch_\d+|/psm_|pymp-", text) or (not raised.message and places.PROCESSES.search(frames)):
        return K.MULTIPROCESSING
    if "subprocess" in frames and re.search(r"directory: '[\w.+-]+'$", text.strip()):
        return K.DEPENDENCY  # a program that is not installed
    if re.search(r"hf://|on the Hub\b|(?:couldn't|Couldn't) (?:reach|connect)", text):
        return K.NETWORK_HUB
    return K.FILE_NOT_FOUND


def _is_only_a_hint(kind: FailureKind, raised: Raised, text: str) -> bool:
    """Return whether words that fit mean something else, seen where the exception comes from."""
    if kind is K.FILE_NOT_FOUND and raised.name in ("ValueError", "KeyError", "TypeError"):
        return re.search(r"not found in the base model|not found in kwargs|[Tt]arget modules", text) is not None
    return False


def _by_place(raised: Raised, name: str, text: str) -> Judged:
    """Judge by where the exception was raised, where its words alone say little."""
    frames = _frames(raised)
    inner = "\n".join(f"{file}:{function}" for file, function in raised.frames[-4:])
    last_file, last_function = raised.frames[-1] if raised.frames else ("", "")
    if name == "JSONDecodeError" or (name in ("EOFError", "UnpicklingError") and "load" in inner):
        return Judged(_broken_file(frames, inner, name), Weight.SPECIFIC)
    if name in places.BROKEN_LINKS or (name == "ConnectionRefusedError" and places.PROCESSES.search(frames)):
        kind = K.NETWORK_HUB if places.HUB.search(frames) else K.MULTIPROCESSING
        return Judged(kind, Weight.SPECIFIC if kind is K.NETWORK_HUB else Weight.ECHO)
    if name in ("TimeoutError", "ConnectionError", "ConnectionRefusedError", "timeout"):
        is_collective = places.COLLECTIVES.search(frames) is not None
        return Judged(K.NCCL_TIMEOUT if is_collective else K.NETWORK_HUB, Weight.SPECIFIC)
    if places.LOST_LINK.search(raised.message) and places.COLLECTIVES.search(frames):
        return Judged(K.NCCL_TIMEOUT, Weight.ECHO)
    if "must match the size of tensor" in text and places.OPTIMIZER.search(inner):
        return Judged(K.CHECKPOINT_MISMATCH, Weight.SPECIFIC)
    if last_function == "<module>" and places.INSTALLED.search(last_file) and name != "AssertionError":
        return Judged(K.DEPENDENCY, Weight.SPECIFIC)  # a package breaks while it is imported
    hub_or_path = re.search(r"Can't load (?:the )?[\w ]+ (?:for|of) '([^']+)'", text)
    if hub_or_path is not None:
        is_path = hub_or_path.group(1).startswith((".", "/", "~")) or hub_or_path.group(1).count("/") > 1
        return Judged(K.FILE_NOT_FOUND if is_path else K.NETWORK_HUB, Weight.SPECIFIC)
    if name == "AttributeError" and re.search(r"module '[\w.]+' has no attribute", text):
        return Judged(K.DEPENDENCY, Weight.SPECIFIC)
    if name == "AttributeError" and re.search(r"[Cc]an't pickle|[Cc]an't get", text):
        return Judged(K.MULTIPROCESSING, Weight.SPECIFIC)
    if name == "TypeError" and places.FOREIGN_KEYWORD.search(text):
        return Judged(K.CONFIG_ERROR, Weight.SPECIFIC)
    if name == "KeyError" and re.search(r"configuration_auto|CONFIG_MAPPING|modeling_auto", inner):
        return Judged(K.DEPENDENCY, Weight.SPECIFIC)
    if re.search(
        r"on the same device|on device .{1,200} but found|[Ii]nput type .{1,80} and (?:weight|bias) type", text
    ):
        return Judged(K.CODE_ERROR, Weight.GENERAL)
    is_library = places.INSTALLED.search(last_file) is not None
    is_about_tensors = name == "RuntimeError" and places.TENSORS.search(raised.message) is not None
    is_setting = (
        name not in places.PLAIN_FAULTS and not is_about_tensors and places.SETTING_WORDS.search(text) is not None
    )
    if (
        name in places.REFUSALS - {"TypeError"}
        and places.STRONG_WORDS.search(raised.message)
        and not _is_about_data(raised)
    ):
        return Judged(K.CONFIG_ERROR, Weight.SPECIFIC)
    if (
        is_library
        and name in places.REFUSALS
        and (places.ARGUMENT_FILE.search(last_file) or places.VALIDATES.search(last_function))
    ):
        return Judged(K.CONFIG_ERROR, Weight.SPECIFIC)
    if is_setting and (is_library or places.CHECKS.search(last_function)):
        return Judged(K.CONFIG_ERROR, Weight.SPECIFIC)
    if name == "KeyError" and places.ENVIRONMENT_NAME.match(raised.message):
        return Judged(K.CONFIG_ERROR, Weight.SPECIFIC)
    if name == "KeyError" and places.WEIGHT_NAME.search(raised.message) and places.LOADS.search(last_function):
        return Judged(K.CHECKPOINT_MISMATCH, Weight.SPECIFIC)
    if name == "KeyError" and (places.COLUMNS.match(raised.message) or places.ROWS.search(raised.code)):
        return Judged(K.DATA_FORMAT, Weight.SPECIFIC)
    if name in ("KeyError", "ValueError", "IndexError", "UnicodeError") and _is_about_data(raised):
        return Judged(K.DATA_FORMAT, Weight.SPECIFIC)
    if name == "StopIteration" and re.search(r"next\(iter\(.{0,80}(?:data|loader)", raised.code):
        return Judged(K.DATA_FORMAT, Weight.SPECIFIC)  # there is not one row
    if name in ("TypeError", "AttributeError") and places.PLAIN_VALUE.search(text) and _is_about_data(raised):
        return Judged(K.DATA_FORMAT, Weight.SPECIFIC)
    return Judged(K.CODE_ERROR, Weight.GENERAL)


def _is_about_data(raised: Raised) -> bool:
    return any(places.DATA.search(f"{file}:{function}") for file, function in raised.frames[-5:])


def _broken_file(frames: str, inner: str, name: str) -> FailureKind:
    if places.HUB.search(inner):
        return K.NETWORK_HUB
    if places.SETTINGS.search(inner) and name == "JSONDecodeError":
        return K.CONFIG_ERROR
    if places.STATE_FILES.search(frames) or name != "JSONDecodeError":
        return K.CHECKPOINT_CORRUPT
    return K.DATA_FORMAT


def _frames(raised: Raised) -> str:
    return "\n".join(f"{file}:{function}" for file, function in raised.frames)
