#!/usr/bin/env bash
# Everything lgd does, from a bare machine with Python 3.11 to 3.13.
#
#   ./run.sh                learned weights against constants on handwritten digits
#   ./run.sh digits         all objectives, grids and strengths on both digits bases
#   ./run.sh mixture        the same on eight Gaussians in the plane
#   ./run.sh mixture40      the same on forty classes in 16 dimensions
#   ./run.sh mnist          the same on MNIST, prepared by TFDS (DATA=its directory)
#   ./run.sh mnist_unet     with a small U-Net in place of the MLP: 90 minutes on 2 cores
#   ./run.sh emoji          prompts and a reward, on images with captions (DATA=FILE.npz)
#   ./run.sh reward         a classifier as a reward on digits, and what it costs
#   ./run.sh compare [mixture]  every rule and schedule on digits, at 10 to 100 steps
#   ./run.sh verdicts       twenty bases, poor to exact: do verdicts hold on test data?
#   ./run.sh sweep          720 guidance trainings on digits from one set of statistics
#   ./run.sh smoke          train, evaluate and sample on shrunken configs
#   ./run.sh benchmark      speed ratios
#   ./run.sh test [ARGS]    the test suite (ARGS go to pytest)
#   ./run.sh test quick     the oracles of the mathematics alone
#   ./run.sh test slow      what the suite leaves out for its length
#
# The first call makes a virtual environment in .venv and installs requirements.txt; what
# pip says is in .venv/install.log.
# REQUIREMENTS=requirements-gpu.txt (or -tpu) installs for an accelerator,
# PYTHON=python3.12 picks the interpreter, RUNS=DIR the place of the work directories.
set -euo pipefail
cd "$(dirname "$0")"

venv=.venv
runs=${RUNS:-runs}
objectives='self_consistency l2 score_matching class_marginal'
distances='pixels'  # In which trajectories are compared with data; also: features.
evaluation=()  # Flags of evaluate.
# The oracles of the mathematics that take seconds.
quick_tests=(tests/lgd/{arrays,schedules,noising,transitions,mmd,rewards,refused_arrays}_test.py
             tests/lgd/guidance/{rules,tables,weights,planned}_test.py
             tests/lgd/objectives/statistics_loss_test.py tests/lgd/metrics
             tests/imports_test.py)

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
  echo "installing $1 into $venv (a minute or two)"
  # Compiling all modules takes longer than compiling those that are imported.
  if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-compile \
      -r "$1" > "$venv/install.log" 2>&1; then
    grep -i error "$venv/install.log" >&2 || true
    echo "error: $1 could not be installed; $venv/install.log says why." >&2
    exit 1
  fi
  cat requirements*.txt > "$stamp"
}

binary() {
  local name=$1
  shift
  # Both bases of a data set run the same programs.
  "$venv/bin/python" -m "experiments.$name" --compilation_cache="$venv/compiled" "$@"
}

# statistics CONFIG WORKDIR [FLAGS]: train a base, and keep one pass over the data.
statistics() {
  local config=$1 workdir=$2
  shift 2
  binary train_denoiser --config="$config" --workdir="$workdir" "$@"
  binary collect_statistics --config="$config" --workdir="$workdir" "$@"
}

