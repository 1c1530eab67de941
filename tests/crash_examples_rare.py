"""More short logs, of failures that are met less often; written after the rules, to see how far they carry."""

from __future__ import annotations

from crash_examples import (
    LOAD,
    SAVE,
    STEPS,
    TRAINER,
    Example,
    chained,
    labelled,
)
from crash_examples import traceback as tb

S = "SITE/"

_RARE: list[tuple[str, str, str, int | None]] = [
    (
        "host_oom",
        "ray.exceptions.ActorDiedError",
        tb(
            "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.\n\tclass_name: WorkerDict\n\tactor_id: 77\n\tpid: 16424\nThe actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file. There are some potential root causes. (1) The process is killed by SIGKILL by OOM killer due to high memory usage. (2) ray stop --force is called. (3) The worker is crashed unexpectedly due to SIGSEGV or other unexpected errors.",
            S + "ray/_private/worker.py:get",
        ),
        1,
    ),
    (
        "cuda_oom",
        "ray oom then died",
        "(WorkerDict pid=71) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity\n(raylet) A worker died or was killed while executing a task by an unexpected system error. Some common causes include: (1) the process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called\n"
        + tb(
            'ray.exceptions.RayTaskError(OutOfMemoryError): ray::WorkerDict.actor_update() (pid=71, ip=10.0.0.1)\n  File "/x/a.py", line 3, in update\n    loss.backward()\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.',
            S + "ray/_private/worker.py:get",
        ),
        1,
    ),
    (
        "code_error",
        "ckpt recompute",
        tb(
            "torch.utils.checkpoint.CheckpointError: torch.utils.checkpoint: Recomputed values for the following tensors have different metadata than during the forward pass.",
            S + "torch/utils/checkpoint.py:check_recomputed_tensors_match",
        ),
        1,
    ),
    ("segfault", "ds 245", STEPS, 245),
    (
        "host_oom",
        "ds -9",
        "[2025-01-01 01:01:01,1] [INFO] [launch.py:428:sigkill_handler] Killing subprocess 132\n[2025-01-01 01:01:01,1] [ERROR] [launch.py:434:sigkill_handler] ['/usr/bin/python3'] exits with return code = -9",
        None,
    ),
    (
        "code_error",
        "ds rc0",
        "[2025-01-01 01:01:01,1] [INFO] [launch.py:102:main] dist_world_size=2\n"
        + tb("NameError: name 'x' is not defined"),
        0,
    ),
    (
        "config_error",
        "lightning",
        tb(
            "lightning.fabric.utilities.exceptions.MisconfigurationException: No supported gpu backend found!",
            S + "lightning/pytorch/trainer/connectors/accelerator_connector.py:_choose_gpu_accelerator_backend",
        ),
        1,
    ),
    (
        "config_error",
        "megatron",
        tb(
            "AssertionError: world size (8) is not divisible by tensor model parallel size (3)",
            "/w/megatron/arguments.py:validate_args",
        ),
        1,
    ),
    (
        "config_error",
        "seqlen",
        tb(
            "ValueError: User-specified max_model_len (32768) is greater than the derived max_model_len (max_position_embeddings=4096). This may lead to incorrect model outputs",
            S + "vllm/config.py:_get_and_verify_max_len",
        ),
        1,
    ),
    (
        "config_error",
        "attn",
        tb(
            "ValueError: The following `model_kwargs` are not used by the model: ['foo'] (note: typos in the generate arguments will also show up in this list)",
            S + "transformers/generation/utils.py:_validate_model_kwargs",
        ),
        1,
    ),
    (
        "config_error",
        "flash dtype",
        tb(
            "RuntimeError: FlashAttention only support fp16 and bf16 data type",
            S + "flash_attn/flash_attn_interface.py:_flash_attn_forward",
        ),
        1,
    ),
    ("config_error", "fire", "ERROR: Could not consume arg: --lr\nUsage: train.py <flags>\n", 2),
    (
        "config_error",
        "env",
        tb("KeyError: 'LOCAL_RANK'", "/h/t.py:main:r=int(os.environ['LOCAL_RANK'])", "<frozen os>:__getitem__"),
        1,
    ),
    (
        "config_error",
        "hydra cfg",
        "Cannot find primary config 'base'. Check that it's in your config search path.\n\nConfig search path:\n\tprovider=hydra, path=pkg://hydra.conf",
        1,
    ),
    (
        "config_error",
        "omegaconf",
        tb(
            "omegaconf.errors.ConfigAttributeError: Key 'optim' is not in struct\n    full_key: optim\n    object_type=dict",
            "/h/t.py:main",
        ),
        1,
    ),
    (
        "dependency",
        "triton",
        tb(
            "RuntimeError: Failed to find C compiler. Please specify via CC environment variable.",
            S + "triton/runtime/build.py:_build",
        ),
        1,
    ),
    (
        "dependency",
        "inductor",
        tb(
            "torch._inductor.exc.InductorError: ImportError: /tmp/x.so: cannot open shared object file: No such file or directory",
            S + "torch/_inductor/compile_fx.py:compile",
        ),
        1,
    ),
    (
        "dependency",
        "no libcuda",
        "/opt/x/bin/python: symbol lookup error: /opt/x/libtorch_cuda.so: undefined symbol: ncclCommRegister",
        127,
    ),
    (
        "dependency",
        "np",
        tb(
            "AttributeError: `np.float_` was removed in the NumPy 2.0 release. Use `np.float64` instead.",
            S + "numpy/__init__.py:__getattr__",
        ),
        1,
    ),
    (
        "dependency",
        "np2",
        tb("AttributeError: module 'numpy' has no attribute 'bool'.\n`np.bool` was a deprecated alias", "/h/t.py:main"),
        1,
    ),
    ("dependency", "numpy off", tb("RuntimeError: Numpy is not available", "/h/t.py:main"), 1),
    (
        "dependency",
        "bnb cuda",
        tb(
            "RuntimeError: \n        CUDA Setup failed despite GPU being available. Please run the following command to get more information:\n\n        python -m bitsandbytes",
            S + "bitsandbytes/cextension.py:<module>",
        ),
        1,
    ),
    (
        "dependency",
        "sentencepiece",
        tb(
            "ImportError: \nLlamaTokenizer requires the SentencePiece library but it was not found in your environment.",
            S + "transformers/utils/import_utils.py:requires_backends",
        ),
        1,
    ),
    ("dependency", "gcc", "ERROR: Failed building wheel for flash-attn\nerror: subprocess-exited-with-error", 1),
    ("dependency", "conda", "/usr/bin/env: ‘python’: No such file or directory", 127),
    (
        "dependency",
        "act",
        "bash: line 3: conda: command not found\n" + tb("ModuleNotFoundError: No module named 'torch'"),
        1,
    ),
    (
        "network_hub",
        "proxy",
        tb(
            "requests.exceptions.ProxyError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: / (Caused by ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 403 Forbidden')))",
            S + "requests/adapters.py:send",
        ),
        1,
    ),
    (
        "network_hub",
        "wandb init",
        "wandb: ERROR Error while calling W&B API: user is not logged in (<Response [401]>)\n"
        + tb("wandb.errors.CommError: user is not logged in", S + "wandb/sdk/wandb_init.py:init"),
        1,
    ),
    (
        "network_hub",
        "wandb 403",
        tb("wandb.errors.errors.CommError: permission denied", S + "wandb/sdk/wandb_init.py:init"),
        1,
    ),
    (
        "network_hub",
        "nltk",
        tb(
            "urllib.error.HTTPError: HTTP Error 403: Forbidden",
            "/usr/lib/python3.11/urllib/request.py:http_error_default",
        ),
        1,
    ),
    (
        "network_hub",
        "git",
        "fatal: unable to access 'https://github.com/x/y.git/': Could not resolve host: github.com",
        128,
    ),
    (
        "network_hub",
        "cas",
        tb(
            "RuntimeError: Data processing error: CAS service error : Reqwest Error: HTTP status client error (401 Unauthorized)",
            S + "huggingface_hub/file_download.py:xet_get",
        ),
        1,
    ),
    (
        "network_hub",
        "dsconn",
        tb(
            "ConnectionError: Couldn't reach https://raw.githubusercontent.com/x.py (error 404)",
            S + "datasets/utils/file_utils.py:get_from_cache",
        ),
        1,
    ),
    (
        "network_hub",
        "s3 access",
        tb(
            "botocore.exceptions.ClientError: An error occurred (403) when calling the HeadObject operation: Forbidden",
            S + "botocore/client.py:_make_api_call",
        ),
        1,
    ),
    (
        "nccl_timeout",
        "verbose",
        "E0302 10:11:12.300 99 torch/distributed/elastic/rendezvous/dynamic_rendezvous.py] The node 'n1' has failed to shutdown the rendezvous due to an error of type RendezvousTimeoutError.\n"
        + tb(
            "torch.distributed.DistNetworkError: The client socket has timed out after 60000ms while trying to connect to (n0, 29500).",
            S + "torch/distributed/elastic/rendezvous/c10d_rendezvous_backend.py:_create_tcp_store",
        ),
        1,
    ),
    (
        "nccl_timeout",
        "broken pipe",
        tb("RuntimeError: Broken pipe", S + "torch/distributed/distributed_c10d.py:_store_based_barrier"),
        1,
    ),
    (
        "nccl_timeout",
        "conn refused",
        "[W socket.cpp:558] [c10d] The client socket has failed to connect to [n0]:29500 (errno: 111 - Connection refused).\n"
        + tb(
            "torch.distributed.DistNetworkError: Connection refused",
            S + "torch/distributed/rendezvous.py:_create_c10d_store",
        ),
        1,
    ),
    (
        "nccl_timeout",
        "hccl",
        tb(
            "RuntimeError: The Inner error is reported as above. HCCL function error: HcclAllreduce, timeout waiting for remote",
            S + "torch_npu/x.py:y",
        ),
        1,
    ),
    (
        "hang",
        "slurm hang",
        STEPS
        + "\n[2025-01-01] stall detector: no step finished for 1800 s\nslurmstepd: error: *** JOB 5 ON g1 CANCELLED AT 2025-02-03T04:05:06 ***",
        None,
    ),
    (
        "hang",
        "faulthandler exit",
        STEPS
        + '\nTimeout (0:00:30)!\nThread 0x7f (most recent call first):\n  File "/usr/lib/python3.11/threading.py", line 327 in wait\n  File "/usr/lib/python3.11/queue.py", line 171 in get',
        1,
    ),
    ("killed_by_signal", "k8s", STEPS + "\nReceived SIGTERM, shutting down\n", 143),
    ("killed_by_signal", "term py", STEPS + "\n" + tb("SystemExit: 143", "/h/t.py:handler"), 143),
    ("killed_by_signal", "zsh", "zsh: terminated  python train.py", None),
    (
        "killed_by_signal",
        "srun term",
        "srun: Job step aborted: Waiting up to 32 seconds for job step to finish.\nsrun: error: g1: task 0: Terminated\nsrun: launch/slurm: _step_signal: Terminating StepId=1.0",
        None,
    ),
    (
        "killed_by_signal",
        "scancel multi",
        STEPS
        + "\nslurmstepd: error: *** STEP 5.0 ON g1 CANCELLED AT 2025-02-03T04:05:06 ***\nslurmstepd: error: *** JOB 5 ON g1 CANCELLED AT 2025-02-03T04:05:06 ***\nsrun: error: g1: tasks 0-7: Terminated",
        None,
    ),
    (
        "user_interrupt",
        "nested",
        STEPS + "\n" + chained(tb("KeyboardInterrupt", TRAINER), tb("KeyboardInterrupt", "/h/t.py:save"), by="during"),
        130,
    ),
    (
        "user_interrupt",
        "wandb",
        STEPS
        + "\n"
        + tb("KeyboardInterrupt", TRAINER)
        + "\nwandb: Network error (ConnectionError), entering retry loop.",
        None,
    ),
    (
        "user_interrupt",
        "torchrun ranks",
        labelled("[rank0]: ", tb("KeyboardInterrupt", TRAINER))
        + "\n"
        + labelled("[rank1]: ", tb("KeyboardInterrupt", TRAINER))
        + "\nW1 torch/distributed/elastic/agent/server/api.py:704] Received Signals.SIGINT death signal, shutting down workers",
        1,
    ),
    (
        "segfault",
        "py 3.13",
        "Fatal Python error: Segmentation fault\n\n<Cannot show all threads while the GIL is disabled>\nExtension modules: numpy._core (total: 12)",
        139,
    ),
    ("segfault", "stack", "*** stack smashing detected ***: terminated\nAborted (core dumped)", 134),
    (
        "segfault",
        "cuda core",
        "#\n# A fatal error has been detected by the Java Runtime Environment:\n#  SIGSEGV (0xb) at pc=0x7f",
        134,
    ),
    ("segfault", "worker srun", "srun: error: n1: task 3: Segmentation fault (core dumped)", 139),
    (
        "disk_full",
        "wandb thread",
        STEPS
        + "\n"
        + tb("OSError: [Errno 28] No space left on device", S + "wandb/sdk/internal/datastore.py:_write_data"),
        1,
    ),
    ("disk_full", "inode", "mkdir: cannot create directory 'out': No space left on device", 1),
    (
        "disk_full",
        "torch old",
        tb("RuntimeError: [enforce fail at inline_container.cc:337] . unexpected pos 4096 vs 3988", SAVE),
        1,
    ),
    ("disk_full", "quota fs", tb("OSError: [Errno 122] Disk quota exceeded", S + "datasets/arrow_writer.py:write"), 1),
    (
        "disk_full",
        "h5",
        tb(
            "OSError: Can't write data (file write failed: time = now, filename = 'x.h5', file descriptor = 3, errno = 28, error message = 'No space left on device')",
            "/h/t.py:s",
        ),
        1,
    ),
    ("checkpoint_corrupt", "gguf", tb("ValueError: GGUF magic invalid", S + "gguf/gguf_reader.py:__init__"), 1),
    (
        "checkpoint_corrupt",
        "dcp",
        tb(
            "torch.distributed.checkpoint.api.CheckpointException: CheckpointException ranks:dict_keys([0])\nEOFError: Ran out of input",
            S + "torch/distributed/checkpoint/state_dict_loader.py:load",
        ),
        1,
    ),
    (
        "checkpoint_corrupt",
        "missing shard",
        tb("RuntimeError: unable to mmap 1024 bytes from file <pytorch_model.bin>: file truncated", LOAD),
        1,
    ),
    (
        "checkpoint_corrupt",
        "index",
        tb(
            "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
            S + "transformers/utils/hub.py:get_checkpoint_shard_files",
            "/usr/lib/python3.11/json/decoder.py:raw_decode",
        ),
        1,
    ),
    (
        "checkpoint_corrupt",
        "tf",
        tb(
            "tensorflow.python.framework.errors_impl.DataLossError: Unable to open table file ckpt: Data loss: not an sstable (bad magic number)",
            "/h/t.py:s",
        ),
        1,
    ),
    (
        "checkpoint_mismatch",
        "vocab",
        tb(
            "ValueError: The tokenizer has 32001 tokens but the checkpoint's embedding has 32000 rows: the checkpoint does not match the tokenizer",
            "/h/t.py:load",
        ),
        1,
    ),
    (
        "checkpoint_mismatch",
        "peft keys",
        tb(
            "KeyError: 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight'",
            S + "peft/utils/save_and_load.py:set_peft_model_state_dict",
        ),
        1,
    ),
    (
        "checkpoint_mismatch",
        "lightning",
        tb(
            'KeyError: "Trying to restore optimizer state but checkpoint contains only the model. This is probably due to `ModelCheckpoint.save_weights_only` being set to `True`."',
            S + "lightning/pytorch/trainer/connectors/checkpoint_connector.py:restore_training_state",
        ),
        1,
    ),
    (
        "data_format",
        "pa",
        tb(
            "pyarrow.lib.ArrowInvalid: Column 3 named input_ids expected length 1000 but got length 947",
            S + "datasets/arrow_writer.py:write_batch",
        ),
        1,
    ),
    (
        "data_format",
        "features",
        tb("ValueError: Features do not match: cannot align schema", S + "datasets/combine.py:concatenate"),
        1,
    ),
    (
        "data_format",
        "xml",
        tb("xml.etree.ElementTree.ParseError: mismatched tag: line 8, column 2", "/h/data.py:read"),
        1,
    ),
    ("data_format", "nan csv", tb("ValueError: invalid literal for int() with base 10: 'abc'", "/h/data.py:read"), 1),
    (
        "data_format",
        "wds",
        tb("tarfile.ReadError: invalid header", S + "webdataset/tariterators.py:tar_file_iterator"),
        1,
    ),
    ("nan_loss", "warn stop", STEPS + "\nWARNING: loss is nan, stopping\nExiting", 1),
    (
        "nan_loss",
        "megatron",
        tb(
            "AssertionError: Rank 0: found NaN in local forward loss calculation. Device: 0",
            "/w/megatron/training.py:train_step",
        ),
        1,
    ),
    (
        "nan_loss",
        "megatron2",
        tb(
            "RuntimeError: found NaN in local grad norm for bucket #0 in backward pass before data-parallel communication collective",
            "/w/ddp.py:check_grads",
        ),
        1,
    ),
    ("nan_loss", "inf", STEPS + "\nstep 10 loss inf\nstep 11 loss inf\nstep 12 loss inf", 0),
    (
        "nan_loss",
        "tqdm",
        "Epoch 0:  10%|█ | 10/100 [00:01<00:10, 9.1it/s, loss=2.11]\nEpoch 0:  11%|█ | 11/100 [00:01<00:10, 9.1it/s, loss=nan]\nEpoch 0:  12%|█ | 12/100 [00:01<00:10, 9.1it/s, loss=nan]",
        None,
    ),
    ("permission", "docker", "docker: permission denied while trying to connect to the Docker daemon socket", 126),
    (
        "permission",
        "wandb dir",
        tb("PermissionError: [Errno 13] Permission denied: './wandb/run-1'", S + "wandb/sdk/wandb_settings.py:x"),
        1,
    ),
    (
        "too_many_files",
        "async",
        tb("OSError: [Errno 24] Too many open files", S + "torch/multiprocessing/reductions.py:reduce_storage"),
        1,
    ),
    ("too_many_files", "popen", "OSError: [Errno 24] Too many open files: '/proc/self/fd'", 1),
    (
        "multiprocessing",
        "shm",
        "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).",
        None,
    ),
    ("multiprocessing", "eof", tb("EOFError", "/usr/lib/python3.11/multiprocessing/connection.py:_recv"), 1),
    (
        "multiprocessing",
        "manager",
        tb(
            "ConnectionRefusedError: [Errno 111] Connection refused",
            "/usr/lib/python3.11/multiprocessing/managers.py:_connect",
        ),
        1,
    ),
    (
        "multiprocessing",
        "fork res",
        tb(
            "BlockingIOError: [Errno 11] Resource temporarily unavailable",
            "/usr/lib/python3.11/multiprocessing/popen_fork.py:_launch",
        ),
        1,
    ),
    (
        "code_error",
        "view",
        tb(
            "RuntimeError: view size is not compatible with input tensor's size and stride (at least one dimension spans across two contiguous subspaces). Use .reshape(...) instead.",
            "/h/m.py:forward",
        ),
        1,
    ),
    (
        "code_error",
        "attr cfg",
        tb("AttributeError: 'LlamaConfig' object has no attribute 'foo'", "/h/m.py:__init__"),
        1,
    ),
    (
        "code_error",
        "jit",
        tb(
            "torch._dynamo.exc.Unsupported: call_function BuiltinVariable(print) [ConstantVariable()] {}",
            S + "torch/_dynamo/exc.py:unimplemented",
        ),
        1,
    ),
    (
        "code_error",
        "module call",
        tb(
            "TypeError: forward() missing 1 required positional argument: 'mask'",
            S + "torch/nn/modules/module.py:_call_impl",
        ),
        1,
    ),
    ("code_error", "own", tb("RuntimeError: boom at step 7", "/h/t.py:step"), 1),
    (
        "code_error",
        "size",
        tb(
            "RuntimeError: The size of tensor a (512) must match the size of tensor b (513) at non-singleton dimension 1",
            "/h/m.py:forward",
        ),
        1,
    ),
    (
        "code_error",
        "cat",
        tb(
            "RuntimeError: Sizes of tensors must match except in dimension 1. Expected size 4 but got size 5 for tensor number 1 in the list.",
            "/h/m.py:forward",
        ),
        1,
    ),
    ("code_error", "custom", tb("mylib.errors.EngineStopped: nothing to do", "/h/t.py:step"), 1),
    ("code_error", "notimpl", tb("NotImplementedError", "/h/m.py:forward"), 1),
    (
        "code_error",
        "dtype",
        tb(
            "RuntimeError: mat1 and mat2 must have the same dtype, but got Float and BFloat16",
            S + "torch/nn/modules/linear.py:forward",
        ),
        1,
    ),
    (
        "gpu_hardware",
        "xid in train",
        STEPS
        + "\n[1234.5] NVRM: Xid (PCI:0000:3b:00): 63, pid=1, name=python, Row Remapper: New row marked for remapping\n"
        + tb("RuntimeError: CUDA error: unspecified launch failure", TRAINER),
        1,
    ),
    ("gpu_hardware", "lost", tb("RuntimeError: CUDA error: GPU is lost", TRAINER), 1),
    ("gpu_hardware", "pynvml", tb("pynvml.NVMLError_GpuIsLost: GPU is lost", S + "pynvml.py:check"), 1),
    ("gpu_hardware", "dcgm", "ERROR: health check failed: GPU 3 has uncorrectable ECC errors (DBE 2)", 1),
    ("cuda_error", "async trap", tb("RuntimeError: CUDA error: unknown error", TRAINER), 1),
    (
        "cuda_error",
        "xid31",
        "[1234.5] NVRM: Xid (PCI:0000:3b:00): 31, pid=1, name=python, Ch 00000010, intr 00000000. MMU Fault: ENGINE GRAPHICS\n"
        + tb("RuntimeError: CUDA error: an illegal memory access was encountered", TRAINER),
        1,
    ),
    (
        "cuda_error",
        "lt",
        tb(
            "RuntimeError: CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmulAlgoGetHeuristic`",
            TRAINER,
        ),
        1,
    ),
    (
        "cuda_error",
        "cudnn init",
        tb("RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", S + "torch/nn/modules/conv.py:f"),
        1,
    ),
    (
        "none",
        "lightning",
        "Epoch 3: 100%|██████████| 10/10 [00:01<00:00, 9.1it/s, v_num=3, train_loss=0.21]\n`Trainer.fit` stopped: `max_epochs=4` reached.",
        0,
    ),
    ("none", "ds success", "[2025-01-01 01:01:01,1] [INFO] [launch.py:351:main] Process 99 exits successfully.", None),
    (
        "none",
        "hf hub warn",
        "Error while fetching `HF_TOKEN` secret value from your vault: 'Requesting secret HF_TOKEN timed out.'\n"
        + STEPS,
        None,
    ),
    ("none", "logger err", "2025-01-01 10:00:00 ERROR apex is not installed, using torch layer norm\n" + STEPS, None),
    (
        "none",
        "tb at start",
        tb("ImportError: No module named flash_attn", "/h/t.py:try_import").replace("<module>", "load")
        + "\nfalling back to sdpa\n"
        + STEPS,
        0,
    ),
    ("none", "val nan metric", "step 1 loss 2.0 acc nan\nstep 2 loss 1.9 acc nan", 0),
    (
        "none",
        "nccl info",
        "node1:99:123 [0] NCCL INFO comm 0x55 rank 0 nranks 4 - Init COMPLETE\nnode1:99:123 [0] NCCL INFO Connected all rings\n"
        + STEPS,
        None,
    ),
    (
        "none",
        "atexit",
        "{'train_runtime': 5.0, 'train_loss': 2.0}\nException in thread Thread-3 (_pin_memory_loop):\n"
        + tb(
            "ConnectionResetError: [Errno 104] Connection reset by peer",
            S + "torch/utils/data/_utils/pin_memory.py:_pin_memory_loop",
            main="/usr/lib/python3.11/threading.py",
        ),
        0,
    ),
]

RARE = [Example(f"{kind}-{name}", kind, log, exit_code) for kind, name, log, exit_code in _RARE]
