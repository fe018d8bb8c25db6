#!/usr/bin/env bash
# cells.sh OUT CARD [--limit SECONDS] [MODEL|CELL...]: the figures of docs/BENCHMARKS.md, each cell as MODEL.KIND, such as E2B.chat or 31B.summ; of a
# MODEL all its kinds; without any, all. Dummy weights, fixed lengths, 80 requests at once (batch1: one at a time; http: over HTTP; step: decode
# steps alone over batch and context; products: what their dense products take). Run it in the folder that `make gpu-bundle` made; records go to OUT/CARD-MODEL-KIND.json. A cell whose record is there is passed
# over, and none begins that would end after SECONDS, so that a run that was cut goes on where it was. Exit 3: some are left.
set -uo pipefail
out=$1 card=$2; shift 2
limit=1000000
[ "${1:-}" = --limit ] && { limit=$2; shift 2; }
libraries=$(dirname "$(find /usr/local/cuda*/ -name libcublasLt.so.13 2> /dev/null | head -1)")
export LD_LIBRARY_PATH=$PWD:$libraries
port=18080
mkdir -p "$out"

# MODEL.KIND SECONDS on an H200, rounded up.
cells="E2B.products 10 E2B.step 25    E2B.batch1 10     E2B.chat 35      E2B.mtp 35      E2B.summ 60      E2B.http 40
       E4B.products 10 E4B.step 25    E4B.batch1 15     E4B.chat 50      E4B.mtp 45      E4B.summ 100     E4B.http 50
       26B-A4B.products 10 26B-A4B.step 30 26B-A4B.batch1 15 26B-A4B.chat 90 26B-A4B.mtp 60  26B-A4B.summ 110 26B-A4B.http 100
       31B.products 10 31B.step 30    31B.batch1 30     31B.chat 180     31B.mtp 110     31B.summ 340     31B.http 200"

accept_length() { case $1 in E2B) echo 1.9 ;; E4B) echo 2.13 ;; 26B-A4B) echo 2.9 ;; 31B) echo 3.11 ;; esac; }
repeats() {  # of cells below 15 s three
  case $1 in 31B.summ | 26B-A4B.summ | 31B.mtp | 31B.http | 26B-A4B.http) echo 1 ;; 26B-A4B.* | 31B.* | *.http) echo 2 ;; *) echo 3 ;; esac
}
wanted() {  # CELL NAMES...
  local cell=$1 name; shift
  [ $# = 0 ] && return 0
  for name in "$@"; do [ "$cell" = "$name" ] || [ "${cell%.*}" = "$name" ] && return 0; done
  return 1
}
http() {  # RECORD REPEATS FLAGS...: the chat cell over HTTP
  local record=$1 repeats=$2 status=1; shift 2
  ./lapidary serve "$@" --max-num-seqs 80 --no-enable-prefix-caching --port $port > "$out/serve.log" 2>&1 &
  local server=$!
  for _ in $(seq 300); do
    curl -sf "http://127.0.0.1:$port/ready" > /dev/null && break
    kill -0 $server || return 1
    sleep 0.2
  done
  ./lapidary bench serve --port $port --input-len 1000 --output-len 1000 --num-prompts 80 --repeats "$repeats" \
    --output-json "$record" && status=0
  kill -INT $server; wait $server
  return $status
}

run() {  # CELL RECORD
  local model=${1%.*} kind=${1##*.} record=$2 folder=configs/gemma-4-${1%.*}-it
  local weights=(--model "$folder" --load-format dummy)
  local base=("${weights[@]}" --skip-tokenizer-init --max-model-len 4096) plain=(--speculative-num-steps 0)
  local run=(--repeats "$(repeats "$1")" --output-json "$record")
  local crowd=(--max-num-seqs 80 --output-len 1000 --num-prompts 80) chat=(--input-len 1000)
  case $kind in
    step) ./lapidary bench step "${weights[@]}" --batch 1,2,4,8,16,32,48,64,80,96,128,192,256 \
      --context 128,512,1024,1500,2048,4096,8192,16384,32768 --output-json "$record" ;;
    products) ./lapidary bench step "${weights[@]}" --batch 80,1 --context 1500 --products --output-json "$record" ;;
    batch1) ./lapidary bench latency "${base[@]}" "${plain[@]}" --input-len 1000 --output-len 256 --num-prompts 3 "${run[@]}" ;;
    chat) ./lapidary bench throughput "${base[@]}" "${plain[@]}" "${crowd[@]}" "${chat[@]}" "${run[@]}" ;;
    mtp) ./lapidary bench throughput "${base[@]}" --draft-model "$folder-assistant" --speculative-num-steps 3 \
      --speculative-simulate-accept-length "$(accept_length "$model")" "${crowd[@]}" "${chat[@]}" "${run[@]}" ;;
    summ) ./lapidary bench throughput "${base[@]/4096/9216}" "${plain[@]}" "${crowd[@]}" --input-len 8000 "${run[@]}" ;;
    http) http "$record" "$(repeats "$1")" "${base[@]}" "${plain[@]}" ;;
  esac
}

for name in "$@"; do
  [[ " ${cells//$'\n'/ } " == *" $name"[\ .]* ]] || { echo "no such cell: $name" >&2; exit 2; }
done
left=()
while read -r cell seconds; do
  wanted "$cell" "$@" || continue
  record=$out/$card-${cell%.*}-${cell##*.}.json
  if grep -qE '"(figures|points)"' "$record" 2> /dev/null; then echo "== $cell: measured before"; continue; fi
  if [ $((SECONDS + seconds)) -gt "$limit" ]; then left+=("$cell"); continue; fi
  echo "== $cell"
  begin=$SECONDS
  run "$cell" "$record" < /dev/null || { echo "FAIL $cell" >&2; rm -f "$record"; exit 1; }
  echo "$cell took $((SECONDS - begin)) s"
done < <(echo "$cells" | xargs -n2)
[ ${#left[@]} = 0 ] || { echo "left: ${left[*]}"; exit 3; }
