"""Short logs in the manner of the libraries that print them: one failure each, or none. Written for these tests."""

from __future__ import annotations

from dataclasses import dataclass

SITE = "/opt/env/lib/python3.11/site-packages"
STEPS = "\n".join(f"step {step} loss {2.5 - step / 50:.4f} lr 2e-4" for step in range(1, 9))
BARS = "  0%|          | 0/120 [00:00<?, ?it/s]\r  1%|▏         | 1/120 [00:01<02:03,  1.04s/it]"


@dataclass(frozen=True)
class Example:
    """A log, how its run ended, and what it died of."""

    name: str
    kind: str
    log: str
    exit_code: int | None = None


def traceback(error: str, *frames: str, main: str = "/home/me/run/train.py") -> str:
    """Return a traceback; a frame is "file:function" or "file:function:code"."""
    told = ["Traceback (most recent call last):", f'  File "{main}", line 88, in <module>', "    main()"]
    for number, frame in enumerate(frames):
        file, function, *code = frame.split(":", 2)
        told.append(f'  File "{file.replace("SITE", SITE)}", line {100 + number}, in {function}')
        told.append(f"    {code[0] if code else 'return inner(*args, **kwargs)'}")
    return "\n".join([*told, error])


def labelled(label: str, text: str) -> str:
    """Return a text with a launcher's label before each line."""
    return "\n".join(label + line for line in text.splitlines())


def chained(*tracebacks: str, by: str = "cause") -> str:
    """Return tracebacks that follow from each other."""
    words = {
        "cause": "The above exception was the direct cause of the following exception:",
        "during": "During handling of the above exception, another exception occurred:",
    }[by]
    return f"\n\n{words}\n\n".join(tracebacks)


def torchrun(rank: int, code: int, what: str = "") -> str:
    """Return what torchrun says when a rank has failed: an echo."""
    last = what or "To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html"
    error = f"""torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
  <NO_OTHER_FAILURES>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2025-03-02_10:11:12
  host      : node7
  rank      : {rank} (local_rank: {rank})
  exitcode  : {code} (pid: 4711)
  error_file: <N/A>
  traceback : {last}
============================================================"""
    sent = "W0302 10:11:12.100 99 torch/distributed/elastic/multiprocessing/api.py:898] Sending process 4712 closing signal SIGTERM"
    failed = f"E0302 10:11:12.300 99 torch/distributed/elastic/multiprocessing/api.py:870] failed (exitcode: {code}) local_rank: {rank} (pid: 4711) of binary: /opt/env/bin/python"
    return "\n".join(
        [
            sent,
            failed,
            traceback(error, "SITE/torch/distributed/launcher/api.py:launch_agent", main="/opt/env/bin/torchrun"),
        ]
    )


TRAINER = "SITE/transformers/trainer.py:training_step"
SAVE = "SITE/torch/serialization.py:_save"
LOAD = "SITE/torch/serialization.py:load"
PRETRAINED = "SITE/transformers/modeling_utils.py:from_pretrained"
DATASETS = "SITE/datasets/arrow_dataset.py:map"
WORKER = "SITE/torch/utils/data/_utils/worker.py:_worker_loop"
LOADER = "SITE/torch/utils/data/dataloader.py:_try_get_data"


def _of(kind: str, **examples: object) -> list[Example]:
    """Return examples of one kind: a log, or a log and an exit code."""
    found = []
    for name, given in examples.items():
        log, code = given if isinstance(given, tuple) else (given, None)
        found.append(Example(f"{kind}-{name}", kind, str(log), code))
    return found


CUDA_OOM = _of(
    "cuda_oom",
    new=(
        f"{BARS}{traceback('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 23.64 GiB of which 101.00 MiB is free.', TRAINER)}",
        1,
    ),
    old=traceback(
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 15.78 GiB total capacity; 14.2 GiB already allocated; 9.5 MiB free; 14.5 GiB reserved in total by PyTorch)",
        TRAINER,
    ),
    cublas=traceback(
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", TRAINER
    ),
    vllm=traceback(
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
        "SITE/vllm/worker/worker.py:initialize_cache",
    ),
    vllm_cache=traceback(
        "ValueError: To serve at least one request with the models's max seq len (131072), (16.0 GiB KV cache is needed, which is larger than the available KV cache memory (5.5 GiB).",
        "SITE/vllm/v1/core/kv_cache_utils.py:check_enough_kv_cache_memory",
    ),
    jax=traceback(
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.",
        "SITE/jax/_src/pjit.py:_pjit_call_impl",
    ),
    tensorflow=traceback(
        "tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error: OOM when allocating tensor with shape[8,4096,4096] and type float on /job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc",
        "SITE/keras/src/utils/traceback_utils.py:error_handler",
    ),
    triton=traceback("RuntimeError: Triton Error [CUDA]: out of memory", "SITE/triton/runtime/jit.py:run"),
    mps=traceback(
        "RuntimeError: MPS backend out of memory (MPS allocated: 17.9 GB, other allocations: 1.2 GB, max allowed: 18.1 GB). Tried to allocate 256.00 MB on private pool.",
        TRAINER,
    ),
    rocm=traceback(
        "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 1.00 GiB. GPU 3 has a total capacity of 63.98 GiB",
        TRAINER,
    ),
    deepspeed_echo="\n".join(
        [
            labelled(
                "[rank2]: ",
                traceback(
                    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.10 GiB. GPU 2 has a total capacity of 79.1 GiB",
                    "SITE/deepspeed/runtime/engine.py:backward",
                ),
            ),
            "[2025-02-01 11:11:11,123] [INFO] [launch.py:319:sigkill_handler] Killing subprocess 8811",
            "[2025-02-01 11:11:11,223] [ERROR] [launch.py:325:sigkill_handler] ['/opt/env/bin/python', '-u', 'train.py'] exits with return code = 1",
        ]
    ),
    then_nccl="\n".join(
        [
            labelled(
                "[rank1]: ",
                traceback(
                    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 64.00 MiB. GPU 1 has a total capacity of 39.39 GiB",
                    TRAINER,
                ),
            ),
            "[rank0]:[E302 10:21:12.123 ProcessGroupNCCL.cpp:632] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=812, OpType=ALLREDUCE, NumelIn=1, Timeout(ms)=600000) ran for 600012 milliseconds before timing out.",
            torchrun(1, 1),
        ]
    ),
    bnb="\n".join(
        [
            STEPS,
            "Error an illegal memory access is not what this is",
            traceback(
                "RuntimeError: CUDA driver error: out of memory", "SITE/bitsandbytes/functional.py:quantize_4bit"
            ),
        ]
    ),
    killed_later=(
        f"{traceback('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB.', TRAINER)}\n./go.sh: line 4:  5121 Killed                  python train.py",
        137,
    ),
    nccl=traceback(
        "torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1970, unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.20.5\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nFailed to CUDA calloc async 4 bytes, Cuda failure 2 'out of memory'",
        "SITE/torch/distributed/c10d_logger.py:wrapper",
    ),
)

HOST_OOM = _of(
    "host_oom",
    kernel="[88123.1] python invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0\n[88123.9] Out of memory: Killed process 4242 (python) total-vm:98123456kB, anon-rss:63123456kB",
    cgroup="[551.2] Memory cgroup out of memory: Killed process 991 (pt_data_worker) total-vm:9912345kB, anon-rss:8123456kB, oom_score_adj:0",
    slurm=(
        f"{STEPS}\nslurmstepd: error: Detected 1 oom_kill event in StepId=123.batch. Some of the step tasks have been OOM Killed.",
        137,
    ),
    srun="srun: error: gpu07: task 0: Out Of Memory\nsrun: Terminating StepId=99.0",
    loader=traceback("RuntimeError: DataLoader worker (pid 1817) is killed by signal: Killed. ", LOADER),
    numpy=traceback(
        "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 29.8 GiB for an array with shape (4000000000,) and data type float64",
        "/home/me/run/data.py:load",
    ),
    memory_error=traceback("MemoryError", "/home/me/run/train.py:main"),
    errno=traceback("OSError: [Errno 12] Cannot allocate memory", "/usr/lib/python3.11/subprocess.py:_execute_child"),
    cpu_allocator=traceback(
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried to allocate 68719476736 bytes.",
        TRAINER,
    ),
    bad_alloc=(
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\nAborted (core dumped)",
        134,
    ),
    ray=traceback(
        "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.\nMemory on the node (IP: 10.1.1.1, ID: ab) where the task (task ID: cd) was running was 62.1GB / 64.0GB (0.97)",
        "SITE/ray/_private/worker.py:get",
    ),
    torchrun_killed=(f"{STEPS}\n{torchrun(2, -9, 'Signal 9 (SIGKILL) received by PID 4711')}", 1),
    deepspeed=(
        "Loading checkpoint shards:  33%|███▎      | 1/3 [00:09<00:19,  9.7s/it]\n[2025-02-01 11:11:11,123] [INFO] [launch.py:319:sigkill_handler] Killing subprocess 77\n[2025-02-01 11:11:12,123] [ERROR] [launch.py:325:sigkill_handler] ['/usr/bin/python', 'x.py'] exits with return code = -9",
        247,
    ),
    loading_killed=("Loading dataset into memory...\nrss 30.2 GB\nrss 45.9 GB\nKilled", 137),
    docker="trainer exited with code 137\ntrainer  State: OOMKilled true",
    map_died=(
        traceback(
            "RuntimeError: One of the subprocesses has abruptly died during map operation.To debug the error, disable multiprocessing.",
            DATASETS,
        ),
        1,
    ),
    mapping=traceback(
        "ImportError: libtorch_cpu.so: failed to map segment from shared object: Cannot allocate memory",
        "SITE/torch/__init__.py:<module>",
    ),
    arrow=traceback("pyarrow.lib.ArrowMemoryError: malloc of size 8589934592 failed", DATASETS),
    accelerate=traceback(
        "subprocess.CalledProcessError: Command '['/opt/env/bin/python', 'train.py']' died with <Signals.SIGKILL: 9>.",
        "SITE/accelerate/commands/launch.py:simple_launcher",
        main="/opt/env/bin/accelerate",
    ),
)

