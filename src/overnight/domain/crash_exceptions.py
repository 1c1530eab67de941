"""What one Python exception in a log means: its type, its words, and the place it was raised at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from overnight.domain.attempt import FailureKind
from overnight.domain.crash_ends import kind_of_signal, launcher_signal
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
_PLAIN_FAULTS = frozenset(
    {"IndexError", "ZeroDivisionError", "NameError", "UnboundLocalError", "RecursionError", "StopIteration"}
)
_COLUMNS = re.compile(
    r"^'(?:text|texts|prompts?|completions?|chosen|rejected|messages|instructions?|inputs?|outputs?|labels?|input_ids|role"
    r"|conversations?|questions?|answers?|content|sentence\w*|responses?|attention_mask|source|target|query|image\w*|id)'$"
)
_ROWS = re.compile(
    r"\b(?:ex(?:ample)?s?|rows?|samples?|items?|records?|batch|data\w*|lines?|obj|entry|entries|features?|d|x)\[[\"']"
    r"|(?:dataset\w*|datasets|data)\[.{1,60}\]\[|json\.loads|read_(?:csv|json|parquet)|DataFrame|\bdf\["
)
_PLAIN_VALUE = re.compile(
    r"'(?:int|float|str|list|dict|NoneType|bool)' object|(?:must be|expected) (?:a )?str(?:ing)?\b"
)
_FILE_TYPES = frozenset({"FileNotFoundError", "NotADirectoryError", "IsADirectoryError", "FileExistsError"})
_BROKEN_LINKS = frozenset({"BrokenPipeError", "ConnectionResetError", "ConnectionAbortedError", "EOFError"})

_OPTIMIZER = re.compile(r"torch/optim/|/optimizer|adam|zero/stage|bitsandbytes/optim", re.IGNORECASE)
_STATE_FILES = re.compile(
    r"trainer_state|load_from_json|from_json_file|_dict_from_json|load_state_dict|_load_checkpoint|_load_rng|"
    r"_load_optimizer|tokenization_utils|from_pretrained|resume|checkpoint",
    re.IGNORECASE,
)
_SETTINGS = re.compile(r"parse_json|parse_yaml|hf_argparser|deepspeed.{0,40}config|read_config|load_config|config\.py")
_HUB = re.compile(r"huggingface_hub/|requests/|httpx|urllib3/|urllib/request|aiohttp|modelscope|wandb/sdk.{0,40}api")
_PROCESSES = re.compile(r"multiprocess|concurrent/futures|torch/multiprocessing|dataloader|popen_|spawn")
_COLLECTIVES = re.compile(r"torch/distributed|rendezvous|c10d|deepspeed/comm|accelerate/state")
_DATA = re.compile(
    r"/datasets/|data_?collator|tokeniz|/data(?:set"
    r"|sets|_utils|loader)?/|dataset\w*\.py|data\w*\.py|_utils/(?:fetch|collate)"
    r"|\b(?:__getitem__|collate\w*|preprocess\w*|tokeni[sz]e\w*|apply_chat_template|load_data\w*|read_\w+|parse_(?!args)\w+"
    r"|format\w*|encode\w*|prepare_data\w*|to_features|load_\w*jsonl?\w*|\w*example\w*|\w*sample\w*|\w*row\w*)$",
    re.IGNORECASE,
)
_LIBRARY = re.compile(r"/(?:site|dist)-packages/")
_ARGUMENT_FILE = re.compile(r"/\w*(?:config|args|arguments|argparse|argparser)\w*\.py$")
_VALIDATES = re.compile(r"^_*(?:validate|check|verify|assert|sanity)|__post_init__$")
_REFUSALS = frozenset({"ValueError", "AssertionError", "TypeError", "NotImplementedError"})
_CHECKS = re.compile(
    r"__post_init__$|__init__$|validat|check|verify|_parse|parse_args|prepare|from_config|setup|configure|assert_|"
    r"_sanity|get_scheduler|create_optimizer|_set_|__setattr__|initialize|inject_adapter|get_peft|build|select"
)
_SETTING_WORDS = re.compile(
    r"\b(?:must be|should be|has to be|have to be|must (?:not )?(?:set|provide|specify|have)"
    r"|need to (?:set|specify|provide|pass)"
    r"|is not supported|are not supported|not supported"
    r"|unsupported|does not support|doesn't support|only supports?|cannot be used|can't be used"
    r"|can not be used|can only be"
    r"|cannot be (?:both|combined|set)|incompatible|not compatible|mutually exclusive|not both"
    r"|at most one|either .{1,80} or"
    r"|[Pp]lease (?:set|specify|provide|pass|use|correct|choose|select|make sure|check|make)"
    r"|[Ii]nvalid (?:\w+ ){0,3}(?:choice|value|option|argument|parameter|config\w*|rate|beta|epsilon|momentum|weight_decay|dtype|device)|not a valid|is not valid|is invalid"
    r"|expected one of|one of \[|unknown (?:optimizer"
    r"|scheduler|option|argument|setting|task|method)"
    r"|unrecognized (?:arguments?|option|configuration)"
    r"|requires? (?:a |an |the |that |either |`|--|eval|setting|CUDA|GPU|Ampere)|is required"
    r"|are required|is not divisible|not divisible|divisible by|mismatch TrainingArguments"
    r"|not found in (?:the base model|kwargs|config)|expected, but not set|not (?:set|defined"
    r"|specified|provided)|missing (?:required|mandatory)|"
    r"[Tt]arget modules|padding token|pad(?:ding)?[_ ]token"
    r"|do(?:es)? not have a padding|greater than|less than|larger than|cannot use|can't use"
    r"|no (?:optimizer|scheduler) named"
    r"|strategy|[Yy]ou (?:cannot|can't|can not)|arguments? (?:is|are) not used|HfArgumentParser|trust_remote_code|load_best_model_at_end|--[a-z]\w+|environment variable)",
)
_FOREIGN_KEYWORD = re.compile(
    r"(?:\w*(?:Arguments|Config|Trainer|Args|Configuration|Optimizer|Loader)"
    r"|AdamW|from_pretrained|Accelerator|LLM|load_dataset|main|train)"
    r"(?:\.__init__|\.__new__|\.from_pretrained)?\(\) (?:got an unexpected keyword|missing \d+ required)"
)


def judge(raised: Raised) -> Judged:
    """Return what one exception means."""
    name, text = raised.name, f"{raised.type}: {raised.message}"
    whole = f"{text}\n{raised.more}"
    if name == "SignalException":
        is_interrupt = re.search(r"signal: 2\b", text) is not None
        return Judged(K.USER_INTERRUPT if is_interrupt else K.KILLED_BY_SIGNAL, Weight.ECHO)
    number = launcher_signal(text) if name in _PASSED_ON else None
    if number is not None:
        return Judged(kind_of_signal(number), Weight.ECHO)
    if name in _PASSED_ON or _TELLS_OF_OTHERS.match(raised.message):
        return Judged(K.CODE_ERROR, Weight.NOTHING)
    if name == "KeyboardInterrupt":
        return Judged(K.USER_INTERRUPT, Weight.ECHO)
    if name in _BY_TYPE and not (name == "PermissionError" and "/dev/shm" in text):
        return Judged(_BY_TYPE[name], Weight.SPECIFIC)
    if "is killed by signal" in text or "exited unexpectedly" in text or "abruptly died" in text:
        return _dead_worker(text)
    if name in _FILE_TYPES:
        return Judged(_missing(raised, whole), Weight.SPECIFIC)
    for words in (whole,) if name == "UnpicklingError" else (text, whole):
        found = meaning(words)
        if found is not None and found.is_echo:
            found = meaning(whole, but=found) or found
        if found is None and name not in ("KeyError", "AttributeError", "NameError"):
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
    if "signal: Killed" in text or "abruptly died" in text:
        return Judged(K.HOST_OOM, Weight.ECHO)
    if "signal: Terminated" in text or "signal: Hangup" in text:
        return Judged(K.KILLED_BY_SIGNAL, Weight.ECHO)
    return Judged(K.MULTIPROCESSING, Weight.ECHO)


def _missing(raised: Raised, text: str) -> FailureKind:
    """Judge a file that is not there by who misses it."""
    frames = _frames(raised)
    if "usable temporary directory" in text:
        return K.DISK_FULL
    if re.search(r"/dev/shm|torch_\d+|/psm_|pymp-", text) or (not raised.message and _PROCESSES.search(frames)):
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
    if name in _BROKEN_LINKS or (name == "ConnectionRefusedError" and _PROCESSES.search(frames)):
        kind = K.NETWORK_HUB if _HUB.search(frames) else K.MULTIPROCESSING
        return Judged(kind, Weight.SPECIFIC if kind is K.NETWORK_HUB else Weight.ECHO)
    if name in ("TimeoutError", "ConnectionError", "ConnectionRefusedError", "timeout"):
        is_collective = _COLLECTIVES.search(frames) is not None
        return Judged(K.NCCL_TIMEOUT if is_collective else K.NETWORK_HUB, Weight.SPECIFIC)
    if "must match the size of tensor" in text and _OPTIMIZER.search(inner):
        return Judged(K.CHECKPOINT_MISMATCH, Weight.SPECIFIC)
    if last_function == "<module>" and _LIBRARY.search(last_file) and name != "AssertionError":
        return Judged(K.DEPENDENCY, Weight.SPECIFIC)  # a package breaks while it is imported
    hub_or_path = re.search(r"Can't load (?:the )?[\w ]+ (?:for|of) '([^']+)'", text)
    if hub_or_path is not None:
        is_path = hub_or_path.group(1).startswith((".", "/", "~")) or hub_or_path.group(1).count("/") > 1
        return Judged(K.FILE_NOT_FOUND if is_path else K.NETWORK_HUB, Weight.SPECIFIC)
    if name == "AttributeError" and re.search(r"module '[\w.]+' has no attribute", text):
        return Judged(K.DEPENDENCY, Weight.SPECIFIC)
    if name == "AttributeError" and re.search(r"[Cc]an't pickle|[Cc]an't get", text):
        return Judged(K.MULTIPROCESSING, Weight.SPECIFIC)
    if name == "TypeError" and _FOREIGN_KEYWORD.search(text):
        return Judged(K.CONFIG_ERROR, Weight.SPECIFIC)
    if name == "KeyError" and re.search(r"configuration_auto|CONFIG_MAPPING|modeling_auto", inner):
        return Judged(K.DEPENDENCY, Weight.SPECIFIC)
    if re.search(
        r"on the same device|on device .{1,200} but found|[Ii]nput type .{1,80} and (?:weight|bias) type", text
    ):
        return Judged(K.CODE_ERROR, Weight.GENERAL)
    is_library = _LIBRARY.search(last_file) is not None
    is_setting = name not in _PLAIN_FAULTS and _SETTING_WORDS.search(text) is not None
    if is_library and name in _REFUSALS and (_ARGUMENT_FILE.search(last_file) or _VALIDATES.search(last_function)):
        return Judged(K.CONFIG_ERROR, Weight.SPECIFIC)
    if is_setting and (is_library or _CHECKS.search(last_function)):
        return Judged(K.CONFIG_ERROR, Weight.SPECIFIC)
    if name == "KeyError" and (_COLUMNS.match(raised.message) or _ROWS.search(raised.code)):
        return Judged(K.DATA_FORMAT, Weight.SPECIFIC)
    if name in ("KeyError", "ValueError", "IndexError", "UnicodeError") and _is_about_data(raised):
        return Judged(K.DATA_FORMAT, Weight.SPECIFIC)
    if name == "StopIteration" and re.search(r"next\(iter\(.{0,80}(?:data|loader)", raised.code):
        return Judged(K.DATA_FORMAT, Weight.SPECIFIC)  # there is not one row
    if name in ("TypeError", "AttributeError") and _PLAIN_VALUE.search(text) and _is_about_data(raised):
        return Judged(K.DATA_FORMAT, Weight.SPECIFIC)
    return Judged(K.CODE_ERROR, Weight.GENERAL)


def _is_about_data(raised: Raised) -> bool:
    return any(_DATA.search(f"{file}:{function}") for file, function in raised.frames[-5:])


def _broken_file(frames: str, inner: str, name: str) -> FailureKind:
    if _HUB.search(inner):
        return K.NETWORK_HUB
    if _SETTINGS.search(inner) and name == "JSONDecodeError":
        return K.CONFIG_ERROR
    if _STATE_FILES.search(frames) or name != "JSONDecodeError":
        return K.CHECKPOINT_CORRUPT
    return K.DATA_FORMAT


def _frames(raised: Raised) -> str:
    return "\n".join(f"{file}:{function}" for file, function in raised.frames)
