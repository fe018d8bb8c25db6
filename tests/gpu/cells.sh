#!/usr/bin/env bash
# cells.sh OUT CARD CELL...: cells of the table in docs/BENCHMARKS.md, each as MODEL.KIND, such as E2B.chat or 31B.summ: dummy weights, fixed
# lengths, 80 requests at once (batch1: one at a time). Run it in the folder that `make gpu-bundle` made; records go to OUT/CARD-MODEL-KIND.json.
set -uo pipefail
out=$1 card=$2; shift 2
libraries=$(dirname "$(find /usr/local/cuda*/ -name libcublasLt.so.13 2> /dev/null | head -1)")
export LD_LIBRARY_PATH=$PWD:$libraries
port=18080

accept_length() { case $1 in E2B) echo 1.9 ;; E4B) echo 2.13 ;; 26B-A4B) echo 2.9 ;; 31B) echo 3.11 ;; esac; }
repeats() {  # of cells below 15 s three
  case $1 in 31B.summ | 26B-A4B.summ | 31B.mtp) echo 1 ;; 26B-A4B.* | 31B.*) echo 2 ;; *) echo 3 ;; esac
}
http() {  # MODEL FLAGS...: the chat cell over HTTP
  local model=$1; shift
  ./lapidary serve "$@" --max-num-seqs 80 --no-enable-prefix-caching --port $port > "$out/serve.log" 2>&1 &
  local server=$!
  for _ in $(seq 300); do curl -sf "http://127.0.0.1:$port/ready" > /dev/null && break; sleep 0.2; done
  ./lapidary bench serve --port $port --input-len 1000 --output-len 1000 --num-prompts 80 --repeats 2 \
    --output-json "$out/$card-$model-http.json"
  kill -INT $server; wait $server
}

for cell in "$@"; do
  model=${cell%.*} kind=${cell##*.} folder=configs/gemma-4-${cell%.*}-it
  record=$out/$card-$model-$kind.json
  base=(--model "$folder" --load-format dummy --skip-tokenizer-init --max-model-len 4096)
  run=(--repeats "$(repeats "$cell")" --output-json "$record")
  plain=(--speculative-num-steps 0)
  crowd=(--max-num-seqs 80 --output-len 1000 --num-prompts 80) chat=(--input-len 1000)
  echo "== $cell"
  case $kind in
    batch1) ./lapidary bench latency "${base[@]}" "${plain[@]}" --input-len 1000 --output-len 256 --num-prompts 3 "${run[@]}" ;;
    chat) ./lapidary bench throughput "${base[@]}" "${plain[@]}" "${crowd[@]}" "${chat[@]}" "${run[@]}" ;;
    mtp) ./lapidary bench throughput "${base[@]}" --draft-model "$folder-assistant" --speculative-num-steps 3 \
      --speculative-simulate-accept-length "$(accept_length "$model")" "${crowd[@]}" "${chat[@]}" "${run[@]}" ;;
    summ) ./lapidary bench throughput "${base[@]/4096/9216}" "${plain[@]}" "${crowd[@]}" --input-len 8000 "${run[@]}" ;;
    http) http "$model" "${base[@]}" "${plain[@]}" ;;
    *) echo "no such cell: $cell" >&2; exit 2 ;;
  esac || { echo "FAIL $cell" >&2; exit 1; }
done