CUDA_ERROR = _of(
    "cuda_error",
    illegal=traceback(
        "RuntimeError: CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1",
        TRAINER,
    ),
    accelerator=traceback(
        "torch.AcceleratorError: CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert' in https://docs.nvidia.com for more information.",
        TRAINER,
    ),
    assertion="../aten/src/ATen/native/cuda/Indexing.cu:1289: indexSelectLargeIndex: block: [12,0,0], thread: [3,0,0] Assertion `srcIndex < srcSelectDimSize` failed.\n"
    + traceback("RuntimeError: CUDA error: device-side assert triggered", TRAINER),
    cublas=traceback(
        "RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb, m, n, k)`",
        TRAINER,
    ),
    not_initialized=traceback(
        "RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", TRAINER
    ),
    launch=traceback("RuntimeError: CUDA error: unspecified launch failure", TRAINER),
    cudnn=traceback(
        "RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "SITE/torch/nn/modules/conv.py:_conv_forward"
    ),
    cudnn_plan=traceback(
        "RuntimeError: GET was unable to find an engine to execute this computation",
        "SITE/torch/nn/modules/conv.py:_conv_forward",
    ),
    misaligned=traceback("RuntimeError: CUDA error: misaligned address", TRAINER),
    watchdog=(
        "[rank0]:[E101 01:01:01.1 ProcessGroupNCCL.cpp:1595] [PG 0 Rank 0] Process group watchdog thread terminated with exception: CUDA error: an illegal memory access was encountered\nterminate called after throwing an instance of 'c10::DistBackendError'\n  what():  [PG 0 Rank 0] Process group watchdog thread terminated with exception: CUDA error: an illegal memory access was encountered",
        134,
    ),
    invalid_arg=traceback("RuntimeError: CUDA error: invalid argument", TRAINER),
    cupy=traceback(
        "cupy_backends.cuda.api.driver.CUDADriverError: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered",
        "/home/me/run/kernels.py:go",
    ),
    bnb="Error an illegal memory access was encountered at line 90 in file /src/csrc/ops.cu",
    rocm="Memory access fault by GPU node-1 (Agent handle: 0x55) on address 0x7f. Reason: Page not present or supervisor privilege.\nAborted (core dumped)",
    triton=traceback(
        "RuntimeError: Triton Error [CUDA]: an illegal memory access was encountered",
        "SITE/triton/compiler/compiler.py:__getattribute__",
    ),
    jax=traceback(
        "jaxlib.xla_extension.XlaRuntimeError: INTERNAL: Failed to execute XLA Runtime executable: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure",
        "SITE/jax/_src/core.py:eval",
    ),
)

GPU_HARDWARE = _of(
    "gpu_hardware",
    bus="[1234.5] NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
    ecc=traceback(
        "RuntimeError: CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be asynchronously reported",
        TRAINER,
    ),
    xid48="kernel: NVRM: Xid (PCI:0000:86:00): 48, pid=911, name=python, An uncorrectable double bit error (DBE) has been detected on GPU",
    xid_then_error="kernel: NVRM: Xid (PCI:0000:86:00): 94, pid=911, name=python, Contained: SM (0x1). RST: No, D-RST: No\n"
    + traceback("RuntimeError: CUDA error: an illegal instruction was encountered", TRAINER),
    gsp="[99.1] NVRM: Xid (PCI:0000:17:00): 119, pid=1, name=python, Timeout after 6s of waiting for RPC response from GPU0 GSP!",
    smi="Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.  Reboot the system to recover this GPU",
    nvlink=traceback("RuntimeError: CUDA error: uncorrectable NVLink error detected during the execution", TRAINER),
    node="slurmstepd: error: *** JOB 77 ON gpu03 CANCELLED AT 2025-01-01T00:00:00 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***",
    srun_node="srun: error: Node failure on gpu12\nsrun: Job step aborted: Waiting up to 32 seconds for job step to finish.",
    ray_node=traceback(
        "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task. The actor is dead because its node has died. Node Id: ab12",
        "SITE/ray/_private/worker.py:get",
    ),
    fabric=traceback(
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() that might have already set an error? Error 802: system not yet initialized",
        "SITE/torch/cuda/__init__.py:_lazy_init",
    ),
)

DRIVER_MISMATCH = _of(
    "driver_mismatch",
    old=traceback(
        "RuntimeError: The NVIDIA driver on your system is too old (found version 10020). Please update your GPU driver",
        "SITE/torch/cuda/__init__.py:_lazy_init",
    ),
    insufficient=traceback(
        "RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version", TRAINER
    ),
    kernel_image=traceback(
        "RuntimeError: CUDA error: no kernel image is available for execution on the device\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
        TRAINER,
    ),
    nvml="Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.54",
    nvml_python=traceback(
        "pynvml.NVMLError_LibRmVersionMismatch: Driver/library version mismatch", "SITE/pynvml.py:nvmlInit"
    ),
    e804=traceback(
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted on non supported HW",
        "SITE/torch/cuda/__init__.py:_lazy_init",
    ),
    e803=traceback(
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 803: system has unsupported display driver / cuda driver combination",
        "SITE/torch/cuda/__init__.py:_lazy_init",
    ),
    ptx=traceback("RuntimeError: CUDA error: the provided PTX was compiled with an unsupported toolchain.", TRAINER),
    none_found=traceback(
        "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from http://www.nvidia.com/Download/index.aspx",
        "SITE/torch/cuda/__init__.py:_lazy_init",
    ),
    nccl=traceback(
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1333, unhandled cuda error, NCCL version 2.18.1\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 'CUDA driver version is insufficient for CUDA runtime version'",
        TRAINER,
    ),
    flash=traceback(
        "RuntimeError: CUDA error (/src/hopper/flash_fwd_launch_template.h:180): no kernel image is available for execution on the device",
        "SITE/flash_attn/flash_attn_interface.py:_flash_attn_forward",
    ),
    jax=traceback(
        "RuntimeError: jaxlib/gpu: INTERNAL: no supported devices found: CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE: forward compatibility was attempted on non supported HW",
        "SITE/jax/_src/xla_bridge.py:backends",
    ),
)

NCCL_TIMEOUT = _of(
    "nccl_timeout",
    watchdog=(
        f"{STEPS}\n[E ProcessGroupNCCL.cpp:828] [Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=2211, OpType=_ALLGATHER_BASE, Timeout(ms)=1800000) ran for 1800611 milliseconds before timing out.\n[E ProcessGroupNCCL.cpp:455] Some NCCL operations have failed or timed out. Due to the asynchronous nature of CUDA kernels, subsequent GPU operations might run on corrupted/incomplete data.\nterminate called after throwing an instance of 'std::runtime_error'\n{torchrun(3, -6, 'Signal 6 (SIGABRT) received by PID 4711')}",
        1,
    ),
    gloo=traceback(
        "RuntimeError: [../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation to complete",
        "SITE/torch/distributed/distributed_c10d.py:all_reduce",
    ),
    store=traceback(
        "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.",
        "SITE/torch/distributed/rendezvous.py:_create_c10d_store",
    ),
    store_old=traceback(
        "RuntimeError: Socket Timeout", "SITE/torch/distributed/distributed_c10d.py:_new_process_group_helper"
    ),
    client=traceback(
        "torch.distributed.DistNetworkError: The client socket has timed out after 300000ms while trying to connect to (10.0.0.1, 29500).",
        "SITE/torch/distributed/rendezvous.py:_create_c10d_store",
    ),
    barrier=traceback(
        "RuntimeError: Rank 0 successfully reached monitoredBarrier, but received errors while waiting for send/recv from rank 1. Please check rank 1 logs for faulty rank.",
        "SITE/torch/distributed/distributed_c10d.py:monitored_barrier",
    ),
    heartbeat="[rank0]:[F101 02:02:02.2 ProcessGroupNCCL.cpp:1555] [PG ID 0 PG GUID 0 Rank 0] [PG ID 0 PG GUID 0 Rank 0] Terminating the process after attempting to dump debug info, due to ProcessGroupNCCL watchdog hang.\n[rank0]:[E101 02:02:02.2 ProcessGroupNCCL.cpp:1414] Heartbeat monitor timed out! Process will be terminated after dumping debug info. workMetaList_.size()=3",
    elastic=traceback(
        "torch.distributed.elastic.rendezvous.api.RendezvousTimeoutError",
        "SITE/torch/distributed/elastic/rendezvous/dynamic_rendezvous.py:_rendezvous",
        main="/opt/env/bin/torchrun",
    ),
    remote=traceback(
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:2006, remote process exited or there was a network error, NCCL version 2.21.5\nncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.\nLast error:\nsocketProgress: Connection closed by remote peer node2<41234>",
        TRAINER,
    ),
    system=traceback(
        "RuntimeError: NCCL error in: ../torch/lib/c10d/ProcessGroupNCCL.cpp:911, unhandled system error, NCCL version 2.7.8\nncclSystemError: System call (socket, malloc, munmap, etc) failed.",
        TRAINER,
    ),
    slurm_after=f"{STEPS}\n[rank5]:[E1 01:01:01.1 ProcessGroupNCCL.cpp:607] [Rank 5] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5, OpType=BROADCAST) ran for 600001 milliseconds before timing out.\nslurmstepd: error: *** STEP 5.0 ON n1 CANCELLED AT 2025-01-01T01:01:01 ***\nsrun: error: n1: task 5: Aborted (core dumped)",
    wait=traceback(
        "torch.distributed.DistBackendError: [1] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d key-value store by key '0', but store->get('0') got error: wait timeout after 600000ms, keys: /default_pg/0//cuda//0",
        "SITE/torch/distributed/distributed_c10d.py:barrier",
    ),
)

