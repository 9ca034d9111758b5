#!/usr/bin/env bash
# Everything lgd does, from a bare machine with Python 3.11 to 3.13.
#
#   ./run.sh                the method on handwritten digits, both base models
#   ./run.sh mixture        the same on eight Gaussians in the plane
#   ./run.sh smoke          train, evaluate and sample on shrunken configs
#   ./run.sh benchmark      speed ratios
#   ./run.sh test [ARGS]    the test suite (ARGS go to pytest)
#
# The first call makes a virtual environment in .venv and installs requirements.txt.
# REQUIREMENTS=requirements-gpu.txt (or -tpu) installs for an accelerator,
# PYTHON=python3.12 picks the interpreter, RUNS=DIR the place of the work directories.
set -euo pipefail
cd "$(dirname "$0")"

venv=.venv
runs=${RUNS:-runs}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
        2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.11 to 3.13 found; set PYTHON=/path/to/python3." >&2
  exit 2
}

# Installs a requirements file, once for every version of its text.
install() {
  local stamp="$venv/.installed-$1"
  if [[ -f $stamp ]] && cat requirements*.txt | cmp -s - "$stamp"; then
    return
  fi
  if ! "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
    local python
    python=$(find_python)
    "$python" -m venv --clear "$venv"
  fi
  echo "installing $1 into $venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$1"
  cat requirements*.txt > "$stamp"
}

binary() {
  local name=$1
  shift
  "$venv/bin/python" -m "experiments.$name" "$@"
}

# experiment CONFIG WORKDIR OBJECTIVE...: train a base, learn weights, compare.
experiment() {
  local config=$1 workdir=$2 objective
  shift 2
  binary train_denoiser --config="$config" --workdir="$workdir"
  for objective in "$@"; do
    binary train_guidance --config="$config" --workdir="$workdir" \
        --config.guidance.objective="$objective"
  done
  binary evaluate --workdir="$workdir"
}

# both NAME: the under-trained and the well-trained base of one data set.
both() {
  local variant
  for variant in under_trained well_trained; do
    experiment "configs/$1.py:$variant" "$runs/$1_$variant" \
        self_consistency l2 score_matching
  done
  for variant in under_trained well_trained; do
    printf '\n%s, %s base (%s)\n\n' "$1" "$variant" "$runs/$1_$variant/results.md"
    awk '/^\| method/ {show = 1} show && /^## / {exit} show' \
        "$runs/$1_$variant/results.md"
    echo "figures: $runs/$1_$variant/plots"
  done
}

command=${1:-digits}
shift || true
case $command in
  digits | mixture)
    install "${REQUIREMENTS:-requirements.txt}"
    both "$command"
    ;;
  smoke)
    install "${REQUIREMENTS:-requirements.txt}"
    for name in digits mixture; do
      experiment "configs/$name.py:smoke" "$runs/smoke_$name" self_consistency
      binary sample --workdir="$runs/smoke_$name" --method=self_consistency
    done
    ;;
  benchmark)
    install "${REQUIREMENTS:-requirements.txt}"
    binary benchmark --config=configs/digits.py
    ;;
  test)
    install requirements-dev.txt
    "$venv/bin/ruff" check .
    "$venv/bin/ruff" format --check .
    "$venv/bin/python" -m pytest -n 2 "$@"
    ;;
  *)
    echo "error: ./run.sh $command: must be digits, mixture, smoke, benchmark or test." >&2
    exit 2
    ;;
esac
