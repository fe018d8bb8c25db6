# The front door. `make serve` and `make test` are all a newcomer needs.
BUILD := build
JOBS  ?= $(shell nproc)
ARGS  ?=

.PHONY: setup build serve test lint format bench clean

setup:            ## installs what the build needs, once (says the line before it runs)
	@tools/setup

build: setup      ## the program at build/lapidary
	@cmake --preset cpu -DLAPIDARY_TESTS=OFF > $(BUILD).log 2>&1 || { cat $(BUILD).log; rm -f $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log
	@cmake --build $(BUILD) --target lapidary -j $(JOBS)

serve: build      ## serves the shipped model on 127.0.0.1:8000; make serve ARGS="--model DIR"
	@$(BUILD)/lapidary serve $(ARGS)

test: setup       ## builds everything and runs all tests
	@cmake --preset cpu -DLAPIDARY_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS)
	@ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

lint: setup       ## format, layers, sizes
	@tools/setup lint
	@git ls-files 'src/*.h' 'src/*.cc' 'tests/*.h' 'tests/*.cc' 'bench/*.cc' | xargs clang-format-19 --dry-run --Werror
	@python3 tools/check_layers.py .

format:
	@tools/setup lint
	@git ls-files 'src/*.h' 'src/*.cc' 'tests/*.h' 'tests/*.cc' 'bench/*.cc' | xargs clang-format-19 -i

bench: test       ## roofline of the CPU ops
	@$(BUILD)/bench/ops_bench

clean:
	@rm -rf $(BUILD)