HANG = _of(
    "hang",
    kernel='[ 4832.1] INFO: task python:2211 blocked for more than 120 seconds.\n[ 4832.1]       Not tainted 5.15.0-91-generic #101-Ubuntu\n[ 4832.1] "echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.',
    faulthandler=(
        f'{STEPS}\nTimeout (0:10:00)!\nThread 0x00007f2a (most recent call first):\n  File "/usr/lib/python3.11/threading.py", line 327 in wait\n  File "/home/me/run/train.py", line 40 in main',
        1,
    ),
    supervisor=f"{STEPS}\n[supervisor] no progress for 900 s, killing process group 4411\n./run.sh: line 9:  4411 Killed                  python train.py",
    timeout=(f"{STEPS}\ntimeout: sending signal TERM to command 'python'", 124),
    silent_timeout=(f"{STEPS}", 124),
    monitor=f"{STEPS}\nERROR heartbeat monitor: process 5511 appears to be hung (no step for 1800 s), sending SIGKILL",
    lockup="[ 221.1] watchdog: BUG: soft lockup - CPU#11 stuck for 23s! [python:3312]",
    pyspy=f'{STEPS}\nwatchdog: no output since 600 s, stacks of 3311:\nThread 3311 (idle): "MainThread"\n    acquire (threading.py:327)\n    get (queue.py:171)',
)

KILLED = _of(
    "killed_by_signal",
    cancelled=f"{STEPS}\nslurmstepd: error: *** JOB 881 ON g1 CANCELLED AT 2025-02-03T04:05:06 ***",
    limit=f"{STEPS}\nslurmstepd: error: *** JOB 881 ON g1 CANCELLED AT 2025-02-03T04:05:06 DUE TO TIME LIMIT ***",
    step_limit=f"{STEPS}\nsrun: Job step aborted: Waiting up to 32 seconds for job step to finish.\nslurmstepd: error: *** STEP 881.0 ON g1 CANCELLED AT 2025-02-03T04:05:06 DUE TO TIME LIMIT ***",
    preempted=f"{STEPS}\nslurmstepd: error: *** JOB 5 ON g1 CANCELLED AT 2025-02-03T04:05:06 DUE TO PREEMPTION ***",
    term=(f"{STEPS}\nTerminated", 143),
    term_only=(STEPS, 143),
    hup=(f"{STEPS}\nHangup", 129),
    torchrun=(
        f"{STEPS}\nW1 torch/distributed/elastic/agent/server/api.py:719] Received Signals.SIGTERM death signal, shutting down workers\n"
        + traceback(
            "torch.distributed.elastic.multiprocessing.api.SignalException: Process 4711 got signal: 15",
            "SITE/torch/distributed/elastic/multiprocessing/api.py:_terminate_process_handler",
            main="/opt/env/bin/torchrun",
        ),
        1,
    ),
    lightning=f"{STEPS}\n[rank: 0] Received SIGTERM: 15\n",
    pbs=f"{STEPS}\n=>> PBS: job killed: walltime 86422 exceeded limit 86400",
    lsf="TERM_RUNLIMIT: job killed after reaching LSF run time limit.\nExited with exit code 140.",
    evicted=f"{STEPS}\nThe node was low on resource: ephemeral-storage. Pod trainer-0 Evicted: container train was using 80Gi",
    spot=f"{STEPS}\nSpot instance interruption notice received: terminating in 2 minutes\nTerminated",
    kill9=(STEPS, 137),
    usr1="slurmstepd: error: *** JOB 9 ON n5 CANCELLED AT 2025-05-05T05:05:05 DUE TO TIME LIMIT ***\nslurmstepd: error: container_p_join: open failed for /var/spool/slurm/9/.ns: No such file or directory",
)

SEGFAULT = _of(
    "segfault",
    shell=(f"{STEPS}\n./go.sh: line 3: 8123 Segmentation fault      (core dumped) python train.py", 139),
    faulthandler=(
        'Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call first):\n  File "/opt/env/lib/python3.11/site-packages/tokenizers/x.py", line 3 in encode\nSegmentation fault (core dumped)',
        139,
    ),
    bus=(
        'Fatal Python error: Bus error\n\nThread 0x00007f (most recent call first):\n  File "/home/me/a.py", line 3 in read\nBus error (core dumped)',
        135,
    ),
    bare=(STEPS, 139),
    torchrun=(f"{STEPS}\n{torchrun(0, -11, 'Signal 11 (SIGSEGV) received by PID 4711')}", 1),
    free="double free or corruption (!prev)\nAborted (core dumped)",
    munmap=("munmap_chunk(): invalid pointer\nAborted (core dumped)", 134),
    kernel="[123.1] python[4411]: segfault at 0 ip 00007f1 sp 00007f2 error 4 in libtorch_cpu.so[7f1+2000]",
    loader=traceback("RuntimeError: DataLoader worker (pid 919) is killed by signal: Segmentation fault. ", LOADER),
    deepspeed="[2025-02-01 11:11:12,123] [ERROR] [launch.py:325:sigkill_handler] ['/usr/bin/python', '-u', 'x.py'] exits with return code = -11",
    mpi="*** Process received signal ***\nSignal: Segmentation fault (11)\nSignal code: Address not mapped (1)\nmpirun noticed that process rank 1 with PID 0 on node n1 exited on signal 11 (Segmentation fault).",
)

DISK_FULL = _of(
    "disk_full",
    errno=traceback("OSError: [Errno 28] No space left on device", "SITE/transformers/trainer.py:_save_checkpoint"),
    named=traceback(
        "OSError: [Errno 28] No space left on device: '/data/out/checkpoint-500'", "/usr/lib/python3.11/os.py:makedirs"
    ),
    quota=traceback("OSError: [Errno 122] Disk quota exceeded: 'out/checkpoint-10/optimizer.pt'", SAVE),
    zip=chained(
        traceback(
            "RuntimeError: [enforce fail at inline_container.cc:783] . PytorchStreamWriter failed writing file data/17: file write failed",
            SAVE,
        ),
        traceback("RuntimeError: [enforce fail at inline_container.cc:603] . unexpected pos 1966080 vs 1965972", SAVE),
        by="during",
    ),
    safetensors=traceback(
        'safetensors_rust.SafetensorError: Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })',
        "SITE/safetensors/torch.py:save_file",
    ),
    safetensors_new=traceback(
        "safetensors_rust.SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)",
        "SITE/safetensors/torch.py:save_file",
    ),
    datasets=traceback(
        "OSError: Not enough disk space. Needed: 41.2 GiB (download: 12.1 GiB, generated: 29.1 GiB)",
        "SITE/datasets/builder.py:download_and_prepare",
    ),
    arrow=traceback(
        "pyarrow.lib.ArrowIOError: [Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device",
        DATASETS,
    ),
    shell="tee: train.log: No space left on device",
    limit=traceback("OSError: [Errno 27] File too large", SAVE),
    logged=f"{STEPS}\n--- Logging error ---\n"
    + traceback("OSError: [Errno 28] No space left on device", "/usr/lib/python3.11/logging/__init__.py:flush")
    + "\n"
    + traceback("OSError: [Errno 28] No space left on device", SAVE),
    hub=chained(
        traceback("OSError: [Errno 28] No space left on device", "SITE/huggingface_hub/file_download.py:http_get"),
        traceback("OSError: [Errno 28] No space left on device", PRETRAINED),
        by="during",
    ),
    sqlite=traceback("sqlite3.OperationalError: database or disk is full", "SITE/optuna/storages/_rdb.py:commit"),
    tmp=traceback(
        "FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp', '/var/tmp', '/usr/tmp', '/home/me']",
        "/usr/lib/python3.11/tempfile.py:_get_default_tempdir",
    ),
)

