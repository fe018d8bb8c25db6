# The front door. `make serve` and `make test` are all a newcomer needs.
BUILD := build
JOBS  ?= $(shell nproc)
ARGS  ?=
# CUDA=1, or a GPU and nvcc 13 here: the program has both backends.
NVCC  := $(wildcard /usr/local/cuda/bin/nvcc)
GPU   := $(wildcard /dev/nvidia0)
PRESET := $(if $(CUDA)$(and $(GPU),$(NVCC)),cuda,cpu)
TREE   := $(BUILD)$(if $(filter cuda,$(PRESET)),/cuda)
CTEST := ctest --output-on-failure -j $(JOBS)
SOURCES = git ls-files 'src/*.h' 'src/*.cc' 'src/*.cu' 'src/*.cuh' 'tests/*.h' 'tests/*.cc' 'bench/*.cc'

.PHONY: setup build serve test lint format tidy lint-all asan tsan mutations simulate mutants fuzz hostile pebble clients compare-clients bench cuda crowd metrics soak tokenizer tokenizer-speed gpu-bundle gpu-stress clean

setup:            ## installs what the build needs, once (says the line before it runs)
	@tools/setup

build: setup      ## the program at build/lapidary
	@$(if $(NVCC),,$(if $(GPU),echo "no /usr/local/cuda/bin/nvcc: the program will have the CPU backend alone"))
	@cmake --preset $(PRESET) -DLAPIDARY_TESTS=OFF > $(BUILD).log 2>&1 || { cat $(BUILD).log; rm -f $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log
	@cmake --build --preset $(PRESET) --target lapidary -j $(JOBS)
	@[ $(PRESET) = cpu ] || cp -p $(BUILD)/cuda/lapidary $(BUILD)/lapidary

serve: build      ## serves the shipped model on 127.0.0.1:8000; make serve ARGS="--model DIR"
	@$(BUILD)/lapidary serve $(ARGS)

test: setup       ## builds everything and runs all tests
	@cmake --preset $(PRESET) -DLAPIDARY_TESTS=ON
	@cmake --build --preset $(PRESET) -j $(JOBS)
	@$(CTEST) --test-dir $(TREE)

lint:             ## format, layers, sizes
	@tools/setup lint
	@$(SOURCES) | xargs clang-format-19 --dry-run --Werror
	@python3 tools/check_layers.py .

format:           ## rewrites the sources in the one format
	@tools/setup lint
	@$(SOURCES) | xargs clang-format-19 -i

tidy:             ## clang-tidy of every file; of those changed since SINCE=COMMIT, or of the newest commits' 40 (3 minutes on two cores): SINCE=+40
	@tools/tidy $(SINCE)

lint-all: lint tidy  ## both

asan: setup       ## every test, and 1,000 hostile requests, under AddressSanitizer and UndefinedBehaviorSanitizer
	@cmake --preset cpu-asan
	@cmake --build $(BUILD)/asan -j $(JOBS)
	@$(CTEST) --test-dir $(BUILD)/asan
	@python3 tests/clients/hostile_http.py --requests 1000 --program $(BUILD)/asan/lapidary

# Where no program under ThreadSanitizer starts, as in a container that may not use setarch, the file tells CI.
tsan: setup       ## the tests with threads (engine, server), and 500 hostile requests, under ThreadSanitizer
	@mkdir -p $(BUILD) && rm -f $(BUILD)/tsan.skipped
	@if start=$$(tools/tsan_start); then \
	  cmake --preset cpu-tsan && \
	  cmake --build $(BUILD)/tsan -j $(JOBS) --target threaded_tests lapidary && \
	  $$start $(CTEST) --test-dir $(BUILD)/tsan -L threads && \
	  $$start python3 tests/clients/hostile_http.py --requests 500 --program $(BUILD)/tsan/lapidary; \
	else echo "tsan: skipped: no program under ThreadSanitizer starts on this machine" | tee $(BUILD)/tsan.skipped; fi

mutations: setup  ## 2,000 damaged checkpoints
	@cmake --preset cpu -DLAPIDARY_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS) --target mutations_test
	@$(BUILD)/tests/checkpoints/mutations_test --rounds-percent=400

STEPS := 300000000
SEED  := 1
simulate: setup   ## 300 million steps of the scheduler under faults; make simulate STEPS=N SEED=S
	@cmake --preset cpu -DLAPIDARY_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS) --target simulation
	@$(BUILD)/tests/simulation/simulation --steps $(STEPS) --seed $(SEED) --twice 1000 --progress

mutants: setup    ## known bugs, planted one at a time: the simulation has to notice them
	@cmake --preset cpu -DLAPIDARY_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS) --target simulation
	@python3 tools/mutants/run.py $(BUILD) --jobs $(JOBS)

