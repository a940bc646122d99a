"""The README's code: every block runs, in order, on a small model where the quickstart would leave its own; the files
that it and the page of results name are there, and their tables are the rows'."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "recipes/results/README.md")}
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
SHOP = ["My own csv", "Next month's log"]
SHOP = [re.search(rf"\*\*{wish}\.\*\*.*?```bash\n(.*?)```", README, flags=re.DOTALL).group(1) for wish in SHOP]


@pytest.fixture
def quickstart(tmp_path, monkeypatch):
    """A working folder that looks as after the quickstart: a domain, and a model of the same shape, untrained."""
    from retr_hf import Recommender, RetrConfig, RetrForSequentialRecommendation, RetrProcessor
    from retr_hf.data.synthetic import write_world
    from retr_hf.data.text_embeddings import embed_catalog
    from retr_hf.model.item_catalog import ItemCatalog

    monkeypatch.chdir(tmp_path)
    write_world(Path("data/synthetic"), source_users=10, source_items=60, target_users=40, target_items=60)
    embed_catalog("data/synthetic/camping", "hashing:32", progress=False)
    catalog = ItemCatalog.from_pretrained("data/synthetic/camping")
    config = RetrConfig(
        hidden_size=16, num_attention_heads=2, text_size=32, num_experts=2, text_encoder=catalog.text_encoder,
        max_position_embeddings=60,
    )  # fmt: skip
    Recommender(RetrForSequentialRecommendation(config), RetrProcessor(catalog)).save_pretrained(
        "runs/synthetic/camping/RETR"
    )


def test_python_blocks_run_in_order(quickstart):
    """Later blocks go on where earlier ones ended, as a reader's session does."""
    names = {}
    for number, block in enumerate(BLOCKS):
        try:
            exec(compile(block, f"README.md, block {number}", "exec"), names)
        except Exception as error:
            pytest.fail(f"block {number}: {type(error).__name__}: {error}\n{block}")
    assert len(BLOCKS) >= 7 and Path("runs/camping_grown/model.safetensors").is_file()
    (trained,) = Path("runs/trainer").glob("checkpoint-*")
    assert (trained / "item_embeddings.safetensors").is_file()
    assert names["Recommender"].from_pretrained(trained).processor.max_length == 60  # all that the model reads


def write_log(end: str, products: range):
    """Forty users who walk round the products."""
    clicks = [f"u{u},p{products[(u + step) % len(products)]},{1000 + step}" for u in range(40) for step in range(8)]
    Path(f"clicks{end}.csv").write_text("\n".join(["user_id,item_id,timestamp", *clicks]))
    texts = (f"p{number},product number {number}" for number in products)
    Path(f"products{end}.csv").write_text("\n".join(["item_id,text", *texts]))


def test_my_own_csv_and_next_month(tmp_path, monkeypatch, capsys):
    """The commands, on twelve products, then on fourteen others; one epoch in place of forty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("recipes").symlink_to(ROOT / "recipes")
    write_log("", range(12))
    write_log("_june", range(16, 2, -1))
    for line in "".join(SHOP).splitlines():
        python, script, *arguments = shlex.split(line, comments=True)
        assert python == "python"
        quicker = ["training.epochs=1", "--quiet"] if script.endswith("finetune.py") else []
        monkeypatch.setattr(sys, "argv", [script, *arguments, *quicker])
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as stopped:
            assert not stopped.code, line
    told = capsys.readouterr()
    assert "full-unseen" in told.out and Path("runs/shop/processor_config.json").is_file()
    assert "for each of 40 users" in told.out and Path("runs/shop_best.parquet").is_file()
    assert "9 of 14 items have an id vector, 5 are new to the model, 3 of its own are gone" in told.err
    assert "from shop; 9 of 14 items" in told.out and Path("runs/june/processor_config.json").is_file()


def test_files_it_names_exist():
    named = set(re.findall(r"\b(?:scripts|recipes)/[\w/]+\.(?:py|sh|yaml)", "".join(PAGES.values())))
    assert named and [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_its_links_lead_somewhere():
    """Files that are there, and headings of the page that is meant, as GitHub names them."""
    for page, text in PAGES.items():
        links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text)
        assert links
        for name, anchor in links:
            there = (page.parent / name).resolve() if name else page
            assert there.exists(), f"{page}: {name}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", PAGES[there], flags=re.MULTILINE)
                named = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
                assert anchor in named, f"{page}: {name}#{anchor}"


def test_result_tables_stand_in_the_rows():
    """Every measured number of their tables is the mean of rows in recipes/results."""
    from collections import defaultdict

    from retr_hf.report.results import read_rows

    cells = defaultdict(list)
    for row in read_rows(sorted((ROOT / "recipes" / "results").glob("*.jsonl"))):
        for metric, value in row.metrics.items():
            cells[row.recipe, row.system, tuple(row.sources), row.domain, row.protocol, metric].append(value)
    known = {f"{sum(values) / len(values):.4f}" for values in cells.values()}
    for page, text in PAGES.items():
        lines = [line for line in text.splitlines() if line.startswith("| ") and "published" not in line]
        numbers = [number for line in lines for number in re.findall(r"\| (0\.\d{4})", line)]
        assert numbers and [number for number in numbers if number not in known] == [], page
