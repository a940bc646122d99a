"""The tenants of the attention slot (contract: attention.py): a table from ``RetrConfig.attention`` to the class."""

from .attention import FullAttention, PathwayAttention
from .attention_denoising import DenoisingAttention
from .attention_local_global import LocalGlobalAttention
from .attention_low_rank import LowRankAttention
from .attention_modulating import SelfModulatingAttention
from .attention_sparse import LogSparseAttention, StridedAttention

ATTENTIONS: dict[str, type[PathwayAttention]] = {
    "full": FullAttention,
    "local_global": LocalGlobalAttention,
    "low_rank": LowRankAttention,
    "log_sparse": LogSparseAttention,
    "strided": StridedAttention,
    "denoising": DenoisingAttention,
    "modulating": SelfModulatingAttention,
}