crowd: setup      ## 10,000 requests of each model in random company, each against its solo run; 20 users of one long prompt
	@cmake --preset cpu -DLAPIDARY_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS) --target crowd_test exactness_test
	@$(BUILD)/tests/crowd/exactness_test --gtest_filter='Prefix.TwentyUsers*' --rounds-percent=1000
	@tests/crowd/run $(BUILD)/tests/crowd/crowd_test $(JOBS)

REQUESTS := 20000
soak: setup       ## 20,000 HTTP requests, 30 % cancelled, and 10 x overload on a tiny model; make soak REQUESTS=1000000
	@cmake --preset cpu -DLAPIDARY_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS) --target soak_test
	@$(BUILD)/tests/soak/soak_test --rounds-percent=$$(( $(REQUESTS) / 10 ))

SECONDS := 45
fuzz:             ## every fuzz target for 45 s; make fuzz SECONDS=600
	@tools/setup fuzz
	@cmake --preset cpu-fuzz
	@cmake --build $(BUILD)/fuzz -j $(JOBS) --target fuzzers
	@tests/fuzz/run $(BUILD)/fuzz $(SECONDS) $(JOBS)

hostile: build    ## 10,000 mutated HTTP requests against the running server
	@python3 tests/clients/hostile_http.py

pebble: build     ## the shipped model's bars: its questions and how they were held out, its drafts, its size
	@tests/pebble/run $(BUILD)/lapidary

clients: build    ## the official openai package against the running server
	@tools/setup clients
	@test -x $(BUILD)/clients/bin/pytest || python3 -m venv $(BUILD)/clients
	@$(BUILD)/clients/bin/pip install -q -r tests/clients/requirements.txt
	@$(BUILD)/clients/bin/pytest -q -p no:cacheprovider tests/clients

tokenizer: build  ## 100,000 texts and lists against the tokenizers package, with a vocabulary of the published size
	@tools/tokenizer/run $(BUILD) compare.py

tokenizer-speed: build  ## loading and encoding beside the tokenizers package
	@cmake --preset cpu -DLAPIDARY_TESTS=ON > /dev/null && cmake --build $(BUILD) -j $(JOBS) --target tokenizer_bench
	@tools/tokenizer/run $(BUILD) speed.py

compare-clients:  ## figures of RECORD, by bench serve, against two other clients' own functions
	@test -n "$(RECORD)" || { echo "give RECORD=FILE, of lapidary bench serve --output-json FILE"; exit 2; }
	@test -x $(BUILD)/compare/bin/pip || python3 -m venv $(BUILD)/compare
	@$(BUILD)/compare/bin/pip install -q --no-deps -r tests/clients/compare_requirements.txt
	@$(BUILD)/compare/bin/python tests/clients/compare_clients.py $(RECORD)

metrics: build    ## promtool on the running server's /metrics
	@tools/setup metrics
	@python3 tests/clients/metrics_lint.py

bench: test       ## roofline of the CPU ops
	@$(TREE)/bench/ops_bench

cuda: setup       ## compiles and links preset cuda, where there is an nvcc 13
	@mkdir -p $(BUILD) && rm -f $(BUILD)/cuda.skipped
	@if [ -x /usr/local/cuda/bin/nvcc ]; then \
	  cmake --preset cuda -DLAPIDARY_TESTS=ON > /dev/null && \
	  cmake --build $(BUILD)/cuda -j $(JOBS) --target lapidary op_driver model_driver engine_driver; \
	else echo "cuda: skipped: no /usr/local/cuda/bin/nvcc" | tee $(BUILD)/cuda.skipped; fi

gpu-bundle: cuda  ## program, drivers, their shared libraries and models in build/bundle, for a machine with a GPU
	@tools/bundle build/bundle build/cuda/lapidary build/cuda/tests/gpu/op_driver build/cuda/tests/gpu/model_driver \
	  build/cuda/tests/gpu/engine_driver
	@cp tests/gpu/run.sh tests/gpu/cells.sh build/bundle/
	@cp -r models build/bundle/
	@cp -r tests/data/configs build/bundle/
	@mkdir build/bundle/reference && cp tools/reference/*.py build/bundle/reference/
	@find src/kernels src/ops src/engine src/model -type f | sort | xargs sha256sum | sha256sum | cut -c1-16 > build/bundle/source

gpu-stress: gpu-bundle  ## the op driver with blocks that wait for random times, in build/bundle-stress, for run.sh stress
	@cmake --preset cuda -B $(BUILD)/stress -DLAPIDARY_TESTS=ON -DLAPIDARY_KERNEL_STRESS=ON > /dev/null
	@cmake --build $(BUILD)/stress -j $(JOBS) --target op_driver
	@tools/bundle build/bundle-stress build/stress/tests/gpu/op_driver
	@cp build/bundle/run.sh build/bundle/source build/bundle-stress/

clean:
	@rm -rf $(BUILD)
