"""What an exception of the trainer means: its kind, whether the job itself is to blame, and words for the user."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from overnight.domain.attempt import FailureKind
from overnight.domain.crash_sayings import meaning
from overnight.domain.errors import ConfigError, DataError, DiskError, OvernightError

K = FailureKind


class NonFiniteError(OvernightError):
    """The loss, the gradients or the weights are no longer numbers."""

    rows: tuple[int, ...] = ()  # that are to blame, each alone; empty where that is not known


class MismatchError(OvernightError):
    """A checkpoint does not belong to what is to be trained."""


class CorruptError(OvernightError):
    """A checkpoint cannot be read."""


class MissingPartError(OvernightError):
    """A library that this job needs is not there."""


class DeviceGoneError(OvernightError):
    """The device that the job was begun on is not there."""


class LostModelError(OvernightError):
    """The model's folder is no longer this trainer's."""


class LockedModelError(OvernightError):
    """Another trainer is at work on this model."""


class WrongMergeError(OvernightError):
    """What was merged is not what was trained, or nothing at all."""


class NoMemoryError(OvernightError):
    """The machine has not the memory that this takes."""


def no_qlora_on_mps() -> ConfigError:
    """Return the refusal of a combination that bitsandbytes does not know."""
    return ConfigError(
        "Method qlora does not work on this device",
        found="mps",
        expected="cuda or cpu",
        fix="set method to lora, or train.device to cpu",
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """What an exception means."""

    kind: FailureKind
    message: str
    charged: bool = False  # the job's own fault


_OURS: tuple[tuple[type[OvernightError], FailureKind, bool], ...] = (
    (NonFiniteError, K.NAN_LOSS, True),
    (DataError, K.DATA_FORMAT, True),
    (MismatchError, K.CHECKPOINT_MISMATCH, False),
    (CorruptError, K.CHECKPOINT_CORRUPT, False),
    (MissingPartError, K.DEPENDENCY, False),
    (DeviceGoneError, K.GPU_HARDWARE, False),
    (LostModelError, K.FILE_NOT_FOUND, False),
    (LockedModelError, K.CONFIG_ERROR, False),
    (NoMemoryError, K.HOST_OOM, False),
    (ConfigError, K.CONFIG_ERROR, False),
    (DiskError, K.DISK_FULL, False),
)

_ERRNOS = {
    errno.ENOSPC: K.DISK_FULL,
    errno.EDQUOT: K.DISK_FULL,
    errno.EFBIG: K.DISK_FULL,
    errno.EROFS: K.DISK_FULL,
    errno.EIO: K.DISK_FULL,
    errno.EMFILE: K.TOO_MANY_FILES,
    errno.ENFILE: K.TOO_MANY_FILES,
    errno.EACCES: K.PERMISSION,
    errno.EPERM: K.PERMISSION,
    errno.ENOENT: K.FILE_NOT_FOUND,
    errno.ENOMEM: K.HOST_OOM,
}

_TOLD_BY_WORDS = frozenset(
    {
        K.DISK_FULL,
        K.CUDA_OOM,
        K.HOST_OOM,
        K.DRIVER_MISMATCH,
        K.GPU_HARDWARE,
        K.CUDA_ERROR,
        K.TOO_MANY_FILES,
        K.MULTIPROCESSING,
    }
)
"""What the sayings of device and machine tell, which logs are judged by too (``domain/crash_sayings.py``)."""

_SAYINGS: tuple[tuple[str, FailureKind], ...] = (
    (r"can't start new thread", K.TOO_MANY_FILES),
    (r"huggingface\.co|Hugging Face Hub|gated repo|HF_HUB_OFFLINE|LocalEntryNotFound", K.NETWORK_HUB),
    (r"size mismatch for|Error\(s\) in loading state_dict|parameter group that doesn't match", K.CHECKPOINT_MISMATCH),
    (r"Error while deserializing header|PytorchStreamReader failed|invalid header or archive", K.CHECKPOINT_CORRUPT),
    (r"DataLoader worker .* (exited|is killed)", K.MULTIPROCESSING),
)

_NO_MEMORY = r"failed to map segment|[Cc]annot allocate memory"
"""What the loader of libraries says under a limit on memory: the library itself is fine."""

_NETWORK_MODULES = ("huggingface_hub", "requests", "httpx", "urllib3")


def judge(error: BaseException) -> Failure:
    """Return what an exception means."""
    if isinstance(error, OvernightError):
        for kind_of_error, kind, charged in _OURS:
            if isinstance(error, kind_of_error):
                return Failure(kind, str(error), charged)
        return Failure(K.CODE_ERROR, str(error))
    kind = _kind(error)
    return Failure(kind, _message(error, kind))


def _kind(error: BaseException) -> FailureKind:
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and re.search(_NO_MEMORY, str(error))):
        return K.HOST_OOM
    if isinstance(error, ImportError):
        return K.DEPENDENCY
    if isinstance(error, KeyboardInterrupt):
        return K.USER_INTERRUPT
    if type(error).__name__ == "OutOfMemoryError":
        return K.CUDA_OOM
    for link in _chain(error):
        if type(link).__module__.split(".")[0] in _NETWORK_MODULES:
            return K.NETWORK_HUB
        if isinstance(link, OSError) and link.errno in _ERRNOS:
            return _ERRNOS[link.errno]
    text = str(error)[:20_000]
    said = meaning(text)
    if said is not None and said.kind in _TOLD_BY_WORDS:
        return said.kind
    for saying, kind in _SAYINGS:
        if re.search(saying, text):
            return kind
    return K.CODE_ERROR


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and what caused it, at most a few links."""
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(links) < 5:
        links.append(link)
        link = link.__cause__
    return links


