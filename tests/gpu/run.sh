#!/usr/bin/env bash
# run.sh ops|sanitize|stress|models|invariance|bench [FILTER] [FOLDER]: the proof on the GPU of this machine, in the folder that `make gpu-bundle` made or
# that FOLDER names. cuBLASLt is looked for where CUDA 13 usually lies. What passed is kept in FOLDER/records and not run again while the
# sources of kernels, ops, engine and model are the same; so a run that was cut goes on where it was.
#   ops       every op case against the CPU's definition
#   sanitize  the small cases under memcheck, racecheck, initcheck and synccheck
#   stress    in the folder of `make gpu-stress`, whose blocks wait for random times: 200 repeats of every case, the same bits
#   models    padding of decode graphs; few layers against the CPU; pebble, the families and full widths against transformers (needs Python with
#             torch and transformers)
#   invariance  requests alone, in a crowd, with drafts and with steps not overlapped; 26B with its cache folded and split
#   bench     every op, timed; FILTER: how the ops' names begin
set -uo pipefail
what=${1:-ops} filter=${2:-} folder=$(realpath "${3:-.}")
driver=$folder/op_driver records=$folder/records
libraries=$(dirname "$(find /usr/local/cuda*/ -name libcublasLt.so.13 2> /dev/null | head -1)")
export LD_LIBRARY_PATH=$folder:$libraries
source=$(cat "$folder/source")
mkdir -p "$records"

# step NAME COMMAND...: its output to the terminal and to the record, whose last line says how it ended.
step() {
  local record=$records/$1.log status begin=$SECONDS
  if [ "$(tail -1 "$record" 2> /dev/null)" = "passed $source" ]; then echo "== $1: passed before"; return 0; fi
  echo "== $1"
  "${@:2}" 2>&1 | tee "$record"
  status=${PIPESTATUS[0]}
  echo "$1 took $((SECONDS - begin)) s" | tee -a "$record"
  [ "$status" = 0 ] && echo "passed $source" >> "$record"
  return "$status"
}

# Cases by the kind of their op, each a step of its own.
kinds() { "$driver" list --filter "$filter" | cut -d/ -f1 | sort -u; }

# Every own kernel of the driver has a small case, so that the sanitizers see it. The probe belongs to the bench.
coverage() {
  "$driver" test --small --kernels "$records/kernels.run" || return 1  # sorted by bytes
  cuobjdump --dump-elf-symbols "$driver" | awk '/STO_ENTRY/ {print $NF}' | grep -v ProbeKernel | LC_ALL=C sort -u > "$records/kernels.all"
  echo "$(wc -l < "$records/kernels.all") kernels in the driver; without a small case:"
  LC_ALL=C comm -23 "$records/kernels.all" "$records/kernels.run" | tee "$records/kernels.missing"
  [ -s "$records/kernels.all" ] && [ ! -s "$records/kernels.missing" ]
}

# cuBLASLt's own kernels are not ours to check: racecheck does not know how they synchronise, and initcheck not what those that it passes over write.
sanitize() {
  local kind failed=0
  for kind in $(kinds); do
    step "$1-$kind" compute-sanitizer --tool "$1" --kernel-name-exclude kernel_substring=nvjet,kernel_substring=cublasLt --error-exitcode 3 \
      "$driver" test --small --filter "$kind/" || failed=1
  done
  return $failed
}

status=0 pids=() part=${filter:+-${filter//\//_}}
case $what in
  ops) step "ops$part" "$driver" test --filter "$filter" || status=1 ;;
  sanitize)
    step coverage coverage || status=1
    for tool in memcheck racecheck initcheck synccheck; do sanitize $tool & pids+=($!); done
    for pid in "${pids[@]}"; do wait "$pid" || status=1; done
    ;;
  stress)
    for kind in $(kinds); do step "repeats-$kind" "$driver" repeat --filter "$kind/" || status=1; done
    ;;
  bench) step "bench$part" "$folder/lapidary" bench kernel --backend cuda --op "$filter" --output-json "$records/bench$part.json" || status=1 ;;
  models)
    step padding "$folder/engine_driver" "padding=$folder/configs" || status=1
    step cpu "$folder/model_driver" "small:$folder/configs" "$folder/models/pebble:$folder/models/pebble-assistant" || status=1
    python3 "$folder/reference/gpu_models.py" --lapidary "$folder/lapidary" --models "$folder/models" --configs "$folder/configs" \
      --out "${TMPDIR:-/tmp}/lapidary_models" --record "$records/models.json" --source "$source" ${filter:+--only $filter} || status=1
    ;;
  invariance)
    step invariance "$folder/engine_driver" "$folder/models/pebble:$folder/models/pebble-assistant" \
      "dummy=$folder/configs/gemma-4-E2B-it:$folder/configs/gemma-4-E2B-it-assistant" \
      "dummy=$folder/configs/gemma-4-26B-A4B-it:$folder/configs/gemma-4-26B-A4B-it-assistant" || status=1
    ;;
  *) echo "usage: run.sh ops|sanitize|stress|models|invariance|bench [FILTER] [FOLDER]" >&2; exit 2 ;;
esac
exit $status