# experiment CONFIG WORKDIR [FLAGS]: learn weights for a base in every way, compare.
experiment() {
  local config=$1 workdir=$2 objective distance
  local flags=("${@:3}")
  statistics "$config" "$workdir" "${flags[@]}"
  if [[ $objectives == *class_marginal* ]]; then
    binary collect_statistics --config="$config" --workdir="$workdir" "${flags[@]}" \
        --config.statistics.kind=class_groups
  fi
  for objective in $objectives; do
    binary train_guidance --config="$config" --workdir="$workdir" "${flags[@]}" \
        --config.guidance.objective="$objective"
  done
  for distance in $distances; do
    binary search_trajectory --config="$config" --workdir="$workdir" "${flags[@]}" \
        --config.trajectory.distance="$distance"
  done
  binary validate_weights --workdir="$workdir"
  if ((${#evaluation[@]})); then
    binary evaluate --config="$config" --workdir="$workdir" "${flags[@]}" \
        "${evaluation[@]}"
  else
    binary evaluate --workdir="$workdir"
  fi
}

# both NAME PREFIX [FLAGS]: the under-trained and the well-trained base of one data set.
# A table is printed as soon as it is there.
both() {
  local variant variants=("$2under_trained" "$2well_trained")
  for variant in "${variants[@]}"; do
    experiment "configs/$1.py:$variant" "$runs/$1_$variant" "${@:3}"
    table "$1, $variant base" "$runs/$1_$variant"
  done
}

# table TITLE WORKDIR: the table of results.
table() {
  printf '\n%s (%s)\n\n' "$1" "$2/results.md"
  awk '/^\| method/ {show = 1} show && /^## / {exit} show' "$2/results.md"
  printf 'figures: %s\n\n' "$2/plots"
}

command=${1:-first}
shift || true
case $command in
  first)
    install "${REQUIREMENTS:-requirements.txt}"
    objectives='self_consistency'
    evaluation=('--config.evaluation.constants=(0.05, 0.1, 0.25)'
                '--config.evaluation.interval_omegas=()'
                '--config.evaluation.clamp_linear_omegas=()'
                '--config.evaluation.kappas=()')
    both digits ''
    echo 'All objectives, grids and strengths: ./run.sh digits'
    ;;
  digits | mixture)
    install "${REQUIREMENTS:-requirements.txt}"
    both "$command" ''
    ;;
  mixture40)
    install "${REQUIREMENTS:-requirements.txt}"
    distances='pixels features'
    both mixture40 ''
    ;;
  mnist)
    distances='pixels features'
    install "${REQUIREMENTS:-requirements.txt}"
    both mnist '' --config.data.dir="${DATA:-}"
    ;;
  mnist_unet)
    install "${REQUIREMENTS:-requirements.txt}"
    both mnist unet_ --config.data.dir="${DATA:-}"
    ;;
  emoji)
    install "${REQUIREMENTS:-requirements.txt}"
    workdir=$runs/emoji
    flags=(--config=configs/emoji.py --workdir="$workdir" --config.data.file="${DATA:-}")
    binary train_denoiser "${flags[@]}"
    for model in reward judge; do
      binary train_clip "${flags[@]}" --model=$model
    done
    binary collect_statistics "${flags[@]}"
    binary frontier "${flags[@]}"
    binary frontier "${flags[@]}" --config.guidance.objective=l2 \
        '--config.frontier.gammas=(0.0,30.0,300.0)'
    binary train_guidance "${flags[@]}" --config.guidance.objective=reward
    binary evaluate_prompts --workdir="$workdir"
    table emoji "$workdir"
    ;;
  reward)
    install "${REQUIREMENTS:-requirements.txt}"
    workdir=$runs/digits_reward
    flags=(--config=configs/digits.py --workdir="$workdir"
           --config.reward.name=classifier)
    binary train_denoiser "${flags[@]}"
    binary collect_statistics "${flags[@]}"
    binary frontier "${flags[@]}" \
        '--config.frontier.gammas=(0.0,0.1,0.3,1.0,3.0,10.0,30.0)'
    binary train_guidance "${flags[@]}" --config.guidance.objective=reward
    binary evaluate --workdir="$workdir"
    table 'digits, a reward' "$workdir"
    ;;
  compare)
    name=${1:-digits}
    if [[ $name != digits && $name != mixture ]]; then
      echo "error: ./run.sh compare $name: must be digits or mixture." >&2
      exit 2
    fi
    install "${REQUIREMENTS:-requirements.txt}"
    weak=$runs/${name}_weak  # What autoguidance guides away from: here of a third of
    steps=300                # the steps, then the under-trained base.
    if [[ $name == mixture ]]; then steps=100; fi
    binary train_denoiser --config="configs/$name.py" --workdir="$weak" \
        --config.denoiser.num_steps=$steps
    for variant in under_trained well_trained; do
      workdir=$runs/${name}_$variant
      flags=(--config="configs/$name.py:$variant" --workdir="$workdir"
             --config.rule.weak_workdir="$weak")
      statistics "configs/$name.py:$variant" "$workdir"
      for rule in linear optimal_scale apg autoguidance; do  # They can be learned for.
        binary collect_statistics "${flags[@]}" --config.rule.name=$rule
        binary train_guidance "${flags[@]}" --config.rule.name=$rule
      done
      for rule in linear autoguidance; do
        binary search_trajectory "${flags[@]}" --config.rule.name=$rule
      done
      binary compare "${flags[@]}"
      sed -n '/^## Energy/,/^## 10/p' "$workdir/compare/results.md" | sed '$d'
      weak=$workdir
    done
    ;;
  verdicts)
    install "${REQUIREMENTS:-requirements.txt}"
    evaluation=('--config.evaluation.num_seeds=2'
                '--config.evaluation.constants=(0.1,)'
                '--config.evaluation.interval_omegas=()'
                '--config.evaluation.clamp_linear_omegas=()'
                '--config.evaluation.kappas=()')
    # judged NAME CONFIG [FLAGS]: one base, all its weights, their verdicts.
    judged() {
      experiment "configs/$2" "$runs/$1" "${@:3}"
    }
    for steps in 500 1000 2000 6000; do
      for dropout in 0.1 0.5; do
        judged "digits_${steps}_$dropout" digits.py --config.denoiser.num_steps="$steps" \
            --config.denoiser.label_dropout="$dropout"
      done
    done
    for steps in 1000 6000; do
      judged "digits_${steps}_narrow" digits.py --config.denoiser.num_steps="$steps" \
          --config.denoiser.width=64
    done
    # Mixtures by other seeds have other data, of which verdicts are then independent.
    judged mixture_exact mixture.py:exact --config.seed=1
    for steps in 300 1000 6000; do
      judged "mixture_$steps" mixture.py --config.denoiser.num_steps="$steps" \
          --config.seed="$steps"
    done
    judged mixture40_exact mixture40.py:exact --config.seed=2
    judged mixture40_64d_exact mixture40.py:exact --config.data.dim=64 --config.seed=3
    for steps in 500 1000 3000 10000; do
      judged "mixture40_$steps" mixture40.py --config.denoiser.num_steps="$steps" \
          --config.seed="$steps"
    done
    binary check_verdicts --workdir="$runs"
    sed -n '/^| measure/,/^$/p' "$runs/verdicts.md"
    ;;
  sweep)
    install "${REQUIREMENTS:-requirements.txt}"
    flags=(--config.statistics.num_particles=8
           --config.sweep.num_particles='(2, 4, 8)')
    statistics configs/digits.py "$runs/digits_sweep" "${flags[@]}"
    binary sweep --config=configs/digits.py --workdir="$runs/digits_sweep" "${flags[@]}"
    ;;
  smoke)
    install "${REQUIREMENTS:-requirements.txt}"
    for name in digits mixture; do
      experiment "configs/$name.py:smoke" "$runs/smoke_$name"
      binary train_guidance --config="configs/$name.py:smoke" \
          --workdir="$runs/smoke_$name" --config.guidance.source=direct
      binary sweep --config="configs/$name.py:smoke" --workdir="$runs/smoke_$name"
      binary sample --workdir="$runs/smoke_$name" --method=self_consistency
    done
    ;;
  benchmark)
    install "${REQUIREMENTS:-requirements.txt}"
    binary benchmark --config=configs/digits.py
    binary benchmark_sampling --config=configs/mnist.py:unet_under_trained \
        --config.fid.batch_size=64
    ;;
  test)
    install requirements-dev.txt
    "$venv/bin/ruff" check .
    "$venv/bin/ruff" format --check .
    case ${1:-} in
      quick) set -- "${quick_tests[@]}" "${@:2}" ;;
      slow)
        install requirements-torch.txt
        set -- -m slow "${@:2}"
        ;;
    esac
    "$venv/bin/python" -m pytest -n 2 --dist loadscope "$@"
    ;;
  *)
    echo "error: ./run.sh $command: must be nothing, digits, mixture, mixture40, mnist, mnist_unet," \
         "emoji, reward, compare, verdicts, sweep, smoke, benchmark or test." >&2
    exit 2
    ;;
esac