CORRUPT = _of(
    "checkpoint_corrupt",
    zip=traceback(
        "RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory", LOAD
    ),
    header=traceback("safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge", PRETRAINED),
    buffer=traceback(
        "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer", PRETRAINED
    ),
    incomplete=traceback(
        "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered",
        PRETRAINED,
    ),
    pickle=traceback("_pickle.UnpicklingError: pickle data was truncated", LOAD),
    key=traceback("_pickle.UnpicklingError: invalid load key, '\\x00'.", LOAD),
    eof=traceback("EOFError: Ran out of input", LOAD),
    eof_bytes=traceback(
        "RuntimeError: unexpected EOF, expected 3145728 more bytes. The file might be corrupted.", LOAD
    ),
    both=chained(
        traceback("_pickle.UnpicklingError: invalid load key, 'v'.", LOAD),
        traceback(
            "OSError: Unable to load weights from pytorch checkpoint file for '/m/pytorch_model.bin' at '/m/pytorch_model.bin'. If you tried to load a PyTorch model from a TF 2.0 checkpoint, please set from_tf=True.",
            PRETRAINED,
        ),
        by="during",
    ),
    state=traceback(
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
        "SITE/transformers/trainer_callback.py:load_from_json",
        "/usr/lib/python3.11/json/decoder.py:raw_decode",
    ),
    config=traceback(
        "OSError: It looks like the config file at '/m/ckpt/config.json' is not a valid JSON file.",
        "SITE/transformers/configuration_utils.py:_get_config_dict",
    ),
    bad_zip=traceback("zipfile.BadZipFile: File is not a zip file", "SITE/numpy/lib/npyio.py:load"),
    keras=traceback(
        "OSError: Unable to synchronously open file (truncated file: eof = 96, sblock->base_addr = 0, stored_eof = 2048)",
        "SITE/h5py/_hl/files.py:make_fid",
    ),
    own=traceback(
        "ValueError: checksum mismatch in out/step_400/model.bin: file is corrupted",
        "/home/me/run/train.py:load_checkpoint",
    ),
    weights_only=traceback(
        "_pickle.UnpicklingError: Weights only load failed. Re-running `torch.load` with `weights_only` set to `False` will likely succeed, but it can result in arbitrary code execution.\n Please file an issue with the following so that we can make `weights_only=True` compatible with your use case: WeightsUnpickler error: invalid load key, '\\x00'.",
        LOAD,
    ),
    rng=traceback(
        "RuntimeError: PytorchStreamReader failed reading file data/0: file read failed",
        "SITE/transformers/trainer.py:_load_rng_state",
    ),
    tokenizer=traceback(
        "json.decoder.JSONDecodeError: Unterminated string starting at: line 8811 column 7 (char 99123)",
        "SITE/transformers/tokenization_utils_base.py:from_pretrained",
        "/usr/lib/python3.11/json/decoder.py:raw_decode",
    ),
)

MISMATCH = _of(
    "checkpoint_mismatch",
    size=traceback(
        "RuntimeError: Error(s) in loading state_dict for LlamaForCausalLM:\n\tsize mismatch for lm_head.weight: copying a param with shape torch.Size([32001, 4096]) from checkpoint, the shape in current model is torch.Size([32000, 4096]).",
        "SITE/torch/nn/modules/module.py:load_state_dict",
    ),
    keys=traceback(
        'RuntimeError: Error(s) in loading state_dict for GPT:\n\tMissing key(s) in state_dict: "transformer.h.6.ln_1.weight". ',
        "SITE/torch/nn/modules/module.py:load_state_dict",
    ),
    groups=traceback(
        "ValueError: loaded state dict has a different number of parameter groups",
        "SITE/torch/optim/optimizer.py:load_state_dict",
    ),
    tensor=traceback(
        'ValueError: Trying to set a tensor of shape torch.Size([128256, 2048]) in "weight" (which has shape torch.Size([32000, 2048])), this look incorrect.',
        "SITE/accelerate/utils/modeling.py:set_module_tensor_to_device",
    ),
    zero=traceback(
        "deepspeed.runtime.zero.utils.ZeRORuntimeException: The checkpoint being loaded used a DP world size of 8 but the current world size is 4. Automatic adjustment of ZeRO's optimizer state partitioning with a new world size is not currently supported.",
        "SITE/deepspeed/runtime/engine.py:_load_zero_checkpoint",
    ),
    mismatched=traceback(
        "RuntimeError: You set `ignore_mismatched_sizes` to `False`, thus raising an error. For details look at the above report!",
        PRETRAINED,
    ),
    adam=traceback(
        "RuntimeError: The size of tensor a (512) must match the size of tensor b (256) at non-singleton dimension 0",
        "SITE/torch/optim/adamw.py:_multi_tensor_adamw",
    ),
    keras=traceback(
        "ValueError: Layer count mismatch when loading weights from file. Model expected 12 layers, found 10 saved layers.",
        "SITE/keras/src/legacy/saving/legacy_h5_format.py:load_weights",
    ),
    own=traceback(
        "ValueError: checkpoint was made with n_layer=12 but the model has n_layer=6: mismatch",
        "/home/me/run/train.py:load_checkpoint",
    ),
    adapter=traceback(
        "ValueError: The adapter was trained on base model meta-llama/Llama-3.2-1B, which does not match Qwen/Qwen2.5-0.5B",
        "/home/me/run/train.py:load_adapter",
    ),
    fsdp=traceback(
        'RuntimeError: Error(s) in loading state_dict for FullyShardedDataParallel:\n\tUnexpected key(s) in state_dict: "_fsdp_wrapped_module.model.embed".',
        "SITE/torch/nn/modules/module.py:load_state_dict",
    ),
)

DATA = _of(
    "data_format",
    jsonl=chained(
        traceback(
            "pyarrow.lib.ArrowInvalid: JSON parse error: Missing a comma or '}' after an object member. in row 12",
            "SITE/datasets/packaged_modules/json/json.py:_generate_tables",
        ),
        traceback(
            "datasets.exceptions.DatasetGenerationError: An error occurred while generating the dataset",
            "SITE/datasets/builder.py:_prepare_split_single",
        ),
    ),
    cast=traceback(
        "datasets.exceptions.DatasetGenerationCastError: An error occurred while generating the dataset\n\nAll the data files must have the same columns, but at some point there are 1 new columns ({'source'})",
        "SITE/datasets/builder.py:_prepare_split_single",
    ),
    json_loads=traceback(
        "json.decoder.JSONDecodeError: Expecting ',' delimiter: line 1 column 81 (char 80)",
        "/home/me/run/data.py:read_rows:rows.append(json.loads(line))",
        "/usr/lib/python3.11/json/decoder.py:raw_decode",
    ),
    unicode=traceback(
        "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        "/home/me/run/data.py:read",
    ),
    key=traceback(
        "KeyError: 'completion'",
        "SITE/datasets/arrow_dataset.py:apply_function_on_filtered_inputs",
        "/home/me/run/train.py:to_text:return ex['prompt'] + ex['completion']",
    ),
    column=traceback(
        "ValueError: Column 'messages' not in the dataset. Current columns in the dataset: ['text']",
        "SITE/datasets/arrow_dataset.py:select_columns",
    ),
    signature=traceback(
        "ValueError: No columns in the dataset match the model's forward method signature. The following columns have been ignored: [question, answer].",
        "SITE/transformers/trainer.py:_remove_unused_columns",
    ),
    roles=traceback(
        "jinja2.exceptions.TemplateError: Conversation roles must alternate user/assistant/user/assistant/...",
        "SITE/transformers/tokenization_utils_base.py:apply_chat_template",
    ),
    no_template=traceback(
        "ValueError: Cannot use chat template functions because tokenizer.chat_template is not set and no template argument was passed!",
        "SITE/transformers/tokenization_utils_base.py:get_chat_template",
    ),
    undefined=traceback(
        "jinja2.exceptions.UndefinedError: 'dict object' has no attribute 'role'",
        "SITE/transformers/utils/chat_template_utils.py:render",
    ),
    tensor=traceback(
        "ValueError: Unable to create tensor, you should probably activate truncation and/or padding with 'padding=True' 'truncation=True' to have batched tensors with the same length. Perhaps your features (`labels` in this case) have excessive nesting",
        "SITE/transformers/tokenization_utils_base.py:convert_to_tensors",
    ),
    encode=traceback(
        "TypeError: TextEncodeInput must be Union[TextInputSequence, Tuple[InputSequence, InputSequence]]",
        "SITE/transformers/tokenization_utils_fast.py:_batch_encode_plus",
    ),
    target=traceback("IndexError: Target 7 is out of bounds.", "SITE/torch/nn/functional.py:cross_entropy"),
    embedding=traceback("IndexError: index out of range in self", "SITE/torch/nn/functional.py:embedding"),
    csv=traceback(
        "pandas.errors.ParserError: Error tokenizing data. C error: Expected 3 fields in line 88, saw 5",
        "SITE/pandas/io/parsers/c_parser_wrapper.py:read",
    ),
    image=traceback(
        "PIL.UnidentifiedImageError: cannot identify image file 'img/0007.jpg'", "/home/me/run/data.py:__getitem__"
    ),
    in_worker=traceback(
        'PIL.UnidentifiedImageError: Caught UnidentifiedImageError in DataLoader worker process 2.\nOriginal Traceback (most recent call last):\n  File "'
        + SITE
        + '/torch/utils/data/_utils/worker.py", line 309, in _worker_loop\n    data = fetcher.fetch(index)\n  File "/home/me/run/data.py", line 31, in __getitem__\n    img = Image.open(p)\nPIL.UnidentifiedImageError: cannot identify image file \'img/0007.jpg\'',
        LOADER,
    ),
    truncated_image=traceback(
        "OSError: image file is truncated (12 bytes not processed)", "SITE/PIL/ImageFile.py:load"
    ),
    empty=traceback(
        "ValueError: num_samples should be a positive integer value, but got num_samples=0",
        "SITE/torch/utils/data/sampler.py:__init__",
    ),
    float_text=traceback("ValueError: could not convert string to float: 'n/a'", "/home/me/run/data.py:load_labels"),
    own=traceback("ValueError: line 217: 'messages' must be a list, found str", "/home/me/run/data.py:check_rows"),
    remote=chained(
        'multiprocess.pool.RemoteTraceback: \n"""\n'
        + traceback(
            "KeyError: 'text'",
            "SITE/multiprocess/pool.py:worker",
            "/home/me/run/train.py:tokenize_row:return tok(row['text'])",
        )
        + '\n"""',
        traceback("KeyError: 'text'", "SITE/datasets/utils/py_utils.py:iflatmap_unordered"),
    ),
    ranks=labelled("[rank0]: ", traceback("KeyError: 'chosen'", DATASETS))
    + "\n"
    + labelled("[rank1]: ", traceback("KeyError: 'chosen'", DATASETS))
    + "\n"
    + torchrun(0, 1),
    trl=traceback(
        "KeyError: \"Invalid keys in the example: {'question', 'answer'}\"",
        "SITE/trl/data_utils.py:apply_chat_template",
    ),
    none_text=traceback(
        "AttributeError: 'NoneType' object has no attribute 'strip'",
        DATASETS,
        "/home/me/run/train.py:format_row:return row['text'].strip()",
    ),
    parquet=traceback(
        "pyarrow.lib.ArrowInvalid: Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file.",
        "SITE/datasets/packaged_modules/parquet/parquet.py:_generate_tables",
    ),
    collator=traceback(
        "ValueError: expected sequence of length 128 at dim 1 (got 97)",
        "SITE/transformers/data/data_collator.py:torch_default_data_collator",
    ),
)

