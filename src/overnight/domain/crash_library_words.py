"""What training libraries say of data, checkpoints, settings, packages and the Hub: the words of Python's exceptions.

Tried in order on ``Type: message`` of an exception that no saying of device or machine explains.
"""

from __future__ import annotations

import re

from overnight.domain.attempt import FailureKind
from overnight.domain.crash_sayings import Saying

K = FailureKind


def _says(kind: FailureKind, *patterns: str, is_echo: bool = False) -> Saying:
    return Saying(kind, re.compile("|".join(patterns)), is_echo)


LIBRARY_WORDS: tuple[Saying, ...] = (
    _says(
        K.NETWORK_HUB,
        r"[Cc]ould not resolve host|unable to access 'http|unable to resolve host",
        r"GatedRepoError|RepositoryNotFoundError|RevisionNotFoundError|LocalEntryNotFoundError|HfHubHTTPError",
        r"OfflineModeIsEnabled|DatasetNotFoundError|LocalTokenNotFoundError|RemoteEntryNotFoundError"
        r"|BadRequestError: ",
        r"gated repo|Hugging ?Face Hub|on the Hub\b"
        r"|HF_HUB_OFFLINE|HF_DATASETS_OFFLINE|TRANSFORMERS_OFFLINE|offline mode",
        r"(?:couldn't|Couldn't|could not|Could not|cannot"
        r"|Cannot|Failed to) (?:connect|reach|find|resolve|download)\b.{0,200}"
        r"(?:huggingface\.co|https?://|on the Hub|modelscope|internet)",
        r"is not a valid model identifier|No API key configured"
        r"|api_key not configured|wandb login|Invalid (?:API key|user token|token)",
        r"HTTPS?ConnectionPool|NameResolutionError|Name or service not known|Temporary failure in name resolution",
        r"Failed to (?:resolve|establish a new connection)"
        r"|getaddrinfo failed|\[SSL\b|SSLError|SSLCertVerificationError|CERTIFICATE_VERIFY",
        r"\b(?:401|403|404|429|500|502|503|504) (?:Client|Server) Error|[Tt]oo [Mm]any [Rr]equests"
        r"|Network is unreachable|No route to host",
        r"(?:Client|Server) error '\d{3}|HTTP Error \d{3}|HTTPError|status code:? ?(?:4\d\d|5\d\d)"
        r"|IncompleteRead|Connection broken",
        r"Read timed out|ReadTimeout|ConnectTimeout|MaxRetryError|NewConnectionError|ProxyError"
        r"|ChunkedEncodingError|RemoteDisconnected",
        r"CommError|AuthenticationError|Consistency check failed"
        r"|CAS (?:service|Client) [Ee]rror|EndpointConnectionError|NoCredentialsError",
        r"requests\.exceptions\.|httpx2?\.|urllib3\.exceptions"
        r"|urllib\.error\.URLError|aiohttp\.client|huggingface_hub\.(?:errors|utils)|socket\.gaierror",
        r"botocore\.exceptions|google\.api_core\.exceptions|UnauthorizedError|You (?:need to be|are not) logged in",
        r"GitCommandError|git(?:-lfs)? .{0,40}(?:clone|fetch)|ModelScope|Couldn't reach",
    ),
    _says(
        K.CHECKPOINT_MISMATCH,
        r"restore (?:the )?(?:optimizer|training|scheduler|lr).{0,80}checkpoint|checkpoint contains only",
        r"size mismatch for|Error\(s\) in loading state_dict"
        r"|[Mm]issing key\(s\) in state_dict|[Uu]nexpected key\(s\) in state_dict",
        r"parameter group that doesn't match|different number of parameter groups"
        r"|loaded state dict has|has different parameter_names",
        r"Trying to set a tensor of shape|ignore_mismatched_sizes"
        r"|copying a param with shape|shape .{0,60} in (?:the )?checkpoint",
        r"checkpoint .{0,80}(?:world size|DP world|data parallel"
        r"|tensor parallel|pipeline parallel|different"
        r"|mismatch|incompatib|does not match|doesn't match)",
        r"(?:world size|mp_world_size|tp_size|zero stage).{0,80}checkpoint"
        r"|ZeRO .{0,60}(?:checkpoint|state).{0,60}(?:different|mismatch|support)",
        r"(?:[Bb]ase|adapter|LoRA|lora)[ _-]?(?:model|weights?|rank|config)?.{0,80}(?:does not match"
        r"|doesn't match|mismatch|was trained (?:on|with)|not compatible with)",
        r"Layer count mismatch|tree structures? .{0,40}(?:match"
        r"|mismatch)|[Rr]estore.{0,60}(?:shape|structure"
        r"|mismatch)|state dict .{0,60}(?:mismatch|does not match)",
        r"[Mm]ismatch(?:ed)? .{0,60}(?:checkpoint|state_dict"
        r"|pretrained|weights)|Missing keys? .{0,80}checkpoint"
        r"|KeyError: .{0,60}(?:optimizer_states|lora_[AB])",
    ),
    _says(
        K.CHECKPOINT_CORRUPT,
        r"magic (?:number )?(?:is )?(?:invalid|mismatch|wrong)|: file truncated",
        r"Unsupported operand|legacy \.tar format",
        r"[Ee]rror while deserializing(?: header)?|HeaderTooLarge"
        r"|HeaderTooSmall|InvalidHeader|MetadataIncompleteBuffer|InvalidOffset",
        r"PytorchStreamReader failed|failed finding central directory"
        r"|invalid header or archive is corrupted|central directory",
        r"pickle data was truncated|invalid load key|unpickling stack underflow|invalid magic number"
        r"|Invalid magic number|corrupt file",
        r"file might be corrupted|(?:checkpoint|weights|model) (?:file )?.{0,80}(?:is |are |seems "
        r"|appears |be )?(?:corrupt|damaged|truncated|incomplete)",
        r"(?:corrupt\w*|damaged|truncated|incomplete) .{0,30}(?:checkpoint|weights|model|shard|safetensors|archive)",
        r"unexpected EOF, expected|storage has wrong (?:byte )?size"
        r"|BadZipFile|File is not a zip file|not a (?:gzip|zip) file|Bad CRC|Bad magic number",
        r"Unable to load weights from|config file at .{0,300} is not a valid JSON"
        r"|truncated file|DataLossError|checksum (?:mismatch|does not match|failed)",
        r"(?:hash|sha256|digest) (?:mismatch|does not match)"
        r"|Unable to (?:synchronously )?open file \((?:truncated"
        r"|file signature|bad)|EOFError: Ran out of input",
        r"Deserialization (?:failed|error)|invalid JSON in header"
        r"|tensor .{0,60}(?:out of bounds|beyond the end) of file",
        r"SafetensorError: .{0,40}(?:header|incomplete"
        r"|invalid|EOF)|failed to (?:read|load) (?:the )?checkpoint.{0,80}(?:EOF|corrupt|trunc)",
        r"PytorchStreamReader|file in archive is not in a subdirectory",
    ),
    _says(
        K.MULTIPROCESSING,
        r"Cannot re-initialize CUDA in forked subprocess"
        r"|[Cc]an't pickle|[Cc]annot pickle|[Cc]an't get (?:local )?(?:object"
        r"|attribute) .{0,120}(?:on <module|<locals>)",
        r"DataLoader timed out|DataLoader worker \(pid\(?s?\)? [\d, ]+\) exited unexpectedly"
        r"|context has already been set",
        r"made to start a new process before the"
        r"|daemonic processes are not allowed|AF_UNIX path too long",
        r"can't start new thread|[Ff]ork(?:ing)?: .{0,40}(?:Resource"
        r"|retry)|BrokenProcessPool|process pool (?:was|is) (?:terminated|not usable)",
        r"torch_shm_manager|\[Errno 11\] Resource temporarily unavailable"
        r"|pthread_create failed|start method|ForkingPickler",
        r"(?:no|not) .{0,20}(?:serializ|picklabl)\w+|Could not serialize|unpicklable",
    ),
    _says(
        K.DEPENDENCY,
        r"was removed in (?:the )?(?:NumPy|numpy|v?\d)|Numpy is not available",
        r"Couldn't instantiate the backend tokenizer|convert a slow tokenizer to a fast one",
        r"ModuleNotFoundError|ImportError|No module named|cannot import name|DLL load failed|undefined symbol",
        r"cannot open shared object file|version `(?:GLIBC|GLIBCXX|CXXABI)\w*[\d.]+' not found|failed to map segment",
        r"(?:requires|require|needs?) (?:the )?(?:following )?(?:[`'\"\w.-]+ )?(?:packages?"
        r"|librar(?:y|ies)|`?pip|version)|is required (?:for|but|to)"
        r".{0,80}(?:install|version|found)|(?:is|are) (?:not"
        r"|n't) installed|[Pp]lease (?:pip )?(?:install|upgrade|update)\b|pip install",
        r"PackageNotFoundError|DistributionNotFound"
        r"|VersionConflict|_ARRAY_API not found|numpy\.(?:dtype"
        r"|ndarray) size changed|compiled using NumPy 1",
        r"Descriptors cannot be created directly|module '[\w.]+' has no attribute|partially initialized module",
        r"Transformers does not recognize this architecture"
        r"|Tokenizer class \w+ does not exist|Unrecognised model for"
        r"|ModelWrapper|PyPreTokenizerTypeWrapper",
        r"not found in the system path|CUDA Setup failed"
        r"|compiled without GPU support|Error building extension"
        r"|Unable to JIT load|CUDA_HOME|nvcc|ninja is required",
        r"ptxas|[Gg]cc .{0,40}(?:not found|failed)|Failed to find C compiler"
        r"|FlashAttention(?:-?2)? (?:only supports|has been toggled|is not)",
        r"(?:flash_attn|flash-attn|xformers|bitsandbytes"
        r"|deepspeed|apex|triton|vllm) .{0,60}(?:not (?:found|available|installed)"
        r"|version|unavailable)",
        r"Numba needs|Weights only load failed|upgrade (?:torch"
        r"|your|to)|[Vv]ersion (?:mismatch|conflict|incompatib)|incompatible (?:with )?(?:version"
        r"|torch|numpy|cuda)",
        r"(?:'type' object|argument of type|unexpected keyword).{0,60}\b_pb2"
        r"|got an unexpected keyword argument '(?:proxies|dispatch_batches)'",
    ),
    _says(
        K.FILE_NOT_FOUND,
        r"No valid checkpoint|Unrecognized model in",
        r"FileNotFoundError|\[Errno 2\]|No such file or directory"
        r"|NotADirectoryError|IsADirectoryError|os error 2\b|NoSuchFile",
        r"does not appear to have a file named|Can't find a valid checkpoint"
        r"|Incorrect path_or_model_id|Can't find (?:file|a|the|'[\w./-]+')",
        r"(?:[Ff]ile|[Dd]irectory|[Ff]older|[Pp]ath"
        r"|[Cc]heckpoint|[Dd]ata(?:set)?(?: file)?|[Mm]odel)\b.{0,200}(?:does not exist"
        r"|doesn't exist|do not exist|not found|is missing|cannot be found|could not be found)",
        r"no file named|Unable to (?:find|locate) .{0,200}"
        r"|HFValidationError|Repo id must|No checkpoint (?:found"
        r"|exists)|[Nn]o (?:data )?files? (?:found|matching|match)",
        r"Couldn't find (?:any data file|a dataset script"
        r"|file|.{0,60} at )|Not found: vocabulary|not a (?:file or )?(?:folder"
        r"|directory|file)\b|NOT_FOUND: ",
    ),
    _says(
        K.PERMISSION,
        r"PermissionError|Permission denied|\[Errno (?:1"
        r"|13|30)\]|Operation not permitted|os error (?:13"
        r"|30|1)\b|Read-only file system|EACCES|not writable|AccessDenied|File .{1,300} cannot be opened",
    ),
    _says(
        K.DATA_FORMAT,
        r"\bParseError\b|tarfile\.ReadError",
        r"UnicodeDecodeError|JSONDecodeError|JSON parse error"
        r"|ArrowInvalid|ParserError|Error tokenizing data|UnidentifiedImageError|cannot identify image",
        r"CastError|DatasetGenerationCastError|all the data files must have the same columns"
        r"|[Cc]ouldn't cast|ArrowTypeError|ArrowNotImplementedError|Trailing data",
        r"TemplateError|TemplateSyntaxError|UndefinedError"
        r"|chat[ _]template|[Cc]onversation roles must alternate|roles must alternate",
        r"TextEncodeInput must be|TextInputSequence|text input must be of type|Unable to create tensor"
        r"|expected sequence of length \d+ at dim",
        r"[Cc]olumns? .{0,120}(?:not in|not found|missing"
        r"|does not exist|don't exist|do not exist|to be in"
        r"|must be)|[Nn]o columns? .{0,40}match|(?:not|n't) (?:in|found in) (?:the )?(?:dataset"
        r"|columns|index)",
        r"Target (?:size .{0,40}|-?\d+ )is out of bounds"
        r"|index out of range in self|num_samples should be a positive"
        r"|(?:[Dd]ataset|[Dd]ata ?[Ll]oader|split) .{0,40}(?:is empty"
        r"|has no|contains no)|empty (?:data ?set|file|sequence)",
        r"could not convert string to float|invalid literal for int\(\)"
        r"|image file is truncated|broken data stream"
        r"|InvalidImage|SchemaInferenceError|Failed to (?:parse|decode)",
        r"(?:malformed|bad|invalid|broken|unparsable) (?:json"
        r"|JSON|line|row|record|sample|example|utf-?8|UTF-?8|image|label)|Expecting (?:value|property"
        r"|',')|Extra data: line|Unterminated string|Invalid control character|(?:[Ll]ine|[Rr]ow"
        r"|[Ss]ample|[Ee]xample|[Rr]ecord) \d+.{0,60}(?:invalid"
        r"|malformed|missing|must|has no|expected|bad)",
        r"Invalid (?:chat )?format|conversation(?:s|al)? .{0,60}(?:must|format|invalid|empty)"
        r"|unsupported format|(?:prompt|completion|messages"
        r"|labels?|text|input_ids|instruction)['\"` ]{1,2}.{0,40}(?:field"
        r"|column|key).{0,40}(?:missing|required|not)",
    ),
)


def library_meaning(text: str) -> Saying | None:
    """Return the first of the libraries' words that an exception contains."""
    text = text[:20_000]
    for saying in LIBRARY_WORDS:
        if saying.pattern.search(text):
            return saying
    return None
