"""Where in a program an exception came from, and what that says of it: patterns of files, functions and words."""

from __future__ import annotations

import re

PLAIN_FAULTS = frozenset(
    {"IndexError", "ZeroDivisionError", "NameError", "UnboundLocalError", "RecursionError", "StopIteration"}
)
COLUMNS = re.compile(
    r"^'(?:text|texts|prompts?|completions?|chosen"
    r"|rejected|messages|instructions?|inputs?|outputs?|labels?|input_ids|role"
    r"|conversations?|questions?|answers?|content|sentence\w*|responses?|attention_mask|source"
    r"|target|query|image\w*|id)'$"
)
ROWS = re.compile(
    r"\b(?:ex(?:ample)?s?|rows?|samples?|items?|records?|batch|data\w*|lines?|obj|entry|entries|features?|d|x)\[[\"']"
    r"|(?:dataset\w*|datasets|data)\[.{1,60}\]\[|json\.loads|read_(?:csv|json|parquet)|DataFrame|\bdf\["
)
PLAIN_VALUE = re.compile(
    r"'(?:int|float|str|list|dict|NoneType|bool)' object|(?:must be|expected) (?:a )?str(?:ing)?\b"
)
FILE_TYPES = frozenset({"FileNotFoundError", "NotADirectoryError", "IsADirectoryError", "FileExistsError"})
BROKEN_LINKS = frozenset({"BrokenPipeError", "ConnectionResetError", "ConnectionAbortedError", "EOFError"})

OPTIMIZER = re.compile(r"torch/optim/|/optimizer|adam|zero/stage|bitsandbytes/optim", re.IGNORECASE)
STATE_FILES = re.compile(
    r"trainer_state|load_from_json|from_json_file|_dict_from_json|load_state_dict|_load_checkpoint|_load_rng|"
    r"_load_optimizer|tokenization_utils|from_pretrained|resume|checkpoint",
    re.IGNORECASE,
)
SETTINGS = re.compile(r"parse_json|parse_yaml|hf_argparser|deepspeed.{0,40}config|read_config|load_config|config\.py")
HUB = re.compile(r"huggingface_hub/|requests/|httpx|urllib3/|urllib/request|aiohttp|modelscope|wandb/sdk.{0,40}api")
PROCESSES = re.compile(r"multiprocess|concurrent/futures|torch/multiprocessing|dataloader|popen_|spawn")
COLLECTIVES = re.compile(r"torch/distributed|rendezvous|c10d|deepspeed/comm|accelerate/state")
DATA = re.compile(
    r"/datasets/|data_?collator|tokeniz|/data(?:set"
    r"|sets|_utils|loader)?/|dataset\w*\.py|data\w*\.py|_utils/(?:fetch|collate)"
    r"|\b(?:__getitem__|collate\w*|preprocess\w*|tokeni[sz]e\w*|apply_chat_template|load_data\w*"
    r"|read_\w+|parse_(?!args)\w+"
    r"|format\w*|encode\w*|prepare_data\w*|to_features|load_\w*jsonl?\w*|\w*example\w*|\w*sample\w*|\w*row\w*)$",
    re.IGNORECASE,
)
INSTALLED = re.compile(r"/(?:site|dist)-packages/")
ARGUMENT_FILE = re.compile(r"/\w*(?:config|args|arguments|argparse|argparser)\w*\.py$")
VALIDATES = re.compile(r"^_*(?:validate|check|verify|assert|sanity)|__post_init__$")
REFUSALS = frozenset({"ValueError", "AssertionError", "TypeError", "NotImplementedError"})
CHECKS = re.compile(
    r"__post_init__$|__init__$|validat|check|verify|_parse|parse_args|prepare|from_config|setup|configure|assert_|"
    r"_sanity|_args$|get_scheduler|create_optimizer|_set_|__setattr__|initialize|inject_adapter|get_peft|build|select"
)
SETTING_WORDS = re.compile(
    r"\b(?:must be|should be|has to be|have to be|must (?:not )?(?:set|provide|specify|have)"
    r"|need to (?:set|specify|provide|pass)"
    r"|is not supported|are not supported|not supported"
    r"|unsupported (?!operand)|does not support|doesn't support|only supports?|cannot be used|can't be used"
    r"|can not be used|can only be"
    r"|cannot be (?:both|combined|set)|incompatible|not compatible|mutually exclusive|not both"
    r"|at most one|either .{1,80} or"
    r"|[Pp]lease (?:set|specify|provide|pass|use|correct|choose|select|make sure|check|make)"
    r"|[Ii]nvalid (?:\w+ ){0,3}(?:choice|value|option"
    r"|argument|parameter|config\w*|rate|beta|epsilon"
    r"|momentum|weight_decay|dtype|device)|not a valid|is not valid|is invalid"
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
    r"|strategy|[Yy]ou (?:cannot|can't|can not)|arguments? (?:is|are) not used|HfArgumentParser"
    r"|trust_remote_code|load_best_model_at_end|--[a-z]\w+|environment variable)",
)
FOREIGN_KEYWORD = re.compile(
    r"(?:\w*(?:Arguments|Config|Trainer|Args|Configuration|Optimizer|Loader)"
    r"|AdamW|from_pretrained|Accelerator|LLM|load_dataset|main|train)"
    r"(?:\.__init__|\.__new__|\.from_pretrained)?\(\) (?:got an unexpected keyword|missing \d+ required)"
)
STRONG_WORDS = re.compile(
    r"\b(?:must be|must not|should be|has to be"
    r"|(?:[Pp]lease|need to|must) (?:set|specify|provide|pass|choose)|only supports?|not supported"
    r"|unsupported (?!operand)|cannot be used|incompatible|mutually exclusive"
    r"|invalid (?:choice|value|option|argument)|unknown (?:option|argument|setting))"
)
"""Words about settings that are plain wherever they are raised."""

TENSORS = re.compile(r"\b(?:mat\d|tensors?|dtype|shapes?|stride|dimensions?|size of|scalar type|sizes of)\b")
ENVIRONMENT_NAME = re.compile(r"^'[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+'$")
WEIGHT_NAME = re.compile(r"lora_|\.(?:weight|bias)['\"]?$")
LOADS = re.compile(r"load|state_dict|restore|resume", re.IGNORECASE)
LOST_LINK = re.compile(r"Broken pipe|Connection (?:reset|refused|closed|aborted)")