NAN = _of(
    "nan_loss",
    hf=(
        "{'loss': 2.31, 'grad_norm': 1.2, 'learning_rate': 2e-4, 'epoch': 0.1}\n{'loss': nan, 'grad_norm': nan, 'learning_rate': 1.9e-4, 'epoch': 0.2}\n{'loss': nan, 'grad_norm': nan, 'learning_rate': 1.8e-4, 'epoch': 0.3}\n{'train_runtime': 21.2, 'train_loss': nan, 'epoch': 1.0}",
        0,
    ),
    zero=(
        "{'loss': 1.04, 'grad_norm': 3.1, 'epoch': 0.0}\n{'loss': 0.0, 'grad_norm': nan, 'epoch': 0.01}\n{'loss': 0.0, 'grad_norm': nan, 'epoch': 0.02}\n{'loss': 0.0, 'grad_norm': nan, 'epoch': 0.03}",
        0,
    ),
    plain="step 100 loss 3.1\nstep 110 loss 8.8\nstep 120 loss nan\nstep 130 loss nan\n",
    colon="epoch 3 | iter 200 | train_loss: 1.91\nepoch 3 | iter 210 | train_loss: NaN\nepoch 3 | iter 220 | train_loss: NaN",
    equals="Epoch 1:  40%|████      | 4/10 [00:03<00:05, loss=inf]\nEpoch 1:  50%|█████     | 5/10 [00:04<00:04, loss=nan]",
    exploded="\n".join(f"step {s} loss {2.0 * 10 ** max(0, s - 4):.3e}" for s in range(12)),
    sampling=traceback(
        "RuntimeError: probability tensor contains either `inf`, `nan` or element < 0",
        "SITE/transformers/generation/utils.py:_sample",
    ),
    clip=traceback(
        "RuntimeError: The total norm of order 2.0 for gradients from `parameters` is non-finite, so it cannot be clipped.",
        "SITE/torch/nn/utils/clip_grad.py:clip_grad_norm_",
    ),
    anomaly=traceback(
        "RuntimeError: Function 'LogSoftmaxBackward0' returned nan values in its 0th output.",
        "SITE/torch/autograd/__init__.py:backward",
    ),
    deepspeed=traceback(
        "Exception: Current loss scale already at minimum - cannot decrease scale anymore. Exiting run.",
        "SITE/deepspeed/runtime/fp16/loss_scaler.py:update_scale",
    ),
    fairseq=traceback(
        "FloatingPointError: Minimum loss scale reached (0.0001). Your loss is probably exploding.",
        "SITE/fairseq/optim/dynamic_loss_scaler.py:check_overflow",
    ),
    stop="Epoch: [0]  [ 20/500] loss: 7.01\nLoss is nan, stopping training",
    lightning=traceback(
        "ValueError: The loss returned in `training_step` is nan.", "SITE/pytorch_lightning/callbacks/nan.py:detect"
    ),
    own=traceback("RuntimeError: non-finite loss at step 17", "/home/me/run/train.py:check"),
    constraint=traceback(
        "ValueError: Expected parameter logits (Tensor of shape (8, 6)) of distribution Categorical(logits: torch.Size([8, 6])) to satisfy the constraint IndependentConstraint(Real(), 1), but found invalid values:\ntensor([[nan, nan, nan, nan, nan, nan]])",
        "SITE/torch/distributions/distribution.py:__init__",
    ),
    sklearn=traceback("ValueError: Input contains NaN.", "SITE/sklearn/utils/validation.py:_assert_all_finite"),
    cancelled="step 1 loss 2.0\nstep 2 loss nan\nstep 3 loss nan\nstep 4 loss nan\nslurmstepd: error: *** JOB 1 ON g1 CANCELLED AT 2025-02-03T04:05:06 ***",
)

DEPENDENCY = _of(
    "dependency",
    module=traceback("ModuleNotFoundError: No module named 'bitsandbytes'", "/home/me/run/train.py:main"),
    name=traceback(
        "ImportError: cannot import name 'cached_download' from 'huggingface_hub' (/x/__init__.py)",
        "SITE/diffusers/utils/hub_utils.py:<module>",
    ),
    symbol=traceback(
        "ImportError: /x/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: _ZN3c104cuda9SetDeviceEi",
        "SITE/flash_attn/flash_attn_interface.py:<module>",
    ),
    library=traceback(
        "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
        "SITE/vllm/__init__.py:<module>",
    ),
    oserror=traceback(
        "OSError: libcublas.so.11: cannot open shared object file: No such file or directory",
        "SITE/torch/__init__.py:_load_global_deps",
    ),
    requires=traceback(
        "ImportError: Using `bitsandbytes` 4-bit quantization requires the latest version of bitsandbytes: `pip install -U bitsandbytes`",
        "SITE/transformers/quantizers/quantizer_bnb_4bit.py:validate_environment",
    ),
    numpy=traceback(
        "ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88 from PyObject",
        "SITE/pandas/__init__.py:<module>",
    ),
    architecture=traceback(
        "ValueError: The checkpoint you are trying to load has model type `qwen3` but Transformers does not recognize this architecture. This could be because of an issue with the checkpoint, or because your version of Transformers is out of date.",
        "SITE/transformers/models/auto/configuration_auto.py:from_pretrained",
    ),
    attribute=traceback(
        "AttributeError: module 'torch.utils._pytree' has no attribute 'register_pytree_node'",
        "SITE/transformers/utils/generic.py:<module>",
    ),
    glibc=traceback(
        "ImportError: /lib/x86_64-linux-gnu/libstdc++.so.6: version `GLIBCXX_3.4.29' not found (required by /x/_C.so)",
        "SITE/torchvision/__init__.py:<module>",
    ),
    flash=traceback(
        "ImportError: FlashAttention2 has been toggled on, but it cannot be used due to the following error: the package flash_attn seems to be not installed.",
        "SITE/transformers/modeling_utils.py:_check_and_enable_flash_attn_2",
    ),
    lazy=chained(
        traceback(
            "ImportError: /x/fused.so: undefined symbol: _ZN2at4_ops5zeros4callE",
            "SITE/transformers/utils/import_utils.py:_get_module",
        ),
        traceback(
            "RuntimeError: Failed to import transformers.models.llama.modeling_llama because of the following error (look up to see its traceback):\n/x/fused.so: undefined symbol: _ZN2at4_ops5zeros4callE",
            "SITE/transformers/utils/import_utils.py:_get_module",
        ),
    ),
    cuda_build=traceback(
        "AssertionError: Torch not compiled with CUDA enabled", "SITE/torch/cuda/__init__.py:_lazy_init"
    ),
    metadata=traceback(
        "importlib.metadata.PackageNotFoundError: No package metadata was found for The 'datasets>=2.14' distribution was not found and is required by this application.",
        "SITE/transformers/utils/versions.py:require_version",
    ),
    command=("/var/spool/job/script.sh: line 12: accelerate: command not found", 127),
    loader=(
        "python: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file: No such file or directory",
        127,
    ),
    extension=traceback(
        "RuntimeError: Error building extension 'fused_adam'", "SITE/torch/utils/cpp_extension.py:_run_ninja_build"
    ),
    nvcc=traceback(
        "deepspeed.ops.op_builder.builder.MissingCUDAException: CUDA_HOME does not exist, unable to compile CUDA op(s)",
        "SITE/deepspeed/ops/op_builder/builder.py:installed_cuda_version",
    ),
    tokenizers=traceback(
        "Exception: data did not match any variant of untagged enum ModelWrapper at line 757443 column 3",
        "SITE/transformers/tokenization_utils_fast.py:__init__",
    ),
    vision=traceback(
        "RuntimeError: operator torchvision::nms does not exist",
        "SITE/torch/library.py:register",
        "SITE/torchvision/_meta_registrations.py:<module>",
    ),
    version=traceback(
        "RuntimeError: Detected that PyTorch and torchvision were compiled with different CUDA major versions. PyTorch has CUDA Version=12.1 and torchvision has CUDA Version=11.8.",
        "SITE/torchvision/extension.py:_check_cuda_version",
    ),
    module_run=("/opt/env/bin/python: No module named trl.scripts", 1),
    dist_nccl=traceback(
        "RuntimeError: Distributed package doesn't have NCCL built in",
        "SITE/torch/distributed/distributed_c10d.py:_new_process_group_helper",
    ),
    moved=traceback(
        "ImportError: cannot import name 'AdamW' from 'transformers' (unknown location)",
        "/home/me/run/train.py:<module>",
    ),
)

