"""RetrConfig: the architecture of a RETR sequential recommender, and nothing else."""

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig

from .hub import AUTO_MAP, CUSTOM_PIPELINES, copy_code, installed

ATTENTIONS = ("full", "low_rank", "local_global", "log_sparse", "strided", "denoising", "modulating")
TIMED_ATTENTIONS = ("modulating",)
LOCAL_TYPES = ("window", "initial", "adaptive", "conv")
SPARSE_PATTERNS = ("strided", "fixed")
MODULATING_DELTAS = ("previous", "next")
ITEM_FEATURES = ("id", "text", "text+id")
ROUTERS = ("pathway", "random", "none")
DIRECTIONS = ("causal", "bidirectional")
ROUTER_CONTEXTS = ("causal", "global")
GUMBELS = ("adaptive", "fixed")
OMEGA_ACTIVATIONS = ("softplus", "relu")
OBJECTIVES = ("softmax", "sampled_softmax", "bpr", "bce", "gbce", "sce", "top1", "top1_max", "bpr_max")
SHARED_NEGATIVES = ("sampled_softmax", "top1", "top1_max", "bpr_max")
NEGATIVE_SAMPLINGS = ("uniform", "popularity")
SCORES = ("cosine", "dot")
POSITIONS_FROM = ("first", "last")


