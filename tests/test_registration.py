"""transformers knows RETR as soon as both are imported, in either order; and importing retr_hf alone stays quick."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KNOWN = """
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
from transformers.pipelines import PIPELINE_REGISTRY
assert AutoConfig.for_model("retr").model_type == "retr"
for slot, name in ((AutoModel, "RetrModel"), (AutoModelForSequenceClassification, "RetrForSequentialRecommendation")):
    assert slot._model_mapping[type(AutoConfig.for_model("retr"))].__name__ == name
gru4rec = type(AutoConfig.for_model("gru4rec"))
name = AutoModelForSequenceClassification._model_mapping[gru4rec].__name__
assert name == "Gru4RecForSequentialRecommendation"
assert "sequential-recommendation" in PIPELINE_REGISTRY.get_supported_tasks()
"""


@pytest.mark.parametrize(
    "code",
    [
        "import retr_hf, sys; assert not {'torch', 'transformers'} & set(sys.modules)",
        "import retr_hf" + KNOWN,
        "from transformers import pipeline, AutoModel; import retr_hf" + KNOWN,
        "import retr_hf.model.body_retr" + KNOWN,
    ],
    ids=["alone", "ours first", "theirs first", "a part of ours"],
)
def test_in_a_fresh_process(code):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