NOT_FOUND = _of(
    "file_not_found",
    data=traceback(
        "FileNotFoundError: [Errno 2] No such file or directory: 'data/train.jsonl'", "/home/me/run/data.py:read"
    ),
    datasets=traceback(
        "FileNotFoundError: Unable to find '/data/train.jsonl'", "SITE/datasets/data_files.py:resolve_pattern"
    ),
    config=traceback(
        "OSError: /models/llama does not appear to have a file named config.json. Checkout 'https://huggingface.co//models/llama/tree/None' for available files.",
        "SITE/transformers/utils/hub.py:cached_file",
    ),
    resume=traceback(
        "ValueError: Can't find a valid checkpoint at out/checkpoint-99",
        "SITE/transformers/trainer.py:_load_from_checkpoint",
    ),
    script=("python: can't open file '/home/me/trian.py': [Errno 2] No such file or directory", 2),
    weights=traceback(
        "OSError: Error no file named pytorch_model.bin, model.safetensors, tf_model.h5, model.ckpt.index or flax_model.msgpack found in directory /models/x.",
        PRETRAINED,
    ),
    local_id=traceback(
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/models/llama-3'. Use `repo_type` argument if needed.",
        "SITE/huggingface_hub/utils/_validators.py:validate_repo_id",
    ),
    adapter=traceback(
        "ValueError: Can't find 'adapter_config.json' at '/out/adapter'", "SITE/peft/config.py:_get_config_file"
    ),
    directory=traceback(
        "FileNotFoundError: Directory /data/tok is neither a `Dataset` directory nor a `DatasetDict` directory.",
        "SITE/datasets/load.py:load_from_disk",
    ),
    pandas=traceback(
        "FileNotFoundError: [Errno 2] File b'labels.csv' does not exist: b'labels.csv'",
        "SITE/pandas/io/parsers.py:_read",
    ),
    own=traceback("RuntimeError: checkpoint directory /ckpt/last does not exist", "/home/me/run/train.py:resume"),
)

PERMISSION = _of(
    "permission",
    out=traceback(
        "PermissionError: [Errno 13] Permission denied: '/data/out/checkpoint-10'", "/usr/lib/python3.11/os.py:makedirs"
    ),
    cache=traceback(
        "PermissionError: [Errno 13] Permission denied: '/home/me/.cache/huggingface/hub'",
        "SITE/huggingface_hub/file_download.py:hf_hub_download",
    ),
    lock=chained(
        traceback(
            "PermissionError: [Errno 13] Permission denied: '/shared/hf/datasets/x.lock'",
            "SITE/filelock/_unix.py:_acquire",
        ),
        traceback(
            "PermissionError: [Errno 13] Permission denied: '/shared/hf/datasets/x.lock'",
            "SITE/datasets/load.py:load_dataset",
        ),
        by="during",
    ),
    shell=("bash: ./train.sh: Permission denied", 126),
    readonly=traceback("OSError: [Errno 30] Read-only file system: '/mnt/out/runs'", "/usr/lib/python3.11/os.py:mkdir"),
    not_permitted=traceback(
        "PermissionError: [Errno 1] Operation not permitted: '/out/model.safetensors'",
        "/usr/lib/python3.11/shutil.py:copystat",
    ),
    torch=traceback("RuntimeError: File /ro/out/model.pt cannot be opened.", SAVE),
    safetensors=traceback(
        'safetensors_rust.SafetensorError: Error while serializing: IoError(Os { code: 13, kind: PermissionDenied, message: "Permission denied" })',
        "SITE/safetensors/torch.py:save_file",
    ),
)

