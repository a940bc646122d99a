"""LoRA on the attention projections, by peft: little to train, little to save, and mergeable.

Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, ICLR 2022: W x + (α/r) B A x, B = 0 at the start.
"""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation

ITEMS, TEXT, WIDTH, RANK = 30, 12, 16, 2
LORA = {"r": RANK, "lora_alpha": 4, "lora_dropout": 0.0}
QUERY_AND_VALUE = ["q_proj", "v_proj"]


def build(**settings) -> RetrForSequentialRecommendation:
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 8}
    sizes |= {"text_size": TEXT, "num_experts": 3, "vocab_size": ITEMS + 1, "hidden_dropout": 0.0}
    still = {"attention_dropout": 0.0, "adaptor_dropout": 0.0, "initializer_range": 0.2}
    return RetrForSequentialRecommendation(RetrConfig(**sizes | still | settings)).eval()


def inputs(**more) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(1, ITEMS + 1, (16, 8), generator=generator)
    return {"input_ids": input_ids, "text_embeddings": torch.randn(ITEMS + 1, TEXT, generator=generator)} | more


def train(model, steps=5) -> None:
    """A few steps on the next items of the histories."""
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.05)
    labels = inputs()["input_ids"].roll(-1, 1)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(**inputs(labels=labels)).loss.backward()
        optimizer.step()
    model.eval()


def test_only_the_adapter_is_trained():
    model = build()
    names = [name for name, module in model.named_modules() if name.split(".")[-1] in QUERY_AND_VALUE]
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    adapted = get_peft_model(model, LoraConfig(**LORA, target_modules=QUERY_AND_VALUE))
    trained = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 * len(names) == 2 * 2 * 2, "A and B of two projections of two blocks"
    assert sum(weight.numel() for weight in trained.values()) == len(names) * 2 * RANK * WIDTH
    train(adapted)
    for name, weight in adapted.named_parameters():
        assert (weight.grad is not None) == (name in trained), name
    assert all(weight.grad.abs().sum() > 0 for weight in trained.values())
    unloaded = adapted.unload().state_dict()
    assert unloaded.keys() == before.keys()
    assert all(torch.equal(unloaded[name], weight) for name, weight in before.items())


def test_an_adapter_saves_and_loads_alone(tmp_path):
    adapted = get_peft_model(build(), LoraConfig(**LORA, target_modules=QUERY_AND_VALUE))
    at_the_start = adapted(**inputs()).logits
    assert torch.equal(at_the_start, build()(**inputs()).logits), "B = 0"
    train(adapted)
    wanted = adapted(**inputs()).logits
    assert not torch.allclose(wanted[:, 1:], at_the_start[:, 1:], atol=0.1)
    adapted.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 10_000 and not (tmp_path / "config.json").exists()
    again = PeftModel.from_pretrained(build(), tmp_path).eval()
    assert torch.equal(again(**inputs()).logits, wanted)
    theirs = build()
    theirs.load_adapter(tmp_path)  # transformers' own way
    assert torch.equal(theirs.eval()(**inputs()).logits, wanted)


@pytest.mark.parametrize("targets", [QUERY_AND_VALUE, "all-linear"], ids=str)
def test_a_merged_adapter_recommends_the_same(targets):
    """On every linear layer too: the adaptor's experts and the router read their layers, not the weights of them."""
    model = build()
    nn.init.normal_(model.model.item_adaptor.centers, std=0.5)
    adapted = get_peft_model(model, LoraConfig(**LORA, target_modules=targets))
    train(adapted)
    wanted = adapted(**inputs()).logits[:, 1:]
    merged = adapted.merge_and_unload()
    assert type(merged) is RetrForSequentialRecommendation
    torch.testing.assert_close(merged(**inputs()).logits[:, 1:], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("item_features", ["id", "text"])
def test_adapters_train_under_checkpointing(item_features, reentrant):
    """Though nothing before the first block is trained: what a re-entrant checkpoint stumbles over."""
    gradients = []
    for checkpointing in (False, True):
        model = build(item_features=item_features)
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        adapted = get_peft_model(model, LoraConfig(**LORA, target_modules=QUERY_AND_VALUE)).train()
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(1)
        adapted(**inputs(labels=inputs()["input_ids"].roll(-1, 1))).loss.backward()
        gradients.append({name: weight.grad for name, weight in adapted.named_parameters() if weight.requires_grad})
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
