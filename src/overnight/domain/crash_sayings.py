"""What libraries, drivers and the system say when something breaks, and which kind of failure each saying means.

A saying is judged wherever it stands: in an exception, in the last words of native code, in a line of a log. The first
that fits wins, so what says more precisely where the fault lies comes first. Whatever only echoes another failure is
marked as such: it counts where nothing else was found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from overnight.domain.attempt import FailureKind

K = FailureKind


@dataclass(frozen=True, slots=True)
class Saying:
    """A text and what it means."""

    kind: FailureKind
    pattern: re.Pattern[str]
    is_echo: bool = False  # it tells of a failure that began elsewhere


def _says(kind: FailureKind, *patterns: str, is_echo: bool = False) -> Saying:
    return Saying(kind, re.compile("|".join(patterns)), is_echo)


_DEVICE: tuple[Saying, ...] = (
    _says(
        K.DRIVER_MISMATCH,
        r"driver version is insufficient",
        r"NVIDIA driver on your system is too old",
        r"[Dd]river/library version mismatch",
        r"no kernel image is available",
        r"device kernel image is invalid",
        r"provided PTX was compiled with an unsupported toolchain",
        r"forward compatibility was attempted",
        r"unsupported display driver ?/ ?cuda driver combination",
        r"cudaErrorInsufficientDriver|CUDA_ERROR_(?:SYSTEM_DRIVER_MISMATCH|COMPAT_NOT_SUPPORTED|NO_BINARY_FOR_GPU)",
        r"CUDA_ERROR_UNSUPPORTED_PTX_VERSION|cudaErrorNoKernelImageForDevice",
        r"Found no NVIDIA driver on your system",
        r"couldn't communicate with the NVIDIA driver",
        r"[Ii]ncompatible (?:CUDA|NVIDIA) driver",
        r"CUDA driver is a stub library",
    ),
    _says(
        K.GPU_HARDWARE,
        r"uncorrectable (?:\w+ )?(?:ECC|NVLink)|[Uu]ncontained ECC|double.bit ECC|ECC error encountered",
        r"fallen off the bus|GPU is lost|GPU has been lost|GPU requires reset",
        r"Unable to determine the device handle for (?:GPU|gpu)",
        r"CUDA_ERROR_(?:ECC_UNCORRECTABLE|HARDWARE_STACK_ERROR|NVLINK_UNCORRECTABLE|DEVICE_UNAVAILABLE)",
        r"cudaErrorECCUncorrectable|hardware stack error|system not yet initialized",
        r"HSA_STATUS_ERROR_(?:EXCEPTION|MEMORY_FAULT).*hardware|GPU Hang|HW Exception by GPU",
        r"[Nn]ode (?:failure|failed|died|has died|was lost)"
        r"|NODE[ _]FAIL|NodeDiedError|node .{0,80}marked (?:as )?dead",
        r"All reallocation failed row remapp|[Rr]ow remapping failure",
    ),
    _says(
        K.CUDA_OOM,
        r"(?:CUDA|HIP|XPU|MPS backend|MUSA|NPU) out of memory",
        r"(?:CUDA|HIP|XPU) (?:driver )?error:? ?:? ?(?:2 )?:? ?out of memory"
        r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation",
        r"CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|CUSOLVER_STATUS_ALLOC_FAILED",
        r"Cuda failure (?:2 )?'out of memory'|cuda(?:Malloc|MallocAsync|HostAlloc)\w*.{0,40}out of memory",
        r"No available memory for the cache blocks|Triton Error \[CUDA\]: out of memory",
        r"Free memory on device .{0,120} is less than desired GPU memory utilization",
        r"larger than the maximum number of tokens that can be stored in KV cache",
        r"KV cache is needed, which is larger than the available KV cache memory",
        r"RESOURCE_EXHAUSTED: (?:Out of memory|OOM|XLA:TPU compile permanent error. Ran out of memory)",
        r"OOM when allocating tensor|ran out of memory trying to allocate|Allocator \(GPU_\d+_bfc\)",
        r"torch\.cuda\.OutOfMemoryError|torch\.OutOfMemoryError",
    ),
    _says(
        K.NAN_LOSS,
        r"probability tensor contains either",
        r"total norm of order .{1,40} for gradients .{0,60}non-finite",
        r"returned nan values in its \d+th output",
        r"[Cc]urrent loss scale already at minimum|Minimum loss scale reached",
        r"(?i:\b(?:loss|losses|gradients?|grad[_ ]norm|weights|parameters|logits|activations)\b"
        r"[^\n]{0,60}\b(?:is|are|was|were|became|becomes|went|contains?|has|have|got|=|:)\s*"
        r"(?:\w+ ){0,2}\(?(?:nan|inf(?:inity|inite)?|non-?finite|not finite|not a number|diverg\w+)\b)",
        r"(?i:\b(?:nan|inf|non-?finite|not finite|invalid|diverg\w+|infinite)\b(?: or \w+)?[^\n]{0,20} "
        r"(?:(?:training|train|policy|value|total|global|in|of|for|the) ){0,3}(?:loss"
        r"|losses|gradients?|grad[_ ]norm|logits|weights)\b)",
        r"(?i:\bloss (?:has )?(?:exploded|diverged|divergence)"
        r"|training (?:has )?diverged|\bnan(?:/inf)? (?:was |is )?(?:detected|encountered|found))",
        r"Input (?:X |y )?contains (?:NaN|infinity)|cannot convert float (?:NaN|infinity) to integer",
        r"Expected parameter .{1,200} to satisfy the constraint [\s\S]{0,600}\bnan\b",
        r"contains? non-finite values|value cannot be converted to type .{1,20} without overflow: (?:nan|inf)",
        r"array must not contain infs or NaNs",
    ),
    _says(
        K.CONFIG_ERROR,
        r"Duplicate GPU detected",
        r"invalid device ordinal|CUDA_ERROR_INVALID_DEVICE|cudaErrorInvalidDevice\b",
        r"No CUDA GPUs are available|CUDA is not available"
        r"|no (?:CUDA|GPU)s? (?:is|are|was|were)? ?(?:available|found|detected)",
        r"[Aa]ddress already in use|EADDRINUSE",
        r"ncclInvalidUsage|ncclInvalidArgument",
    ),
    _says(
        K.DEPENDENCY,
        r"CUDNN_STATUS_(?:NOT_INITIALIZED|VERSION_MISMATCH|SUBLIBRARY\w*|ARCH_MISMATCH).{0,80}version",
        r"cuDNN version incompatibility|CUDNN_STATUS_(?:SUBLIBRARY_)?VERSION_MISMATCH",
        r"Torch not compiled with CUDA enabled|not compiled with (?:NCCL|CUDA|GPU|distributed|ROCm|MPI) support",
        r"built with(?:out)? NCCL|Distributed package doesn't have NCCL",
        r"compiled with different CUDA (?:major )?versions|[Vv]ersion of CUDA .{0,120}mismatche?s",
    ),
    _says(
        K.CUDA_ERROR,
        r"CUDA error|CUDA driver error|HIP error|CUDA kernel errors might",
        r"device-side assert|illegal memory access|misaligned address"
        r"|unspecified launch failure|illegal instruction was",
        r"CUBLAS_STATUS_\w+|cuBLAS(?:Lt)? error|CUDNN_STATUS_\w+"
        r"|cuDNN error|CUSOLVER_STATUS|CUSPARSE_STATUS|CUFFT_\w+",
        r"Unable to find (?:a valid|an) (?:cuDNN|engine)|was unable to find an engine",
        r"CUDA_ERROR_\w+|cudaError\w+|Cuda failure|CUDA failure|CUDA launch failure|an illegal",
        r"Triton Error \[CUDA\]|HSA_STATUS_ERROR|Memory access fault by GPU",
        r"\.cu:\d+: .{0,400}Assertion .{1,300} failed",
    ),
)

_MACHINE: tuple[Saying, ...] = (
    _says(
        K.TOO_MANY_FILES,
        r"[Tt]oo many open files|\[Errno 2[34]\]|os error 24|EMFILE|ENFILE|received 0 items of ancdata",
        r"inotify (?:watch|instance) limit|file watch limit|unable to open .{0,80}: too many open",
    ),
    _says(
        K.MULTIPROCESSING,
        r"insufficient shared memory|out of shared memory|shared memory \(shm\)",
        r"/dev/shm.{0,200}No space left|No space left.{0,200}/dev/shm|[Ss]hared memory .{0,120}No space left",
        r"(?:unable|failed) to (?:open|allocate|create|map|mmap|attach|resize)[\w ]{0,20}shared memory",
        r"unable to (?:write to file|open file|mmap \d+ bytes from file|resize file) </torch_",
        r"creating shared memory segment",
    ),
    _says(
        K.DISK_FULL,
        r"No space left on device|\[Errno (?:28|122|27)\]|os error (?:28|122)|code: (?:28|122),|ENOSPC|EDQUOT",
        r"[Dd]isk quota exceeded|quota exceeded.{0,40}(?:write"
        r"|disk|file|home)|File too large|[Nn]ot enough (?:free )?disk space",
        r"PytorchStreamWriter failed|inline_container\.cc.{0,20}\.? ?\.? unexpected pos|unexpected pos \d+ vs \d+",
        r"(?:basic_ios::clear|ios_base::\w+).{0,40}iostream|iostream (?:stream )?error",
        r"database or disk is full|[Dd]isk (?:is )?full|[Ff]ile system (?:is )?full|out of disk space"
        r"|no usable temporary directory",
        r"(?i:insufficient (?:disk )?space|errno 28|StorageFull|No free space)",
        r"OSError: (?:\d+ requested and \d+ written)",
    ),
    _says(
        K.HOST_OOM,
        r"DefaultCPUAllocator|can't allocate memory|[Cc]annot allocate memory|\[Errno 12\]|os error 12\b",
        r"std::bad_alloc|bad_alloc|not enough memory: you tried to allocate",
        r"\bMemoryError\b|_ArrayMemoryError|Unable to allocate [\d.]+ [KMGTP]iB for an array",
        r"malloc of size \d+ failed|realloc of size \d+ failed|ArrowMemoryError|memory allocation of \d+ bytes failed",
        r"OutOfMemoryError: (?:Task|The actor|Worker"
        r"|\d+ Workers?).{0,400}memory|killed due to the node running low on memory",
        r"OOMKilled|[Oo]om.?[Kk]ill|OOM.?[Kk]iller|[Oo]ut of memory: Kill|[Mm]emory cgroup out of memory",
        r"exceeded (?:job|step|its)? ?memory limit|Exceeded (?:job"
        r"|step) memory|OUT_OF_MEMORY|: task \d+: Out Of Memory",
        r"earlyoom|systemd-oomd|low on memory|cgroup out-of-memory",
    ),
)

_LINK: tuple[Saying, ...] = (
    _says(
        K.NCCL_TIMEOUT,
        r"[Ww]atchdog caught collective operation timeout|collective operation timeout|Timeout at NCCL work",
        r"NCCL (?:operations have failed or timed out|watchdog|timeout|error.{0,60}timed? ?out)",
        r"RendezvousTimeoutError|[Rr]endezvous .{0,80}time(?:d )?out|RendezvousConnectionError|RendezvousClosedError",
        r"Timed out waiting \d+ ?ms for (?:recv|send|store)|[Tt]imed out after \d+ seconds? waiting for clients",
        r"[Ss]ocket [Tt]imeout|[Ww]ait timeout|wait for .{0,30} timed? ?out|Timed out initializing process group",
        r"client socket has (?:timed out|failed to connect)|(?:store|TCPStore|FileStore).{0,80}time(?:d )?[ -]?out",
        r"monitoredBarrier|[Bb]arrier .{0,60}time(?:d )?out|Ranks? .{0,40}failed to pass",
        r"Heartbeat monitor timed out|watchdog got stuck|NCCL.{0,20}hang|unable to (?:acquire|get) .{0,40}from store",
        r"DistStoreError|GLOO.{0,40}time|gloo/.{0,200}[Tt]imed? ?out"
        r"|HCCL.{0,80}time(?:d )?out|[Tt]imeout waiting for key",
        r"CoordinationService.{0,200}(?:timeout|DEADLINE)|DEADLINE_EXCEEDED.{0,200}(?:[Bb]arrier|coordinat)",
    ),
    _says(
        K.NCCL_TIMEOUT,
        r"gloo/.{0,200}(?:Connection (?:closed|reset)|Connect|Broken pipe|Read error|Write error)",
        r"NCCL communicator was aborted|Connection closed by (?:remote )?(?:peer|localRank)|remote process exited",
        r"(?:recvValue|sendBytes|recvBytes|recvVector|TCPStore).{0,120}(?:failed|[Cc]onnection|Broken pipe)",
        r"TCP client failed|Connection reset by peer.{0,80}(?:store|c10d)|ncclRemoteError",
        is_echo=True,
    ),
    _says(
        K.NCCL_TIMEOUT,
        r"ncclSystemError|ncclInternalError|ncclInProgress|ncclUnhandled|NCCL error|DistNetworkError|DistBackendError",
    ),
)

SAYINGS: tuple[Saying, ...] = (*_DEVICE, *_MACHINE, *_LINK)


def meaning(text: str) -> Saying | None:
    """Return the first saying that a text contains."""
    text = text[:20_000]
    for saying in SAYINGS:
        if saying.pattern.search(text):
            return saying
    return None
