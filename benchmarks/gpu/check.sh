#!/usr/bin/env bash
# Everything that one GPU should tell about netsim, in about eight minutes; a part that fails stops no other.
#
#   bash benchmarks/gpu/check.sh                             # in the root of the checkout, on a machine with a GPU
#   DEVICE=cpu SMALL=1 OUT=out bash benchmarks/gpu/check.sh  # tries the script itself on a CPU
#
# Variables: PYTHON (python3), OUT (gpu-results), BUDGET (465 s), DEVICE (cuda), SMALL. Without an index of packages, put
# wheels of what netsim needs beside torch into benchmarks/gpu/wheels: they are installed beside, never into, what is there.
# For Python 3.12 on Linux, where numpy, numba, networkx, typer and the like are installed already:
#
#   python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \
#     --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 -d benchmarks/gpu/wheels \
#     simpy pydantic==2.14.3 pydantic-core==2.50.4 annotated-types typing-inspection typing-extensions defusedxml
#
# $OUT gets summary.txt (read it first), log.txt, parts.jsonl (exit status and seconds of each part), reports.jsonl
# (netsim's reports, a line each), bench.txt, env.txt and profile.toml.
set -u
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(pwd)
DEVICE=${DEVICE:-cuda} SMALL=${SMALL:-} OUT=${OUT:-gpu-results} PYTHON=${PYTHON:-python3} BUDGET=${BUDGET:-465}
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
mkdir -p "$OUT"
rm -f "$OUT"/{parts.jsonl,reports.jsonl,bench.txt,env.txt,log.txt,profile.toml}
export PYTHONUNBUFFERED=1 TORCH_CPP_LOG_LEVEL=FATAL OMP_NUM_THREADS=1 NUMBA_CACHE_DIR="$SCRATCH/numba"
export TRITON_CACHE_DIR="$SCRATCH/triton"
export PYTHONPATH="$SCRATCH/site:$ROOT:$HERE${PYTHONPATH:+:$PYTHONPATH}"

# part NAME SECONDS COMMAND...: at most so long, and at most what is left of the budget; $status is that of the command.
part() {
  local name=$1 most=$2 began=$SECONDS left=$((BUDGET - SECONDS))
  shift 2
  status=125
  if [ "$left" -lt 8 ]; then
    echo "{\"part\": \"$name\", \"left out\": \"no time left\"}" >> "$OUT/parts.jsonl"
    return
  fi
  [ "$most" -gt "$left" ] && most=$left
  echo "=== $name (at most $most s): $*" >&2
  timeout -k 5 "$most" "$@"
  status=$?
  echo "{\"part\": \"$name\", \"exit\": $status, \"seconds\": $((SECONDS - began))}" >> "$OUT/parts.jsonl"
}

# report NAME SECONDS ARGUMENTS...: a netsim command, whose JSON becomes a line of reports.jsonl.
report() {
  local name=$1 most=$2
  shift 2
  part "$name" "$most" "$PYTHON" -m netsim "$@" --json --out "$SCRATCH/$name.json" > /dev/null
  "$PYTHON" "$HERE/summary.py" line "$name" "$SCRATCH/$name.json" >> "$OUT/reports.jsonl"
}

environment() {
  nvidia-smi
  nvidia-smi -q -d CLOCK,POWER,PERFORMANCE | head -60
  nproc
  free -g
  "$PYTHON" -c "import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version())"
  # Triton compiles its launcher with a C compiler and Python's headers; without them torch's operators select.
  "$PYTHON" -c "import triton; print('triton', triton.__version__)"
  command -v cc gcc clang
  ls "$("$PYTHON" -c "import sysconfig; print(sysconfig.get_path('include'))")/Python.h"
}

# bench SECONDS PARTS: in a process of its own, because an error of a GPU ends all that its process could still measure.
bench() {
  local name="bench-${2%%,*}"
  part "$name" $(($1 + 20)) bash -o pipefail -c '"$@" | tee -a "$0"' "$OUT/bench.txt" \
    "$PYTHON" "$HERE/bench.py" --device "${DEVICE/%cuda/cuda:0}" --seconds "$1" --only "$2" ${SMALL:+--small}
}

# What must hold, or nothing below says anything.
ready() {
  date -u
  (export -f environment; export PYTHON; timeout -k 5 60 bash -c environment) > "$OUT/env.txt" 2>&1
  if ls "$HERE"/wheels/*.whl > /dev/null 2>&1; then
    part wheels 60 "$PYTHON" -m pip install -q --no-index --no-deps --target "$SCRATCH/site" "$HERE"/wheels/*.whl
  fi
  local works="import torch, netsim.cli.app, netsim.api.simulation"
  [ "$DEVICE" = cpu ] || works="$works; torch.zeros(1, device='$DEVICE').add_(1).item()"
  part ready 60 "$PYTHON" -c "$works"
  [ "$status" = 0 ]
}

# The order is that of what would be missed most: the budget may end before the list does.
everything() {
  local few="--rounds 3 --device $DEVICE" algorithms=dense,dense-tree,ps,topk,gtopk nccl=gloo workload given
  [ "$DEVICE" = cpu ] || nccl=nccl
  [ -n "$SMALL" ] && algorithms=dense,gtopk

  # Is it right? A simulation and real ranks must end with the same bits.
  report simulate-2 60 simulate --workers 2 --algorithm $algorithms $few
  report run-2 70 run --nproc 2 --algorithm $algorithms $few

  # What does it cost? Alone on the GPU.
  bench 70 ceilings,gradients,readiness
  bench 80 selection,merging,charges,rounds
  [ -n "$SMALL" ] && return

  # -s INT: pytest then says what failed so far.
  part tests 90 timeout -s INT 80 "$PYTHON" -m pytest -v --tb=short -o filterwarnings=default -p no:cacheprovider \
    -m "not real and not slow" tests/test_cuda.py
  report auto-64 60 simulate --workers 64 --bandwidth 1Gbps
  report run-1-nccl 40 run --nproc 1 --backend $nccl --algorithm dense,gtopk $few
  report simulate-1 30 simulate --workers 1 --algorithm dense,gtopk $few
  for workload in resnet20 char-lstm; do
    given="--device $DEVICE --workload $workload --algorithm gtopk --rounds 2"
    [ $workload = resnet20 ] && given="$given --data synthetic"
    report simulate-2-$workload 40 simulate --workers 2 $given
    report run-2-$workload 50 run --nproc 2 $given
  done
  report simulate-2-overlap 40 simulate --workers 2 --algorithm gtopk,dense --overlap 1MB $few
  report run-2-overlap 50 run --nproc 2 --algorithm gtopk,dense --overlap 1MB $few
  report resnet18-64 70 simulate --workers 64 --bandwidth 1Gbps --device "$DEVICE" --workload resnet18 \
    --data synthetic --algorithm gtopk --rounds 2
  part calibrate 60 "$PYTHON" -m netsim calibrate --device "$DEVICE" --out "$OUT/profile.toml"
  report simulate-2-again 60 simulate --workers 2 --algorithm $algorithms $few
  part doctor 45 "$PYTHON" -m netsim doctor
}

{ ready && everything; date -u; } > "$OUT/log.txt" 2>&1
"$PYTHON" "$HERE/summary.py" summary "$OUT" | tee "$OUT/summary.txt"
