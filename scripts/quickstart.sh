#!/usr/bin/env bash
# The whole journey on the synthetic world: prepare, embed, pretrain, finetune, evaluate, report, recommend.
#
#   scripts/quickstart.sh                          makes .venv, installs, runs; ends in a table and three recommendations
#   RETR_VENV=~/envs/retr scripts/quickstart.sh    an environment elsewhere
#   scripts/quickstart.sh --fresh                  forget earlier runs of the quickstart first
#
# Needs Python 3.11 or newer and a package index; nothing else is downloaded. Runs from any folder and can be run again:
# what is finished is left alone, what was interrupted goes on. PYTHON chooses the interpreter (default: python3).
# The domains are synthetic, with a known answer: the numbers show that the code works and say nothing about shops.
set -euo pipefail

fresh=""
case "${1:-}" in
    --help | -h) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    --fresh) fresh=1 ;;
    "") ;;
    *) echo "unknown argument $1; see --help" >&2; exit 2 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${RETR_VENV:-.venv}"
stamp="$venv/retr_hf.quickstart"
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "${PYTHON:-python3}" -m venv "$venv"
fi
wanted="$(pwd -P; cat setup.py constraints.txt)"
if [[ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" && "$(cat "$venv/retr_hf.installed" 2>/dev/null || true)" != "$wanted" ]]; then
    echo "installing into $venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
    printf '%s\n' "$wanted" > "$stamp"
fi

export HF_HUB_OFFLINE=1
stage() { printf '\n== %s\n' "$*"; "$venv/bin/python" "$@"; }
started=$SECONDS
[[ -n "$fresh" ]] && rm -rf runs/synthetic

domains=(garden kitchen music playroom stationery bathroom camping cycling pets sewing)
targets=(bathroom camping cycling pets sewing)
stage scripts/prepare.py synthetic --output data/synthetic
stage scripts/embed.py "${domains[@]/#/data/synthetic/}" --encoder hashing --quiet
stage scripts/pretrain.py recipes/synthetic/pretrain.yaml --resume
stage scripts/pretrain.py recipes/synthetic/pretrain_no_router.yaml --resume
stage scripts/finetune.py recipes/synthetic/finetune.yaml --resume
stage scripts/finetune.py recipes/synthetic/finetune_scratch.yaml --resume
stage scripts/finetune.py recipes/synthetic/finetune_no_router.yaml --resume
stage scripts/evaluate.py --baseline popularity "${targets[@]/#/data/synthetic/}" --cutoffs 10 \
    --results runs/synthetic/rows.jsonl
stage scripts/report.py runs/synthetic/rows.jsonl --output runs/synthetic/table.md \
    --figures runs/synthetic/pretrain/RETR
stage scripts/report.py runs/synthetic/rows.jsonl --protocols full --metrics HR@10
stage scripts/recommend.py runs/synthetic/camping/RETR --domain data/synthetic/camping --user camping-user-0000 camping-user-0001 camping-user-0002 -k 3 \
    --figure runs/synthetic/pathway.png
printf '\nthe whole journey took %d s; runs/synthetic holds the models, the table and the figures\n' $((SECONDS - started))
