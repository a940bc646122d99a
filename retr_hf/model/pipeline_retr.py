"""``pipeline("sequential-recommendation", model=FOLDER)``: a Recommender as transformers' users call it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from transformers import AutoModelForSequenceClassification
from transformers.pipelines import PIPELINE_REGISTRY, Pipeline

from .history_lists import is_single, require_list
from .hub import TASK, installed
from .recommendation import Recommendation
from .recommender import Recommender

EXPECTED = 'expected {"history": [item ids, oldest first]}'
CALL_ARGUMENTS = ("top_k", "exclude_seen", "candidates", "pathway", "why")


class NoDefaultModel(dict):
    """Where transformers looks up the model of a task asked for without one: no model fits every shop."""

    def __contains__(self, key) -> bool:
        return True

    def __getitem__(self, key):
        raise ValueError(
            f'pipeline("{TASK}") needs model=, a model folder or a repository of the Hub: there is no default'
        )


class SequentialRecommendationPipeline(Pipeline):
    """Histories in, next items and the pathway behind them out.

    ``pipe({"history": ["id", ...]}, top_k=10)`` gives ``{"items": [{"item_id", "title", "score"}, ...], "pathway":
    [{"item_id", "title", "kept", "keep_probabilities"}, ...]}``, items best first, behaviours oldest first, ``kept``
    and α a value a block. A list of such dicts, a generator or a dataset gives as many answers; ``batch_size``
    histories go through the model at once.

    Args (of the pipeline, or of a call):
        top_k, exclude_seen, pathway, candidates: as ``Recommender.recommend``'s k and the others.
        why: True adds ``"why": [{"item_id", "title", "weight"}, ...]``, what each behaviour does for the best item
            (``Recommender.why``); empty for a history of one, or where no item is left. As many more histories go
            through the model as there are behaviours.

    Raises:
        ValueError: no model, no processor; no input, or one that is no dict with a history; what
            ``Recommender.recommend`` refuses.
    """

    _load_processor = True
    _load_tokenizer = _load_feature_extractor = _load_image_processor = _load_video_processor = False

    def __init__(self, model, processor=None, **kwargs):
        if processor is None:
            raise ValueError(
                "expected the catalogue of the model: pass processor=RetrProcessor.from_pretrained(FOLDER)"
            )
        super().__init__(model=model, processor=processor, **kwargs)
        self.recommender = Recommender(self.model, processor)
        if self.model.name_or_path and Path(self.model.name_or_path).is_dir():
            self.recommender.origin = Path(self.model.name_or_path).resolve()
        self.processor = self.recommender.processor

    def save_pretrained(self, save_directory, **kwargs):
        """Writes model, catalogue, code and card; see ``Recommender.save_pretrained``."""
        self.recommender.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(self, **kwargs):
        unknown = sorted(set(kwargs) - set(CALL_ARGUMENTS))
        if unknown:
            raise ValueError(f"{unknown[0]}: expected one of {', '.join(CALL_ARGUMENTS)}, batch_size, num_workers")
        if "top_k" in kwargs:
            kwargs["k"] = kwargs.pop("top_k")
        return {}, kwargs, {}

    def __call__(self, inputs, *args, **kwargs):
        """See the class."""
        if isinstance(inputs, (list, tuple)) and not inputs:
            raise ValueError(f"{EXPECTED}, or a list of such dicts, got an empty {type(inputs).__name__}")
        return super().__call__(inputs, *args, **kwargs)

    def preprocess(self, input_):
        """{"history": [...]} -> its history."""
        if not isinstance(input_, Mapping) or set(input_) != {"history"}:
            came = (
                f"a dict of {sorted(input_)}" if isinstance(input_, Mapping) else f"{type(input_).__name__} {input_!r}"
            )
            raise ValueError(f"{EXPECTED}, got {came}")
        if not is_single(input_["history"]):
            raise ValueError(f'{EXPECTED}, got lists in a history: pass [{{"history": [...]}}, ...]')
        require_list(input_["history"], "history", "item ids")
        return {"history": list(input_["history"])}

    def _forward(self, inputs, why=False, **arguments):
        history = inputs["history"]
        answers = self.recommender.recommend(history, **arguments)
        if is_single(history):
            return self._explained(history, answers, why)
        return [self._explained(*each, why) for each in zip(history, answers, strict=True)]

    def _explained(self, history: list, answer: Recommendation, why: bool) -> dict:
        if not why:
            return asdict(answer)
        tells = len(history) > 1 and answer.items
        reasons = self.recommender.why(history, answer.items[0].item_id) if tells else []
        return asdict(answer) | {"why": [asdict(reason) for reason in reasons]}

    def postprocess(self, answer: dict) -> dict:
        """The answer is plain dicts and lists already."""
        return answer

    def get_iterator(
        self, inputs: Iterable[dict], num_workers, batch_size, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[dict]:
        """Histories are ragged, so a batch is padded by the processor and not by a tokenizer."""
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        inputs = iter(inputs)
        while batch := [self.preprocess(each)["history"] for each in islice(inputs, batch_size)]:
            yield from map(self.postprocess, self.forward({"history": batch}, **forward_params))


if installed():
    PIPELINE_REGISTRY.supported_tasks.pop(TASK, None)  # registered already, if the module was imported anew
    PIPELINE_REGISTRY.register_pipeline(
        TASK,
        pipeline_class=SequentialRecommendationPipeline,
        pt_model=(AutoModelForSequenceClassification,),
        default=NoDefaultModel(),
        type="text",
    )
