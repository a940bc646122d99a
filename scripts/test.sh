#!/usr/bin/env bash
# Installs the tested versions into a virtual environment, then lints and tests.
#
#   scripts/test.sh                           everything
#   scripts/test.sh tests/model -k pathway    any arguments of pytest (-n 0: in one process)
#   RETR_VENV=~/envs/retr scripts/test.sh     an environment elsewhere (default: .venv in the repository)
#
# Runs from any folder and can be run again: it installs only when setup.py or constraints.txt has changed since.
# The install step also unpacks the tests of the source distribution of transformers beside the environment's packages.
# No test needs the internet; PYTHON chooses the interpreter that the environment is made with (default: python3).
set -euo pipefail

if [[ "${1:-}" == "--help" || "${1:-}" == "-h" ]]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${RETR_VENV:-.venv}"
stamp="$venv/retr_hf.installed"

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then  # none yet, or one whose making was interrupted
    "${PYTHON:-python3}" -m venv "$venv"
fi

# the stamp is what was installed, from where: an environment shared by two checkouts follows the one that runs
wanted="$(pwd -P; cat setup.py constraints.txt)"
if [[ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]]; then
    echo "installing into $venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,text,minilm]'
    # transformers' own tests of every model, for tests/model/test_transformers_common.py: only its source has them
    version="$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("transformers"))')"
    if [[ ! -d "$venv/transformers-$version-tests" ]]; then
        source="$(mktemp -d "$venv/source.XXXXXX")"
        if "$venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary transformers \
                --dest "$source" "transformers==$version" &&
            tar -xzf "$source/transformers-$version.tar.gz" -C "$source" --strip-components=1 \
                "transformers-$version/tests"; then
            mv "$source/tests" "$venv/transformers-$version-tests"
        else
            echo "no source of transformers $version to be had: its own tests of our models will be skipped" >&2
        fi
        rm -rf "$source"
    fi
    printf '%s\n' "$wanted" > "$stamp"
fi

export HF_HUB_OFFLINE=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # a process a core, not a thread
"$venv/bin/ruff" check .
exec "$venv/bin/python" -m pytest -n auto --maxprocesses 8 --dist loadfile "$@"