_MEANINGS = {
    K.HOST_OOM: ("The machine ran out of memory", "free memory, or lower train.batch_size or max_length"),
    K.CUDA_OOM: ("The GPU ran out of memory", "lower train.batch_size or max_length, or use method lora or qlora"),
    K.DEPENDENCY: ("A library is missing or broken", "pip install 'overnight[train]' into the daemon's environment"),
    K.USER_INTERRUPT: ("The trainer was interrupted", "nothing: the job is tried again"),
    K.DISK_FULL: ("The disk refused a write", "free space; work goes on by itself then"),
    K.TOO_MANY_FILES: (
        "The process ran out of file handles or threads",
        "raise the limit on open files (ulimit -n) or on processes and threads (ulimit -u)",
    ),
    K.PERMISSION: ("A file may not be read or written", "mend its owner or mode"),
    K.FILE_NOT_FOUND: ("A file is not there", "bring it back, or mend the path"),
    K.NETWORK_HUB: ("The model could not be fetched from the Hugging Face Hub", "check the network, the id and access"),
    K.CUDA_ERROR: ("The GPU reported an error", "nothing at first: a new process tries again"),
    K.GPU_HARDWARE: ("The GPU reported a hardware fault", "check the GPU; dmesg and nvidia-smi tell more"),
    K.DRIVER_MISMATCH: ("The GPU driver does not fit this torch", "install the torch build for this driver"),
    K.CHECKPOINT_MISMATCH: ("The checkpoint does not fit the model", "see overnight config lock"),
    K.CHECKPOINT_CORRUPT: ("A file of the model or checkpoint is damaged", "see overnight verify"),
    K.MULTIPROCESSING: ("A helper process of the trainer died", "nothing: the job is tried again"),
    K.CODE_ERROR: ("The trainer met an unexpected error", "see logs/trainer.log; overnight retry tries again"),
}


def _message(error: BaseException, kind: FailureKind) -> str:
    what, fix = _MEANINGS[kind]
    lines = str(error).strip().splitlines()
    found = f"{type(error).__name__}: {lines[0][:500]}" if lines else type(error).__name__
    return str(OvernightError(what, found=found, fix=fix))