NETWORK = _of(
    "network_hub",
    gated=chained(
        traceback(
            "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-6)",
            "SITE/huggingface_hub/utils/_http.py:hf_raise_for_status",
        ),
        traceback(
            "OSError: You are trying to access a gated repo.\nMake sure to have access to it at https://huggingface.co/meta-llama/Llama-3.1-8B.",
            "SITE/transformers/utils/hub.py:cached_file",
        ),
    ),
    missing=traceback(
        "OSError: lama/none is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'\nIf this is a private repository, make sure to pass a token",
        "SITE/transformers/utils/hub.py:cached_file",
    ),
    offline=traceback(
        "OSError: We couldn't connect to 'https://huggingface.co' to load this file, couldn't find it in the cached files and it looks like gpt2 is not the path to a directory containing a file named config.json.",
        "SITE/transformers/utils/hub.py:cached_file",
    ),
    dns=traceback(
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: /gpt2 (Caused by NameResolutionError(\"<urllib3.connection.HTTPSConnection object>: Failed to resolve 'huggingface.co' ([Errno -3] Temporary failure in name resolution)\"))",
        "SITE/requests/adapters.py:send",
    ),
    read=traceback(
        "requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='cdn-lfs.huggingface.co', port=443): Read timed out. (read timeout=10)",
        "SITE/requests/adapters.py:send",
    ),
    http=traceback(
        "requests.exceptions.HTTPError: 503 Server Error: Service Unavailable for url: https://huggingface.co/api/models/x",
        "SITE/requests/models.py:raise_for_status",
    ),
    rate=traceback(
        "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: https://huggingface.co/api/datasets/x",
        "SITE/huggingface_hub/utils/_http.py:hf_raise_for_status",
    ),
    dataset=traceback(
        "datasets.exceptions.DatasetNotFoundError: Dataset 'me/none' doesn't exist on the Hub or cannot be accessed.",
        "SITE/datasets/load.py:dataset_module_factory",
    ),
    offline_mode=traceback(
        "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach https://huggingface.co/api/models/x: offline mode is enabled. To disable it, please unset the `HF_HUB_OFFLINE` environment variable.",
        "SITE/huggingface_hub/utils/_http.py:send",
    ),
    ssl=traceback(
        "requests.exceptions.SSLError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded (Caused by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]')))",
        "SITE/requests/adapters.py:send",
    ),
    wandb=traceback(
        "wandb.errors.CommError: Run initialization has timed out after 90.0 sec.", "SITE/wandb/sdk/wandb_init.py:init"
    ),
    httpx=traceback(
        "httpx.ConnectError: [Errno 111] Connection refused",
        "SITE/httpx/_transports/default.py:map_httpcore_exceptions",
    ),
    local_entry=traceback(
        "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the file on the Hub and we cannot find the requested files in the local cache.",
        "SITE/huggingface_hub/file_download.py:_raise_on_head_call_error",
    ),
    tokenizer=traceback(
        "OSError: Can't load tokenizer for 'me/none'. If you were trying to load it from 'https://huggingface.co/models', make sure you don't have a local directory with the same name.",
        "SITE/transformers/tokenization_utils_base.py:from_pretrained",
    ),
    s3=traceback(
        "botocore.exceptions.NoCredentialsError: Unable to locate credentials", "SITE/botocore/auth.py:add_auth"
    ),
    urllib=traceback(
        "urllib.error.URLError: <urlopen error [Errno 110] Connection timed out>",
        "/usr/lib/python3.11/urllib/request.py:do_open",
    ),
    token=traceback(
        "huggingface_hub.errors.LocalTokenNotFoundError: Token is required (`token=True`), but no token found. You need to provide a token or be logged in to Hugging Face",
        "SITE/huggingface_hub/utils/_headers.py:get_token_to_send",
    ),
    chunked=traceback(
        "requests.exceptions.ChunkedEncodingError: ('Connection broken: IncompleteRead(81 bytes read, 99 more expected)', IncompleteRead(81 bytes read))",
        "SITE/requests/models.py:generate",
    ),
)

TOO_MANY = _of(
    "too_many_files",
    errno=traceback(
        "OSError: [Errno 24] Too many open files: '/data/shard-0991.npy'", "/home/me/run/data.py:__getitem__"
    ),
    ancdata=traceback(
        "RuntimeError: received 0 items of ancdata", "SITE/torch/multiprocessing/reductions.py:rebuild_storage_fd"
    ),
    torch=traceback(
        "RuntimeError: Too many open files. Communication with the workers is no longer possible. Please increase the limit using `ulimit -n` in the shell",
        LOADER,
    ),
    pipe=chained(
        traceback(
            "OSError: [Errno 24] Too many open files", "/usr/lib/python3.11/multiprocessing/popen_fork.py:_launch"
        ),
        traceback("RuntimeError: DataLoader worker (pid(s) 12, 13) exited unexpectedly", LOADER),
        by="during",
    ),
    enfile=traceback("OSError: [Errno 23] Too many open files in system: '/x'", "/home/me/run/data.py:__getitem__"),
    rust=traceback(
        "safetensors_rust.SafetensorError: Error opening file: Too many open files (os error 24)", PRETRAINED
    ),
    shared=traceback(
        "RuntimeError: unable to open shared memory object </torch_12_34> in read-write mode: Too many open files (24)",
        "SITE/torch/multiprocessing/reductions.py:rebuild_storage_filename",
    ),
)

MULTIPROCESSING = _of(
    "multiprocessing",
    fork=traceback(
        "RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use the 'spawn' start method",
        "SITE/torch/cuda/__init__.py:_lazy_init",
    ),
    pickle=traceback(
        "AttributeError: Can't pickle local object 'main.<locals>.<lambda>'",
        "/usr/lib/python3.11/multiprocessing/reduction.py:dump",
    ),
    pickle_new=traceback(
        "AttributeError: Can't get local object 'main.<locals>.collate'",
        "/usr/lib/python3.13/multiprocessing/reduction.py:dump",
    ),
    type_error=traceback(
        "TypeError: cannot pickle '_thread.lock' object", "/usr/lib/python3.11/multiprocessing/reduction.py:dump"
    ),
    bus=(
        "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).\n"
        + traceback(
            "RuntimeError: DataLoader worker (pid 3321) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory. Please try to raise your shared memory limit.",
            LOADER,
        )
    ),
    timeout=traceback("RuntimeError: DataLoader timed out after 30 seconds", LOADER),
    exited=chained(
        traceback("_queue.Empty", "/usr/lib/python3.11/multiprocessing/queues.py:get"),
        traceback("RuntimeError: DataLoader worker (pid(s) 5511) exited unexpectedly", LOADER),
    ),
    bootstrap=traceback(
        "RuntimeError: \n        An attempt has been made to start a new process before the\n        current process has finished its bootstrapping phase.",
        "/usr/lib/python3.11/multiprocessing/spawn.py:_check_not_importing_main",
    ),
    context=traceback(
        "RuntimeError: context has already been set", "/usr/lib/python3.11/multiprocessing/context.py:set_start_method"
    ),
    shm_open=traceback(
        "RuntimeError: unable to open shared memory object </torch_51_22> in read-write mode: No space left on device (28)",
        "SITE/torch/multiprocessing/reductions.py:reduce_storage",
    ),
    shm_write=traceback(
        "RuntimeError: unable to write to file </torch_19_77>: No space left on device (28)",
        "SITE/torch/multiprocessing/reductions.py:reduce_storage",
    ),
    pool=traceback(
        "concurrent.futures.process.BrokenProcessPool: A process in the process pool was terminated abruptly while the future was running or pending.",
        "/usr/lib/python3.11/concurrent/futures/_base.py:__get_result",
    ),
    nccl_shm=traceback(
        "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.hpp:275, unhandled system error, NCCL version 2.21.5\nncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.\nLast error:\nError while creating shared memory segment /dev/shm/nccl-8mAcsn (size 9637888)",
        TRAINER,
    ),
    daemon=traceback(
        "AssertionError: daemonic processes are not allowed to have children",
        "/usr/lib/python3.11/multiprocessing/process.py:start",
    ),
    dill=traceback(
        "_pickle.PicklingError: Can't pickle <function tok at 0x7f>: it's not the same object as __main__.tok",
        "/usr/lib/python3.11/pickle.py:save_global",
    ),
    threads=traceback("RuntimeError: can't start new thread", "/usr/lib/python3.11/threading.py:start"),
)

CONFIG = _of(
    "config_error",
    argparse=("usage: train.py [-h] --model MODEL\ntrain.py: error: the following arguments are required: --model", 2),
    unknown=("usage: train.py [-h]\ntrain.py: error: unrecognized arguments: --lerning_rate 1e-4", 2),
    choice=("train.py: error: argument --optim: invalid choice: 'adamx' (choose from 'adamw', 'sgd')", 2),
    hf=traceback(
        "ValueError: Some specified arguments are not used by the HfArgumentParser: ['--lr', '1e-4']",
        "SITE/transformers/hf_argparser.py:parse_args_into_dataclasses",
    ),
    keyword=traceback(
        "TypeError: TrainingArguments.__init__() got an unexpected keyword argument 'evaluation_strategy'",
        "/home/me/run/train.py:main",
    ),
    bf16=traceback(
        "ValueError: Your setup doesn't support bf16/gpu. You need torch>=1.10, using Ampere GPU with cuda>=11.0",
        "SITE/transformers/training_args.py:__post_init__",
    ),
    eval_strategy=traceback(
        "ValueError: --load_best_model_at_end requires the save and eval strategy to match, but found\n- Evaluation strategy: no\n- Save strategy: steps",
        "SITE/transformers/training_args.py:__post_init__",
    ),
    enum=traceback(
        "ValueError: 'stepz' is not a valid IntervalStrategy, please select one of ['no', 'steps', 'epoch']",
        "SITE/transformers/utils/generic.py:_missing_",
    ),
    lora=traceback(
        "ValueError: Target modules {'query_key_value'} not found in the base model. Please check the target modules and try again.",
        "SITE/peft/tuners/tuners_utils.py:inject_adapter",
    ),
    padding=traceback(
        "ValueError: Asking to pad but the tokenizer does not have a padding token. Please select a token to use as `pad_token`",
        "SITE/transformers/tokenization_utils_base.py:_get_padding_truncation_strategies",
    ),
    rank=traceback(
        "ValueError: Error initializing torch.distributed using env:// rendezvous: environment variable MASTER_ADDR expected, but not set",
        "SITE/torch/distributed/rendezvous.py:_get_env_or_raise",
    ),
    port=traceback(
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port: 29500, useIpv6: 0, code: -98, name: EADDRINUSE, message: address already in use",
        "SITE/torch/distributed/rendezvous.py:_create_c10d_store",
    ),
    ordinal=traceback("RuntimeError: CUDA error: invalid device ordinal", "SITE/torch/cuda/__init__.py:set_device"),
    no_gpu=traceback("RuntimeError: No CUDA GPUs are available", "SITE/torch/cuda/__init__.py:_lazy_init"),
    deepspeed=traceback(
        "AssertionError: Check batch related parameters. train_batch_size is not equal to micro_batch_per_gpu * gradient_acc_step * world_size 32 != 4 * 2 * 2",
        "SITE/deepspeed/runtime/config.py:_batch_assertion",
    ),
    hydra=(
        "Could not override 'trainer.lr'.\nTo append to your config use +trainer.lr=1\nKey 'lr' is not in struct\n    full_key: trainer.lr\n    object_type=dict",
        1,
    ),
    hydra_missing=traceback(
        "omegaconf.errors.MissingMandatoryValue: Missing mandatory value: data.path", "SITE/omegaconf/base.py:_get_node"
    ),
    yaml=traceback(
        'yaml.scanner.ScannerError: mapping values are not allowed here\n  in "train.yaml", line 7, column 12',
        "SITE/yaml/scanner.py:fetch_value",
    ),
    pydantic=traceback(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for TrainConfig\nlr\n  Input should be a valid number",
        "/home/me/run/config.py:load",
    ),
    divisible=traceback(
        "ValueError: The global train batch size (2 x 3) must be evenly divisible by the number of generations per prompt (8). Given the current train batch size, the valid values for the number of generations are: [2, 3, 6].",
        "SITE/trl/trainer/grpo_trainer.py:__init__",
    ),
    scheduler=traceback(
        "ValueError: cosine_with_min requires `num_warmup_steps`, please provide that argument.",
        "SITE/transformers/optimization.py:get_scheduler",
    ),
    duplicate=traceback(
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1691, invalid usage, NCCL version 2.19.3\nncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000",
        TRAINER,
    ),
    remote_code=traceback(
        "ValueError: Loading me/model requires you to execute the configuration file in that repo on your local machine. Make sure you have read the code there to avoid malicious use, then set the option `trust_remote_code=True` to remove this error.",
        "SITE/transformers/dynamic_module_utils.py:resolve_trust_remote_code",
    ),
    quantised=traceback(
        "ValueError: You cannot perform fine-tuning on purely quantized models. Please attach trainable adapters on top of the quantized model to correctly perform fine-tuning.",
        "SITE/transformers/trainer.py:__init__",
    ),
    fsdp=traceback(
        "ValueError: Must flatten tensors with uniform `requires_grad` when `use_orig_params=False`",
        "SITE/torch/distributed/fsdp/_flat_param.py:_validate_tensors_to_flatten",
    ),
    click=("Usage: train [OPTIONS]\nTry 'train --help' for help.\n\nError: No such option: --epoch", 2),
    ds_json=traceback(
        "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: line 9 column 3 (char 211)",
        "SITE/deepspeed/runtime/config.py:__init__",
        "/usr/lib/python3.11/json/decoder.py:raw_decode",
    ),
    dropout=traceback(
        "ValueError: dropout probability has to be between 0 and 1, but got 1.5",
        "SITE/torch/nn/modules/dropout.py:__init__",
    ),
    lr=traceback("ValueError: Invalid learning rate: -0.001", "SITE/torch/optim/adamw.py:__init__"),
)

INTERRUPT = _of(
    "user_interrupt",
    plain=(f"{STEPS}\n^C" + traceback("KeyboardInterrupt", TRAINER), 130),
    no_status=f"{STEPS}\n" + traceback("KeyboardInterrupt", TRAINER),
    workers=(
        f"{STEPS}\n"
        + traceback(
            "ConnectionResetError: [Errno 104] Connection reset by peer",
            "/usr/lib/python3.11/multiprocessing/connection.py:_recv",
        )
        + "\n"
        + traceback("KeyboardInterrupt", LOADER),
        130,
    ),
    lightning=f"{STEPS}\nDetected KeyboardInterrupt, attempting graceful shutdown ...",
    torchrun="\n".join(
        [
            f"{STEPS}",
            "W1 torch/distributed/elastic/agent/server/api.py:719] Received 2 death signal, shutting down workers",
            traceback(
                "torch.distributed.elastic.multiprocessing.api.SignalException: Process 4711 got signal: 2",
                "SITE/torch/distributed/elastic/multiprocessing/api.py:_terminate_process_handler",
                main="/opt/env/bin/torchrun",
            ),
        ]
    ),
    deepspeed=f'{STEPS}\n^C[2025-02-01 11:11:12,123] [INFO] [launch.py:319:sigkill_handler] Killing subprocess 17\nTraceback (most recent call last):\n  File "/opt/env/bin/deepspeed", line 6, in <module>\n    main()\nKeyboardInterrupt',
    bare=(STEPS, 130),
    save=(f"{STEPS}\nInterrupted by user, saving a checkpoint to out/last", 130),
)

CODE = _of(
    "code_error",
    type_error=traceback("TypeError: unsupported operand type(s) for +: 'int' and 'str'", "/home/me/run/train.py:step"),
    name=traceback("NameError: name 'optimzer' is not defined", "/home/me/run/train.py:step"),
    attribute=traceback(
        "AttributeError: 'LlamaForCausalLM' object has no attribute 'layer_norms'", "/home/me/run/model.py:freeze"
    ),
    shapes=traceback(
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (16x512 and 768x768)",
        "SITE/torch/nn/modules/linear.py:forward",
    ),
    zero=traceback("ZeroDivisionError: division by zero", "/home/me/run/metrics.py:accuracy"),
    index=traceback("IndexError: list index out of range", "/home/me/run/train.py:schedule"),
    key=traceback("KeyError: 'val/acc'", "/home/me/run/train.py:log:best = history['val/acc'][-1]"),
    device=traceback(
        "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
        "/home/me/run/model.py:forward",
    ),
    inplace=traceback(
        "RuntimeError: one of the variables needed for gradient computation has been modified by an inplace operation: [torch.FloatTensor [8, 4]]",
        TRAINER,
    ),
    no_grad=traceback("RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn", TRAINER),
    assertion=traceback("AssertionError", "/home/me/run/model.py:forward:assert x.shape == y.shape"),
    unpack=traceback("ValueError: too many values to unpack (expected 2)", "/home/me/run/train.py:evaluate"),
    syntax=('  File "/home/me/run/train.py", line 12\n    def main(:\n             ^\nSyntaxError: invalid syntax', 1),
    indentation=('  File "/home/me/run/train.py", line 12\n    x = 1\nIndentationError: unexpected indent', 1),
    dtype=traceback(
        "RuntimeError: expected scalar type Half but found Float", "SITE/torch/nn/modules/linear.py:forward"
    ),
    ranks=labelled("[rank1]: ", traceback("TypeError: 'NoneType' object is not callable", "/home/me/run/train.py:hook"))
    + "\n"
    + labelled(
        "[rank0]: ",
        traceback(
            "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1234",
            "SITE/torch/distributed/distributed_c10d.py:all_reduce",
        ),
    )
    + "\n"
    + torchrun(1, 1),
    recursion=traceback(
        "RecursionError: maximum recursion depth exceeded while calling a Python object", "/home/me/run/model.py:visit"
    ),
    ddp=traceback(
        "RuntimeError: Expected to have finished reduction in the prior iteration before starting a new one. This error indicates that your module has parameters that were not used in producing loss.",
        "SITE/torch/nn/parallel/distributed.py:forward",
    ),
    twice=traceback(
        "RuntimeError: Trying to backward through the graph a second time (or directly access saved tensors after they have already been freed).",
        TRAINER,
    ),
    keyword=traceback(
        "TypeError: MyModel.forward() got an unexpected keyword argument 'num_items_in_batch'",
        TRAINER,
        "SITE/torch/nn/modules/module.py:_call_impl",
    ),
)

NONE = _of(
    "none",
    plain=f"{STEPS}\n{{'train_runtime': 120.1, 'train_samples_per_second': 4.1, 'train_loss': 2.1}}",
    unfinished=STEPS,
    warned=f"/opt/env/lib/x.py:12: UserWarning: The NVIDIA driver on your system is too old (found version 11040).\n  return torch._C._cuda_getDeviceCount() > 0\n{STEPS}",
    data_words=f"sample 3: 'In Python a ValueError: bad value is raised; then the process was Killed and the Segmentation fault was logged.'\n{STEPS}",
    retried=f"'(ReadTimeoutError(\"HTTPSConnectionPool(host='huggingface.co', port=443): Read timed out. (read timeout=10)\"), '(Request ID: 1)')' thrown while requesting HEAD https://huggingface.co/x/resolve/main/config.json\nRetrying in 1s [Retry 1/5].\n{STEPS}",
    caught=f"{STEPS}\ncould not upload sample, going on\n{traceback('ConnectionError: upload refused', '/home/me/run/log.py:push')}\nstep 9 loss 2.2\nstep 10 loss 2.1\nstep 11 loss 2.0",
    metric=(
        "epoch 1 error 0.31 word_error_rate 0.21\nepoch 2 error 0.25 word_error_rate 0.19\ntop1 error: 12.1 top5 error: 3.1",
        0,
    ),
    overflow="[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, reducing to 32768\n" + STEPS,
    counters="iteration 10/100 | lm loss: 6.1E+00 | number of skipped iterations: 0 | number of nan iterations: 0 |\niteration 11/100 | lm loss: 6.0E+00 | number of skipped iterations: 0 | number of nan iterations: 0 |",
    one_nan="step 1 loss 2.1\nstep 2 loss nan\nstep 3 loss 2.0\nstep 4 loss 1.9\nstep 5 loss 1.8",
    best="best val loss: inf\nepoch 1 val_loss improved from inf to 2.31, saving model\nepoch 1 train loss 2.5\nepoch 2 train loss 2.2",
    cleanup=(
        f"{STEPS}\n[rank0]:[W101 ProcessGroupNCCL.cpp:1250] Warning: WARNING: process group has NOT been destroyed before we destruct ProcessGroupNCCL. On normal program exit, the application should call destroy_process_group",
        0,
    ),
    resource=(
        f"{STEPS}\n/usr/lib/python3.11/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked semaphore objects to clean up at shutdown",
        0,
    ),
    ignored=(
        f"{STEPS}\nException ignored in: <function _releaseLock at 0x7f>\n{traceback('KeyError: 8', '/usr/lib/python3.11/threading.py:_shutdown')}",
        0,
    ),
    tensorflow="2025-01-01 10:00:00.1: E tensorflow/compiler/xla/stream_executor/cuda/cuda_dnn.cc:9342] Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN when one has already been registered\n2025-01-01 10:00:00.2: W tensorflow/compiler/tf2tensorrt/utils/py_utils.cc:38] TF-TRT Warning: Could not find TensorRT\n"
    + STEPS,
    length=f"Token indices sequence length is longer than the specified maximum sequence length for this model (5121 > 4096). Running this sequence through the model will result in indexing errors\n{STEPS}",
    weights=f"Some weights of LlamaForSequenceClassification were not initialized from the model checkpoint and are newly initialized: ['score.weight']\n{STEPS}",
    unexpected=f"Some weights of the model checkpoint were not used: ['cls.predictions.bias']\nMissing keys: [] unexpected keys: []\n{STEPS}",
    memory="step 1 loss 2.1 | gpu mem 71.2GB of 79.1GB, out of memory events: 0\nstep 2 loss 2.0 | gpu mem 71.2GB of 79.1GB, out of memory events: 0",
    recovered=f"WARNING: CUDA out of memory at batch size 16, trying 8\n{STEPS}",
    killed_story="generated: 'The knight was Killed by the dragon. Terminated, he lay there.'\n" + STEPS,
    skipped=("ERROR: row 17 is malformed, skipping it\n" + STEPS, 0),
    wandb="wandb: WARNING Serializing object of type list that is 120 bytes\nwandb: ERROR Failed to sample metric: Not Supported\n"
    + STEPS,
    server="INFO: 404 Not Found: favicon\n" + STEPS,
    torchrun_warn="W0302 torch/distributed/run.py:792] \nW0302 torch/distributed/run.py:792] *****************************************\nW0302 torch/distributed/run.py:792] Setting OMP_NUM_THREADS environment variable for each process to be 1 in default\n"
    + STEPS,
    empty=("", 0),
    eval_only=("{'eval_loss': 1.91, 'eval_accuracy': 0.61, 'eval_runtime': 3.1}", 0),
    gradient_inf="{'loss': 6.2, 'grad_norm': inf, 'epoch': 0.01}\n{'loss': 6.1, 'grad_norm': 3.2, 'epoch': 0.02}\n{'loss': 6.0, 'grad_norm': 2.2, 'epoch': 0.03}",
)

EXAMPLES = [
    *CUDA_OOM, *HOST_OOM, *CUDA_ERROR, *GPU_HARDWARE, *DRIVER_MISMATCH, *NCCL_TIMEOUT, *HANG, *KILLED, *SEGFAULT, *DISK_FULL,
    *CORRUPT, *MISMATCH, *DATA, *NAN, *DEPENDENCY, *NOT_FOUND, *PERMISSION, *NETWORK, *TOO_MANY, *MULTIPROCESSING, *CONFIG,
    *INTERRUPT, *CODE, *NONE,
]  # fmt: skip