@strict
class RetrConfig(PreTrainedConfig):
    """Architecture of RETR (Yao et al., *Recommender Transformers with Behavior Pathways*, WWW 2024).

    The defaults are the paper's where it speaks (two blocks, four heads, width 256) and UniSRec's for the item side
    (Hou et al., KDD 2022: eight whitening experts, temperature 0.07, dropout 0.5 in the body and 0.2 in the adaptor).
    A catalogue, a path or a tensor never stands here.

    Body
        hidden_size: width d of every token.
        num_hidden_layers: blocks L.
        num_attention_heads: heads h; must divide ``hidden_size``.
        intermediate_size: inner width of the feed-forward layers.
        hidden_act: activation of the feed-forward layers, a transformers name.
        hidden_dropout, attention_dropout: probabilities after embeddings and sublayers, and on attention (None: same).
        max_position_embeddings: longest history N the model reads.
        positions_from: ``"first"`` counts positions from the oldest item, so that what was computed of the past stays
            true when an item follows; ``"last"`` from the newest one, so that the step that is asked in serving has one
            position: the authors of SASRec and S3-Rec pad on the left.
        input_norm: layer norm on item + position (RecBole's SASRec and UniSRec have it).
        direction: ``"causal"``; or ``"bidirectional"``, with ``attention="full"``, trained by cloze (BERT4Rec).
        attention: tenant of the attention slot (``attentions.ATTENTIONS``); its own settings follow.
    Attentions
        low_rank_interests: of ``"low_rank"`` (LightSANs): interests k of keys and values; None: a tenth of N.
        local_type, local_heads, local_window: of ``"local_global"`` (Locker): what the local heads see (``"window"``,
            ``"initial"``, ``"adaptive"``, ``"conv"``), how many there are (None: all but one), and how far ``"window"``
            and ``"conv"`` reach (0: the item itself).
        sparse_pattern, sparse_stride, sparse_summary: of ``"strided"``: ``"strided"`` or ``"fixed"``, the stride s
            (None: ⌈√N⌉) and the summary columns c of ``"fixed"``.
        log_sparse_window: of ``"log_sparse"``: distance L_sub that the local variant covers; None is the plain one.
        denoising_init_keep, denoising_l0_weight, denoising_jacobian_weight: of ``"denoising"`` (Rec-denoiser): keep
            probability of every link at the start, weights β of the mask's size and γ of the block's Jacobian.
        modulating_marks, modulating_delta, modulating_weight, modulating_time_scale: of ``"modulating"`` (SMRec):
            event types E, the gap an intensity reads (``"previous"``, or ``"next"`` as the authors), the weight of the
            point-process likelihood, and the unit of time in seconds.
    Items
        item_features: what an item is read through: ``"id"``, ``"text"`` or ``"text+id"``.
        vocab_size: rows of the id table, number of items + 1 (row 0 is padding). Unused by ``"text"``.
        text_size: width of the text vectors a catalogue brings.
        text_whitening: ridge of the ZCA whitening that a catalogue's vectors go through before the model reads them, by
            the catalogue's own statistics (``text_whitening.text_table``); None reads them as they are.
        text_scale: length that the adaptor gives every text vector first (``item_encoder`` tells why); None: its own.
        num_experts, adaptor_dropout: mixture-of-experts adaptor from text vectors to ``hidden_size``.
        text_encoder: name of the encoder that made the text vectors (stamped by training; a catalogue read by
            another encoder is refused).
        catalog_hash: hash of the catalogue the id table belongs to (stamped by training; None for ``"text"``).
    Router
        router: ``"pathway"`` learned, ``"random"`` the paper's ablation, ``"none"`` plain attention (SASRec).
        router_context: ``"causal"`` running mean, or ``"global"`` as printed, legal only with ``every_step=False`` or a
            bidirectional body.
        hierarchical_route: a token dropped in one block stays dropped in the next (equation 6).
        gumbel, gumbel_temperature: ``"adaptive"`` relaxation (equation 5) or ``"fixed"`` temperature (equation 4).
        omega_activation: of the adaptive weight ω: ``"softplus"``, or ``"relu"`` as printed, which can die.
        router_init_keep: keep probability of a token at initialisation; the random router's share (0: nothing asks).
        router_hidden_size: inner width of the router's three MLPs; None means ``hidden_size // 4``.
        router_sampling: sample routes in evaluation too (the default is the deterministic threshold 0.5).
    Objective of the recommendation head
        objective: ``"softmax"`` over the whole catalogue; ``"sampled_softmax"`` over negatives shared by a batch, with
            logQ correction; ``"bpr"`` (RETR) or ``"bce"`` (SASRec) with one negative a target; ``"gbce"`` (gSASRec)
            with many; ``"sce"`` over the hardest items of random buckets; ``"top1"``, ``"top1_max"`` and ``"bpr_max"``
            (GRU4Rec) over negatives shared by a batch.
        num_negatives: negatives K, of all but ``"softmax"``, ``"bpr"``, ``"bce"`` and ``"sce"``.
        gbce_calibration: t of ``"gbce"``: 0 is plain BCE, 1 undoes all overconfidence that sampling brings.
        negative_sampling, popularity_power: of shared negatives: ``"uniform"``, ``"popularity"``: counts to this power.
        bpr_max_regularisation, bpr_max_elu: of ``"bpr_max"``: the weight λ of the negatives' squared scores, and the
            parameter of the ELU that scores go through first (0: none).
        sce_bucket_size: items b_y a bucket of ``"sce"``.
        score: ``"cosine"`` divided by ``temperature``, or plain ``"dot"`` product.
        item_bias, output_table: a learned number an item in its score, and a second table of ids that items are scored
            with, apart from the one they are read with; only with ``item_features="id"`` and ``"dot"``.
        text_path: a residual from raw text vectors to the score (``history_terms``); it starts at
            ``text_path_weight`` for the last item, times ``text_path_decay`` for each one before, and the body's own
            score at ``score_gain``: with 0 the untrained model is the text-similarity recommender.
        repeat_term: what an item of the history adds to its own score, learned, from ``repeat_term_start`` on.
        transition_memory: neighbours an item has in the counts of what stands near what (``transition_memory``), 0 for
            none; ``transition_memory_weight`` is what its score counts at first. Only where an id table says which
            catalogue is meant: a model of texts alone, as in pre-training, is built without.
        every_step: every item after the first is a target (one pass); False reads the last position alone.
        cloze_share, cloze_last_share: of a bidirectional body: the share ρ of a history's items that are hidden, and of
            histories that hide their last one alone.
        output_transform: a layer and its layer norm between state and score (BERT4Rec).
    Objectives of the pre-training head (UniSRec)
        sequence_loss_weight: weight λ of the sequence-sequence term (0 leaves it out).
        own_negatives: with ``every_step``: a history's other items are negatives of its steps (``own_items``).
        unisrec_compat: an item's own copies in the batch count as exp(0), as the authors' do; not with ``every_step``.

    Raises:
        huggingface_hub StrictDataclassError: a field of the wrong type, or fields that contradict each other.
    """

    model_type = "retr"
    # Outputs that Trainer does not gather; states and attention weights it does, for whom asks for them.
    keys_to_ignore_at_inference = ["last_hidden_state", "item_embeddings", "routes", "keep_probabilities", "omegas",
                                   "data_loss", "auxiliary_loss", "position_ids"]  # fmt: skip
    # Of FSDP2. Not the id table, as transformers has it: heads read it past its own forward.
    base_model_fsdp_plan = {"layers.*": "free_full_weight"}

    hidden_size: int = 256
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int = 256
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.5
    attention_dropout: float | int | None = 0.5
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    max_position_embeddings: int = 50
    positions_from: str = "first"
    input_norm: bool = True
    direction: str = "causal"
    attention: str = "full"

    low_rank_interests: int | None = None
    local_type: str = "window"
    local_heads: int | None = None
    local_window: int = 1
    sparse_pattern: str = "strided"
    sparse_stride: int | None = None
    sparse_summary: int = 1
    log_sparse_window: int | None = None
    denoising_init_keep: float = 0.88
    denoising_l0_weight: float | int = 1e-2
    denoising_jacobian_weight: float | int = 1e-3
    modulating_marks: int = 1
    modulating_delta: str = "previous"
    modulating_weight: float | int = 0.0
    modulating_time_scale: float | int = 86400

    item_features: str = "text"
    vocab_size: int = 1
    text_size: int = 384
    text_whitening: float | int | None = None
    text_scale: float | int | None = 20.0
    num_experts: int = 8
    adaptor_dropout: float | int = 0.2
    text_encoder: str | None = None
    catalog_hash: str | None = None

    router: str = "pathway"
    router_context: str = "causal"
    hierarchical_route: bool = True
    gumbel: str = "adaptive"
    gumbel_temperature: float | int = 1.0
    omega_activation: str = "softplus"
    router_init_keep: float = 0.88
    router_hidden_size: int | None = None
    router_sampling: bool = False

    objective: str = "softmax"
    num_negatives: int = 256
    gbce_calibration: float | int = 0.75
    negative_sampling: str = "uniform"
    popularity_power: float | int = 1.0
    bpr_max_regularisation: float | int = 1.0
    bpr_max_elu: float | int = 0.5
    sce_bucket_size: int = 256
    score: str = "cosine"
    temperature: float | int = 0.07
    item_bias: bool = False
    output_table: bool = False
    text_path: bool = False
    text_path_weight: float | int = 0.5
    text_path_decay: float | int = 0.5
    score_gain: float | int = 0.0
    repeat_term: bool = False
    repeat_term_start: float | int = -0.3
    transition_memory: int = 0
    transition_memory_weight: float | int = 1.5
    every_step: bool = True
    cloze_share: float | int = 0.2
    cloze_last_share: float | int = 1 / 11
    output_transform: bool = False

    sequence_loss_weight: float | int = 1e-3
    own_negatives: bool = False
    unisrec_compat: bool = False

    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    # The item table scores and reads with the same vectors by construction, not by sharing two parameters.
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        if installed():  # transformers registers our pipeline; a copy named here would ask for trust_remote_code
            kwargs.pop("custom_pipelines", None)
        if self.low_rank_interests is None:
            self.low_rank_interests = -(-self.max_position_embeddings // 10)
        if self.attention_dropout is None:
            self.attention_dropout = self.hidden_dropout
        super().__post_init__(**kwargs)

    def get_text_config(self, decoder=None, encoder=None):
        """This config: transformers would take our ``text_encoder``, a name, for the config of a part."""
        return self

    def save_pretrained(self, save_directory, push_to_hub=False, **kwargs):
        """Writes config.json with the classes that belong to it, and their code (``hub``)."""
        self.auto_map, self.custom_pipelines = dict(AUTO_MAP), dict(CUSTOM_PIPELINES)
        copy_code(save_directory)
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @property
    def uses_ids(self) -> bool:
        """Whether items are read through an id table."""
        return "id" in self.item_features.split("+")

    @property
    def uses_text(self) -> bool:
        """Whether items are read through text vectors."""
        return "text" in self.item_features.split("+")

    @property
    def reads_times(self) -> bool:
        """Whether the attention reads when each event was: batches must then bring ``times``."""
        return self.attention in TIMED_ATTENTIONS

    def validate_architecture(self):
        """All contradictions between fields, told in one ValueError (wrapped by the strict dataclass)."""
        problems = [
            f"{name}={value!r}: expected one of {', '.join(map(repr, allowed))}"
            for name, value, allowed in (
                ("direction", self.direction, DIRECTIONS),
                ("positions_from", self.positions_from, POSITIONS_FROM),
                ("attention", self.attention, ATTENTIONS),
                ("local_type", self.local_type, LOCAL_TYPES),
                ("sparse_pattern", self.sparse_pattern, SPARSE_PATTERNS),
                ("modulating_delta", self.modulating_delta, MODULATING_DELTAS),
                ("item_features", self.item_features, ITEM_FEATURES),
                ("router", self.router, ROUTERS),
                ("router_context", self.router_context, ROUTER_CONTEXTS),
                ("gumbel", self.gumbel, GUMBELS),
                ("omega_activation", self.omega_activation, OMEGA_ACTIVATIONS),
                ("objective", self.objective, OBJECTIVES),
                ("negative_sampling", self.negative_sampling, NEGATIVE_SAMPLINGS),
                ("score", self.score, SCORES),
            )
            if value not in allowed
        ]
        if self.hidden_act not in ACT2FN:
            problems.append(f"hidden_act={self.hidden_act!r}: expected the name of a transformers activation")
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            problems.append(
                f"hidden_size={self.hidden_size} must be a multiple of num_attention_heads={self.num_attention_heads}"
            )
        sees_targets = self.every_step and self.direction == "causal"
        if self.router == "pathway" and self.router_context == "global" and sees_targets:
            problems.append(
                'router_context="global" reads the whole history, future included, so a loss at every step would see '
                'its own targets: set every_step=False (last position only) or router_context="causal"'
            )
        if self.direction == "bidirectional" and (
            self.attention != "full"
            or self.objective in ("bpr", "bce")
            or self.text_path
            or self.repeat_term
            or self.transition_memory
        ):
            problems.append(
                'direction="bidirectional" is for attention="full" and objectives without negatives of the collator '
                f"(came {self.attention!r}, {self.objective!r}), and its score reads no history: set text_path=False, "
                "repeat_term=False, transition_memory=0"
            )
        if self.unisrec_compat and self.every_step:
            problems.append("unisrec_compat=True is defined for one target a row: set every_step=False")
        if self.negative_sampling == "popularity" and self.objective not in SHARED_NEGATIVES:
            problems.append(
                f'negative_sampling="popularity" has no meaning for objective={self.objective!r}: '
                f'set negative_sampling="uniform", or an objective of {", ".join(SHARED_NEGATIVES)}'
            )
        if (self.item_bias or self.output_table) and (self.item_features != "id" or self.score != "dot"):
            problems.append(
                'item_bias=True and output_table=True belong to item_features="id" and score="dot", came '
                f"{self.item_features!r} and {self.score!r}"
            )
        if self.text_path and not self.uses_text:
            problems.append(f"text_path=True reads text vectors: item_features={self.item_features!r} has none")
        for term in ("repeat_term", "transition_memory"):
            if getattr(self, term) and self.objective != "softmax":
                problems.append(
                    f"{term}={getattr(self, term)} is learned by the full softmax: objective={self.objective!r} does "
                    "not see every item"
                )
        if self.text_whitening is not None and self.text_whitening < 0:
            problems.append(f"text_whitening={self.text_whitening}: expected a ridge of 0 or more, or None")
        if not 0 <= self.gbce_calibration <= 1:
            problems.append(f"gbce_calibration={self.gbce_calibration}: expected a number in [0, 1]")
        for name in ("hidden_dropout", "attention_dropout", "adaptor_dropout"):
            if not 0 <= getattr(self, name) < 1:
                problems.append(f"{name}={getattr(self, name)}: expected a probability in [0, 1)")
        if not 0 < self.cloze_share <= 1 or not 0 <= self.cloze_last_share <= 1:
            came = f"{self.cloze_share}, {self.cloze_last_share}"
            problems.append(f"cloze_share, cloze_last_share={came}: expected shares in (0, 1] and [0, 1]")
        for name, ends in (("router_init_keep", self.router == "random"), ("denoising_init_keep", False)):
            if not 0 < getattr(self, name) < 1 and not (ends and getattr(self, name) in (0, 1)):
                problems.append(f"{name}={getattr(self, name)}: expected a probability in (0, 1)")
        for name in ("transition_memory", "denoising_l0_weight", "denoising_jacobian_weight", "modulating_weight",
                     "popularity_power", "bpr_max_regularisation", "bpr_max_elu"):  # fmt: skip
            if getattr(self, name) < 0:
                problems.append(f"{name}={getattr(self, name)}: expected 0 or more")
        if self.attention == "local_global":
            # Heads of a convolution have no query: without a global head nothing would ask.
            most = self.num_attention_heads - (self.local_type == "conv")
            local_heads = self.num_attention_heads - 1 if self.local_heads is None else self.local_heads
            if not 1 <= local_heads <= most:
                problems.append(
                    f"local_heads={local_heads} of num_attention_heads={self.num_attention_heads}: expected 1 to "
                    f"{most} with local_type={self.local_type!r}"
                )
        if self.sparse_stride is not None and self.sparse_summary > self.sparse_stride:
            problems.append(f"sparse_summary={self.sparse_summary}: expected at most the stride {self.sparse_stride}")
        if self.local_window < 0:
            problems.append(f"local_window={self.local_window}: expected 0 or more")
        for name in ("temperature", "gumbel_temperature", "modulating_time_scale", "text_scale"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                problems.append(f"{name}={getattr(self, name)}: expected a positive number")
        for name in ("hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings",
                     "text_size", "num_experts", "vocab_size", "num_negatives", "sce_bucket_size", "low_rank_interests",
                     "sparse_stride", "sparse_summary", "log_sparse_window", "modulating_marks"):  # fmt: skip
            if getattr(self, name) is not None and getattr(self, name) < 1:
                problems.append(f"{name}={getattr(self, name)}: expected at least 1")
        if problems:
            raise ValueError("; ".join(problems))
        super().validate_architecture()
