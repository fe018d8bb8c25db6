#!/usr/bin/env bash
# run.sh ops|sanitize|bench|models|invariance [FILTER]: op cases and models on the GPU of this machine. Run it in the folder that `make gpu-bundle` made,
# or name that folder in BUNDLE's place: run.sh ops "" FOLDER. cuBLASLt is looked for where CUDA 13 usually lies.
set -uo pipefail
what=${1:-ops} filter=${2:-} folder=${3:-.}
driver=$folder/op_driver
libraries=$(dirname "$(find /usr/local/cuda*/ -name libcublasLt.so.13 2> /dev/null | head -1)")
export LD_LIBRARY_PATH=$folder:$libraries
case $what in
  ops) "$driver" test --filter "$filter" ;;
  sanitize)
    status=0
    for tool in memcheck racecheck initcheck synccheck; do
      echo "== $tool"
      compute-sanitizer --tool $tool --error-exitcode 3 "$driver" test --small --filter "$filter" || status=1
    done
    exit $status
    ;;
  bench) "$driver" bench --filter "$filter" --json bench.json ;;
  models)
    "$folder/model_driver" "small:$folder/configs" "$folder/models/pebble:$folder/models/pebble-assistant"
    ;;
  invariance)
    "$folder/engine_driver" "$folder/models/pebble:$folder/models/pebble-assistant" \
      "dummy=$folder/configs/gemma-4-E2B-it:$folder/configs/gemma-4-E2B-it-assistant" \
      "dummy=$folder/configs/gemma-4-26B-A4B-it"
    ;;
  *) echo "usage: run.sh ops|sanitize|bench|models|invariance [FILTER] [FOLDER]" >&2; exit 2 ;;
esac
